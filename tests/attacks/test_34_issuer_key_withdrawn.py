"""Row 34: what runs by a token of a withdrawn issuer key is cancelled, and what runs by a later token is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_authz.errors import TokenRefused
from mcp_authz.key_rotation import KeyRotation
from mcp_authz.model import HeldCall
from mcp_authz.underway import Underway
from tests.attacks.attacker import answer_in
from tests.attacks.test_34_revoked_while_held import SCOPE
from tests.attacks.test_34_revoked_while_running import SOON, permitted, plain
from tests.oauth.house import OPERATOR, house
from tests.road.test_key_rotation import command
from tests.world import world


async def test_what_runs_by_a_token_of_the_issuer_key_is_cancelled_when_another_process_withdraws_it(
    tmp_path: Path,
) -> None:
    told: dict[str, Any] = {}

    async def call(token: str, tag: str) -> None:
        told[tag] = answer_in(await w.raw_call(token, "plain__wait", {"tag": tag}))

    async with world(tmp_path, servers={"plain": plain("read")}) as w, anyio.create_task_group() as group:
        coder = await w.ready("coder", SCOPE)
        group.start_soon(call, await w.token(coder), "before")
        await permitted(w, 1)
        (foreseen,) = (await command(w, "rotate", "--now", "--dry-run"))["running"]
        assert foreseen["tool"] == "plain__wait" and foreseen["actor"] == "agent:coder" and not told
        done = await command(w, "rotate", "--now", "--reason", "leaked")
        assert [it["call"] for it in done["running"]] == [foreseen["call"]]
        with anyio.fail_after(SOON):
            while not told:  # noqa: ASYNC110 - the client has no event for this
                await anyio.sleep(0.01)
        error = told["before"]["error"]
        assert (error["data"]["call"], error["data"]["reason"]) == (foreseen["call"], "revoked")
        (outcome,) = [it.event.fields for it in await w.records("outcome")]
        assert (outcome["outcome"], outcome["ended_by"]) == ("unknown", "revocation")

        group.start_soon(call, await w.token(coder), "after")
        await permitted(w, 2)
        assert (await command(w, "rotate", "--now", "--which", "context"))["running"] == []
        await command(w, "rotate")  # its tokens count until they end
        await anyio.sleep(0.1)
        assert "after" not in told and w.running.parts.underway.calls == 1
        group.cancel_scope.cancel()


async def nothing_is_approved(held: HeldCall, *, at: object = None) -> bool:
    raise AssertionError("nothing here rests on an approval")


async def test_what_was_let_in_just_before_the_issuer_key_was_withdrawn_ends_as_it_begins(tmp_path: Path) -> None:
    async with house(tmp_path) as h, anyio.create_task_group() as group:
        planner, *_ = await h.family()
        caller, ended = await h.caller(await h.token(planner)), list[str]()
        underway = Underway(h.store, h.keys.live, h.sessions.identify, nothing_is_approved, h.clock)

        async def told() -> None:
            pass

        async def run(name: str) -> None:
            with underway.while_standing(caller):
                await anyio.sleep_forever()
            ended.append(name)

        async def listen() -> None:
            with underway.while_listening(caller):
                await anyio.sleep_forever()
            ended.append("stream")

        async def are_over(names: set[str]) -> None:
            with anyio.fail_after(SOON):
                while set(ended) != names:  # noqa: ASYNC110 - whoever runs has no event for this
                    await anyio.sleep(0.005)

        group.start_soon(underway.run, told)
        group.start_soon(run, "call")
        group.start_soon(listen)
        await anyio.sleep(0.05)
        assert not ended
        await KeyRotation(h.store, h.clock).replace("issuer", by=OPERATOR)  # nobody but this process follows the keys
        await are_over({"call", "stream"})
        group.start_soon(run, "late")  # identified before, and everything was looked at meanwhile
        await are_over({"call", "stream", "late"})
        with pytest.raises(TokenRefused, match="withdrawn"):  # as whoever waited with a held call is
            await h.sessions.identify(caller.token, caller.proof)
        group.cancel_scope.cancel()
