"""A held call waits for its verdict in the request that made it, goes on with it at once, and ends with its hold."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import MCPError
from mcp_types import ElicitResult

from mcp_authz import limits
from mcp_authz.model import HoldState
from mcp_authz.protocol.channel import LegacyChannel, ModernChannel
from mcp_authz.revocation import Revocation
from tests.road.places import BOTH
from tests.road.test_offers import bookshelf
from tests.road.waiting import DEPLOY, SOON, TOOL, approve_next, nobody_waits, pending, waiting
from tests.road.wire import Wire, wire
from tests.world import LEGACY, MODERN, OPERATOR, called, world

WAITS = {"seconds": 60}
PROGRESS = "notifications/progress"


@BOTH
async def test_a_call_goes_on_by_itself_once_it_is_approved(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path, waiting=WAITS) as w:
        coder = await w.ready("coder", "deploy")
        async with w.client(coder, mode) as client, waiting(client) as call:
            held = await pending(w)
            assert w.deployments() == []
            await w.answer(held.id, by="alice")
            done = await call.result()
        assert not done.is_error and not done.envelope and len(w.deployments()) == 1
        assert w.running.parts.waits.count == 0
    assert call.heard[0] == f"hold {held.id} waits for a person, at {w.config.public_url}/holds/{held.id}"
    assert call.progress == sorted(set(call.progress)) and call.progress[-1] < 1


@BOTH
async def test_a_wait_ends_at_once_with_its_hold(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path, waiting=WAITS) as w:
        revocation = Revocation(w.store, w.clock)
        coder = await w.ready("coder", "deploy")

        async def deny() -> None:
            await w.answer((await pending(w)).id, by="alice", approve=False, reason="use the \u202eother one")

        async def call_off() -> None:
            await revocation.revoke("hold", (await pending(w)).id, reason="", by=OPERATOR)

        async def end_the_session() -> None:
            await revocation.revoke("session", (await pending(w)).session, reason="", by=OPERATOR)

        ends = {"approval_denied": deny, "approval_cancelled": call_off, "revoked": end_the_session}
        async with w.client(coder, mode) as client:
            for version, (reason, end) in enumerate(ends.items()):
                async with waiting(client, TOOL, {**DEPLOY, "version": str(version)}) as call:
                    await end()
                    told = await call.result()
                assert told.envelope["reason"] in {reason, "approval_cancelled"}, told.text
                if reason == "approval_denied":
                    assert told.text.endswith("They say: use the \\u{202e}other one") and "alice" not in told.text
        assert w.deployments() == []


@BOTH
async def test_a_wait_ends_at_once_when_the_delegation_is_revoked_that_its_own_rests_on(
    tmp_path: Path, mode: str
) -> None:
    async with world(tmp_path, waiting=WAITS) as w:
        planner = await w.ready("planner", "deploy", depth=1, delegates_to={"coder"})
        coder = await w.agent("coder", ceiling="deploy")
        await w.delegate(planner, "coder", "deploy")
        async with w.client(coder, mode) as client, waiting(client) as call:
            await Revocation(w.store, w.clock).revoke("agent", "planner", reason="", by=OPERATOR)
            told = await call.result()
        assert told.envelope["reason"] in {"approval_cancelled", "revoked"} and w.deployments() == []


@BOTH
async def test_a_wait_ends_when_the_time_of_its_hold_is_up(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path, waiting=WAITS, approval={"destructive": {"expires_minutes": 1}}) as w:
        coder = await w.ready("coder", "deploy")
        async with w.client(coder, mode) as client:
            async with waiting(client):
                pass
            w.clock.advance(timedelta(seconds=59, milliseconds=800))
            async with waiting(client) as call:
                late = await call.result()
        assert late.envelope["reason"] == "approval_expired" and w.deployments() == []


@BOTH
async def test_where_nothing_waits_a_call_is_told_at_once_that_it_is_held(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path) as w, w.client(await w.ready("coder", "deploy"), mode) as client:
        assert (await called(client, TOOL, DEPLOY)).is_held


async def test_a_call_waits_in_rounds_that_stock_clients_come_back_from_and_is_told_at_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModernChannel, "longest_wait", timedelta(milliseconds=50))
    async with world(tmp_path, waiting={"seconds": 3}) as w:
        coder = await w.ready("coder", "deploy")
        async with w.client(coder) as client:
            assert (await called(client, TOOL, DEPLOY)).is_held
        asked = [f for f in await w.decisions() if f["decision"] == "hold"]
        assert len(asked) == 4 and len({f["hold"] for f in asked}) == 1
        async with w.client(coder) as client, waiting(client) as call:
            await call.waits(rounds=2)
            await w.answer((await pending(w)).id, by="alice")
            assert not (await call.result()).is_error
        assert len(w.deployments()) == 1


async def test_a_client_of_the_older_era_is_told_before_it_would_give_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert LegacyChannel.longest_wait < timedelta(seconds=60)
    monkeypatch.setattr(LegacyChannel, "longest_wait", timedelta(milliseconds=50))
    async with world(tmp_path, waiting=WAITS) as w, w.client(await w.ready("coder", "deploy"), LEGACY) as client:
        held = await called(client, TOOL, DEPLOY)
        assert held.is_held and (await called(client, TOOL, DEPLOY)).hold == held.hold


@BOTH
async def test_calls_that_wait_for_the_same_hold_share_its_one_run_and_there_are_only_so_many(
    tmp_path: Path, mode: str
) -> None:
    outcomes: Counter[str] = Counter()

    async def wait(client: Wire, waits: anyio.Event) -> None:
        async with client.calling(TOOL, DEPLOY, meta={"progressToken": 1}) as reply:
            await reply.next(PROGRESS)
            waits.set()
            said = await reply.result()
        outcomes[(said.get("_meta") or {}).get("dev.mcp-authz/outcome", {}).get("outcome", "done")] += 1

    async with world(tmp_path, waiting=WAITS) as w:
        coder = await w.ready("coder", "deploy")
        async with wire(w, coder, mode, "deploy") as client, anyio.create_task_group() as group:
            for _ in range(limits.WAITING_PER_HOLD):
                group.start_soon(wait, client, waits := anyio.Event())
                with anyio.fail_after(SOON):
                    await waits.wait()
            more = await (await client.call(TOOL, DEPLOY)).result()
            assert more["_meta"]["dev.mcp-authz/outcome"]["outcome"] == "held"
            await w.answer((await pending(w)).id, by="alice")
        assert outcomes == {"done": 1, "replayed": limits.WAITING_PER_HOLD - 1}
        assert len(w.deployments()) == 1 and w.running.parts.waits.count == 0


@BOTH
async def test_a_clients_other_calls_go_through_while_one_waits(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path, waiting=WAITS) as w:
        coder = await w.ready("coder", "deploy pr:read")
        async with w.client(coder, mode) as client, waiting(client) as call:
            with anyio.fail_after(SOON):
                listed = await called(client, "acme__list_pull_requests", {"owner": "acme", "repo": "api"})
                assert not listed.is_error and len((await client.list_tools()).tools) > 1
            assert call.answer is None
            await w.answer((await pending(w)).id, by="alice")
            assert not (await call.result()).is_error


async def test_a_prompt_of_the_older_era_is_closed_when_its_hold_ends(tmp_path: Path) -> None:
    open_ = anyio.Event()

    async def thinks(context: Any, params: Any) -> ElicitResult:
        open_.set()
        await anyio.sleep_forever()
        raise AssertionError

    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy", interactive=True)
        async with w.client(coder, LEGACY, elicitation_callback=thinks) as client, anyio.create_task_group() as group:

            async def end() -> None:
                await open_.wait()
                await w.answer((await pending(w)).id, by="alice", approve=False)

            group.start_soon(end)
            with anyio.fail_after(SOON):
                denied = await called(client, TOOL, DEPLOY)
        assert denied.envelope["reason"] == "approval_denied" and w.running.parts.waits.count == 0


OFFERED = {
    "resources/read": {"hazard": "destructive", "scopes": ["lib:use"], "resource": {"uri": "{uri}"}},
    "prompts/get": {"hazard": "destructive", "scopes": ["lib:use"]},
}


async def ask_for(client: Any, method: str) -> str:
    """The text that a resource or a prompt of the bookshelf comes to."""
    if method == "resources/read":
        read = await client.read_resource("book://one")
        return str(read.contents[0].text)
    got = await client.get_prompt("lib__review", {"title": "Emma"})
    return str(got.messages[0].content.text)


TEXTS = {"resources/read": "Call me Ishmael.", "prompts/get": "Review Emma"}


@BOTH
async def test_prompts_and_resources_wait_and_are_asked_about_like_calls(tmp_path: Path, mode: str) -> None:
    questions: list[str] = []

    async def yes(context: Any, params: Any) -> ElicitResult:
        questions.append(params.message)
        return ElicitResult(action="accept", content={"approve": True})

    async with world(tmp_path, waiting=WAITS, servers={"lib": bookshelf(tools=OFFERED)}) as w:
        asked = await w.ready("asked", "lib:use", interactive=True)
        async with w.client(asked, mode, elicitation_callback=yes) as client:
            assert {method: await ask_for(client, method) for method in TEXTS} == TEXTS
        assert len(questions) == 2 and "lib__resources/read" in questions[0] and "Emma" in questions[1]

        waits = await w.ready("waits", "lib:use")
        async with w.client(waits, mode) as client:
            for method, text in TEXTS.items():
                async with anyio.create_task_group() as group:
                    group.start_soon(approve_next, w, "alice")
                    with anyio.fail_after(SOON):
                        assert await ask_for(client, method) == text


@BOTH
async def test_prompts_and_resources_are_held_where_nothing_waits(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path, servers={"lib": bookshelf(tools=OFFERED)}) as w:
        held_back = await w.ready("held-back", "lib:use")
        async with w.client(held_back, mode) as client:
            for method, text in TEXTS.items():
                with pytest.raises(MCPError, match="Held, not executed") as told:
                    await ask_for(client, method)
                assert told.value.error.code == 40300
                held = await pending(w)
                assert held.tool == f"lib__{method}" and told.value.error.data["hold"] == held.id
                await w.answer(held.id, by="alice")
                assert await ask_for(client, method) == text
                assert (await w.store.hold(held.id)).state is HoldState.DONE


@pytest.mark.parametrize("mode", [MODERN])
async def test_a_state_of_waiting_that_comes_back_late_opens_nothing_new(tmp_path: Path, mode: str) -> None:
    """What became of the hold is told: whoever suspended its program for an hour does not ask anybody again."""
    async with world(tmp_path, waiting=WAITS) as w:
        coder = await w.ready("coder", "deploy")
        async with wire(w, coder, mode, "deploy") as client:
            for code, end in (("approval_used", True), ("approval_denied", False), ("approval_cancelled", None)):
                arguments = {**DEPLOY, "version": code}
                state = await one_round(client, arguments)
                held = await pending(w)
                if end is None:
                    await Revocation(w.store, w.clock).revoke("hold", held.id, reason="", by=OPERATOR)
                else:
                    await w.answer(held.id, by="alice", approve=end)
                if end:
                    assert not (await (await client.call(TOOL, arguments)).result()).get("isError")
                    w.clock.advance(limits.REPLAY_WINDOW + timedelta(seconds=1))
                said = await (await client.call(TOOL, arguments, requestState=state)).result()
                assert said["_meta"]["dev.mcp-authz/outcome"]["reason"] == code
        assert len(w.deployments()) == 1 and await w.store.holds(states=(HoldState.PENDING,)) == ()
        await nobody_waits(w)


async def one_round(client: Wire, arguments: dict[str, Any]) -> str:
    """The state that a call gets which has waited for one round."""
    patch = pytest.MonkeyPatch()
    with patch.context() as at_once:
        at_once.setattr(ModernChannel, "longest_wait", timedelta(milliseconds=1))
        asked = await (await client.call(TOOL, arguments)).result()
    assert asked["resultType"] == "input_required" and "inputRequests" not in asked
    return str(asked["requestState"])
