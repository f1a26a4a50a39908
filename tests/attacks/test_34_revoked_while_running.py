"""Row 34: what a running call stands on is revoked: it is cancelled at its tool server, and nobody else's is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import anyio
import httpx2

from mcp_authz.audit_excerpts import records_of
from mcp_authz.installation import open_installation, utc_now
from mcp_authz.model import HoldState
from mcp_authz.revocation import Revocation
from tests.attacks.attacker import answer_in
from tests.attacks.test_34_revoked_while_held import POLICIES, REVOKED, SCOPE, held_of, of_a_chain, revoke
from tests.ports import free_port
from tests.site import BY, site, until
from tests.world import ENVELOPE, ROOT, World, world

RUNNING = [(make, what) for make, what in REVOKED if what != "the hold"]  # which is over once its call runs
SOON = 10


def plain(hazard: str) -> dict[str, Any]:
    """A tool server whose `wait` never answers, and whose `cancelled` says which calls were called off."""
    tool = {"action": "plain.use", "scopes": [SCOPE]}
    tools = {"wait": {**tool, "hazard": hazard}, "cancelled": {**tool, "hazard": "read"}}
    return {"command": [sys.executable, str(ROOT / "tests" / "servers" / "plain.py")], "tools": tools}


async def permitted(w: World, calls: int) -> None:
    """Return once so many calls were let through, and are with the tool server."""
    with anyio.fail_after(SOON):
        while len([it for it in await w.decisions() if it["decision"] == "permit"]) < calls:  # noqa: ASYNC110
            await anyio.sleep(0.01)
    await anyio.sleep(0.05)


async def test_what_runs_on_something_revoked_is_cancelled_at_its_tool_server(tmp_path: Path) -> None:
    told: dict[str, Any] = {}

    async def call(token: str, what: str) -> None:
        told[what] = answer_in(await w.raw_call(token, "plain__wait", {"tag": what, "version": what}))

    async with (
        world(tmp_path, servers={"plain": plain("destructive")}, policy=POLICIES) as w,
        anyio.create_task_group() as group,
    ):
        others = await of_a_chain(w, "0")
        for n, (make, what) in enumerate([(None, "of somebody else"), *RUNNING]):
            family = others if make is None else await make(w, str(n))
            await w.raw_call(family.token, "plain__wait", {"tag": what, "version": what})
            held = await held_of(w, what)
            await w.answer(held.id, by=held.subject)
            group.start_soon(call, family.token, what)
            await permitted(w, n + 1)
            if make is None:
                unmoved = held
                continue
            await revoke(w, family, what, held.id)
            with anyio.fail_after(SOON):
                while what not in told:  # noqa: ASYNC110 - the client has no event for this
                    await anyio.sleep(0.01)
            error = told[what]["error"]
            assert error["data"]["outcome"] == "unknown" and error["data"]["reason"] == "revoked", what
            assert "may have run" in error["message"]
            assert (await w.store.hold(held.id)).state is HoldState.UNKNOWN, what
            (outcome,) = [it for it in await w.records("outcome") if it.event.call == error["data"]["call"]]
            assert (outcome.event.fields["outcome"], outcome.event.fields["ended_by"]) == ("unknown", "revocation")
            explained = await records_of(w.store, error["data"]["call"])
            assert [it for it in explained if it.event.kind == "revocation"] == [(await w.records("revocation"))[-1]], (
                what
            )
        said = answer_in(await w.raw_call(others.token, "plain__cancelled", {}))["result"]
        assert said["structuredContent"]["value"] == [what for _, what in RUNNING]
        assert (await w.store.hold(unmoved.id)).state is HoldState.CLAIMED and "of somebody else" not in told
        assert w.running.parts.underway.count == 1
        group.cancel_scope.cancel()


async def test_what_is_revoked_in_one_process_is_cancelled_in_the_other(tmp_path: Path) -> None:
    port, told = free_port(), []
    async with (
        site(tmp_path, {"plain": plain("read")}, SCOPE) as here,
        open_installation(here.config) as installation,
        here.at() as one,
        here.at(port) as other,
        anyio.create_task_group() as group,
    ):
        store = installation.store

        async def call(http: httpx2.AsyncClient) -> None:
            told.append(await here.answer(http, "plain__wait", {"tag": "x"}, token=token))

        async def are_running() -> bool:
            return len(await store.records(kind="decision")) == 2

        with here.serving(), here.serving(beside=port):
            await here.up(one)
            await here.up(other)
            token = await here.token(one)
            group.start_soon(call, one)
            group.start_soon(call, other)
            await until(are_running)
            (session,) = await store.sessions()
            await Revocation(store, utc_now).revoke("session", session.id, reason="over", by=BY)

            async def are_told() -> bool:
                return len(told) == 2

            for http in (one, other):  # neither process takes the token any more
                answer = await here.answer(http, "plain__cancelled", {}, token=token)
                reason = answer["result"]["_meta"][ENVELOPE]["reason"]
                assert reason == "session_over", answer
            await until(are_told)
            assert [it["error"]["data"]["reason"] for it in told] == ["revoked", "revoked"]
            ends = [it.event.fields["ended_by"] for it in await store.records(kind="outcome")]
            assert ends == ["revocation", "revocation"]
