"""Row 34, as an operator does it: of each kind something is revoked by the real command, while calls of it run."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_authz.model import HoldId, HoldState
from tests.attacks.attacker import answer_in
from tests.attacks.test_34_approval_revoked_while_running import APPROVAL, by_passkey, by_standing
from tests.attacks.test_34_revoked_while_held import held_of, of_a_chain, of_a_client
from tests.attacks.test_34_revoked_while_running import SOON, permitted, plain
from tests.site import PROGRAM, toml
from tests.world import World, world

SERVERS = {name: plain("destructive") for name in ("plain", "other", "gone")}


@dataclass(frozen=True)
class Case:
    """What is revoked: by which words, and what calls, and approves, before that."""

    kind: str
    of: str = ""  # of the family, as `of_a_chain` names it
    tool: str = "plain__wait"
    client: bool = False
    approve: Callable[[World, str, HoldId], Awaitable[Any]] | None = None


CASES = [
    Case("client", "the client", client=True),
    Case("approval", approve=by_standing),
    Case("everything"),
    Case("server", tool="gone__wait"),
]
MORE = [  # a hold is over once its call runs
    Case("link", "the link above"), Case("session", "its session"), Case("grant", "the grant"),
    Case("agent", "the agent in the middle"), Case("key", "its only key"), Case("person", "the person"),
    Case("passkey", approve=by_passkey), Case("tool"),
]  # fmt: skip


@dataclass
class Desk:
    """A gateway with calls that run, and the command line on its store."""

    w: World
    file: Path
    told: dict[str, Any]

    async def revoke(self, *words: str) -> None:
        command = [str(PROGRAM), "--config", str(self.file), "revoke", *words, "--reason", "leaked", "--json"]
        done = await anyio.run_process(command, check=False, stderr=subprocess.PIPE)
        assert done.returncode == 0, (words, done.stderr)
        assert json.loads(done.stdout)

    async def call(self, token: str, tool: str, what: str) -> None:
        self.told[what] = answer_in(await self.w.raw_call(token, tool, {"tag": what, "version": what}))

    async def ended(self, what: str) -> dict[str, Any]:
        with anyio.fail_after(SOON):
            while "error" not in self.told.get(what, {}):  # noqa: ASYNC110 - the client has no event for this
                await anyio.sleep(0.01)
        return dict(self.told[what]["error"]["data"])

    async def begin(self, group: Any, token: str, tool: str, what: str, case: Case | None) -> str:
        """The call runs; the name of what is to be revoked, where that is what approved it."""
        await self.call(token, tool, what)
        held = await held_of(self.w, what)
        name = await self.w.person("bob-" + what.replace(" ", "-"), "ops")
        named = "", held.id
        if case is not None and case.approve is not None:
            named = await case.approve(self.w, name, held.id)
        else:
            await self.w.answer(held.id, by=name)
        before = len([it for it in await self.w.decisions() if it["decision"] == "permit"])
        group.start_soon(self.call, token, tool, what)
        await permitted(self.w, before + 1)
        return str(named[1])


@pytest.mark.parametrize("cases", [CASES, pytest.param(MORE, marks=pytest.mark.thorough)])
async def test_what_an_operator_revokes_is_cancelled_at_its_tool_server_and_nothing_of_others(
    tmp_path: Path, cases: list[Case]
) -> None:
    async with world(tmp_path, servers=SERVERS, approval=APPROVAL) as w, anyio.create_task_group() as group:
        file = tmp_path / "desk.toml"
        file.write_text(
            f'public_url = "{w.config.public_url}"\ndata_dir = "{w.config.data}"\nservers = {toml(SERVERS)}\n'
        )
        desk = Desk(w, file, {})
        others = await of_a_chain(w, "0")
        await desk.begin(group, others.token, "other__wait", "of somebody else", None)
        for n, case in enumerate(cases, start=1):
            family = await (of_a_client if case.client else of_a_chain)(w, str(n))
            named = await desk.begin(group, family.token, case.tool, case.kind, case)
            match case.kind:
                case "everything":
                    await desk.revoke("everything", "--of", f"user:alice{n}", "--before", "now")
                case "tool" | "server":
                    await desk.revoke(case.kind, case.tool if case.kind == "tool" else "gone")
                case _:
                    await desk.revoke(case.kind, family.names[case.of][1] if case.of else named)
            error = await desk.ended(case.kind)
            assert (error["outcome"], error["reason"]) == ("unknown", "revoked"), case.kind
            (outcome,) = [it.event for it in await w.records("outcome") if it.event.call == error["call"]]
            assert outcome.fields["ended_by"] == "revocation", case.kind
        assert "error" not in desk.told["of somebody else"] and w.running.parts.underway.count == 1
        (running,) = await w.store.holds(states=[HoldState.CLAIMED])
        assert running.arguments["version"] == "of somebody else"
        said = answer_in(await w.raw_call(others.token, "plain__cancelled", {}))["result"]
        assert said["structuredContent"]["value"] == [case.kind for case in cases if case.tool == "plain__wait"]
        group.cancel_scope.cancel()
