"""Row 53: the approval is given after the client stopped waiting. Nothing runs for nobody; whoever comes back joins."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp_types import ElicitResult

from mcp_authz import limits
from mcp_authz.model import HoldId, HoldState
from tests.attacks.attacker import answer_in
from tests.road.places import BOTH, DESTRUCTIVE, asking
from tests.road.test_questions import ASKED, ELICITS
from tests.road.waiting import DEPLOY, SOON, TOOL, approve_next, nobody_waits, pending, waiting
from tests.road.wire import wire
from tests.world import LEGACY, World, called, world

WAITS = {"seconds": 60}
PROGRESS = "notifications/progress"


@BOTH
async def test_a_client_that_left_while_a_person_thought_comes_back_to_the_verdict(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path, waiting=WAITS) as w:
        coder = await w.ready("coder", "deploy")
        async with w.client(coder, mode) as client, waiting(client):
            held = await pending(w)
        await nobody_waits(w)
        await w.answer(held.id, by="alice")
        assert (await w.store.hold(held.id)).state is HoldState.APPROVED and w.deployments() == []

        async with w.client(coder, mode) as client:
            first, again = await called(client, TOOL, DEPLOY), await called(client, TOOL, DEPLOY)
        assert not first.is_error and not first.envelope and len(w.deployments()) == 1
        assert again.envelope["outcome"] == "replayed" and again.envelope["hold"] == held.id
        assert again.result["structuredContent"] == first.result["structuredContent"]


@BOTH
async def test_a_connection_that_breaks_while_a_person_thinks_runs_nothing(tmp_path: Path, mode: str) -> None:
    """No word of the client's comes, as a stock client sends one: its connection is gone, and that is all."""
    async with world(tmp_path, waiting=WAITS) as w:
        coder = await w.ready("coder", "deploy")
        async with wire(w, coder, mode, "deploy") as client:
            async with client.calling(TOOL, DEPLOY, meta={"progressToken": 1}) as reply:
                await reply.next(PROGRESS)
            await nobody_waits(w)
            await approve_next(w, "alice")
            assert w.deployments() == []

            done = await (await client.call(TOOL, DEPLOY)).result()
            assert not done.get("isError") and len(w.deployments()) == 1
            w.clock.advance(limits.REPLAY_WINDOW + timedelta(seconds=1))
            async with client.calling(TOOL, DEPLOY, meta={"progressToken": 1}) as reply:
                await reply.next(PROGRESS)  # later, the same call is another one, and waits for another verdict
            assert len(await w.store.holds()) == 2 and len(w.deployments()) == 1


@BOTH
async def test_whoever_waits_on_hears_the_verdict_that_another_left_before(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path, waiting=WAITS) as w:
        coder = await w.ready("coder", "deploy")
        async with w.client(coder, mode) as stays, waiting(stays) as call:
            async with w.client(coder, mode) as leaves, waiting(leaves):
                pass
            await w.answer((await pending(w)).id, by="alice")
            assert not (await call.result()).is_error
        assert len(w.deployments()) == 1


async def test_a_client_that_left_its_prompt_open_runs_nothing_by_what_is_approved_elsewhere(tmp_path: Path) -> None:
    opened = anyio.Event()

    async def thinks(context: Any, params: Any) -> ElicitResult:
        opened.set()
        await anyio.sleep_forever()
        raise AssertionError

    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy", interactive=True)
        async with w.client(coder, LEGACY, elicitation_callback=thinks) as client, anyio.create_task_group() as group:
            group.start_soon(client.call_tool, TOOL, DEPLOY)
            await opened.wait()
            await w.answer((await pending(w)).id, by="alice")
            group.cancel_scope.cancel()
        done = await w.call(coder, TOOL, LEGACY, **DEPLOY)
        assert not done.is_error and not done.envelope, "it ran for the client that is there"
        assert len(w.deployments()) == 1


async def state_in_the_end(w: World, hold: HoldId) -> HoldState:
    """The state of the hold, once nothing of it runs any more."""
    with anyio.fail_after(SOON):
        while (held := await w.store.hold(hold)).state is HoldState.CLAIMED:  # noqa: ASYNC110 - written by others
            await anyio.sleep(0.02)
    state: HoldState = held.state
    return state


async def test_a_client_that_left_a_tool_servers_question_open_leaves_nothing_running(tmp_path: Path) -> None:
    servers = {"asking": asking(tmp_path / "f", tools=DESTRUCTIVE)}
    async with world(tmp_path, servers=servers, waiting=WAITS) as w:
        coder = await w.ready("coder", "use")
        async with (
            wire(w, coder, LEGACY, "use", elicitation={"form": {}}) as client,
            client.calling("asking__ask", {"asked": ASKED}, meta={"progressToken": 1}) as reply,
        ):
            await reply.next(PROGRESS)
            held = await pending(w)
            await w.answer(held.id, by="alice")
            await reply.next("elicitation/create")
        assert await state_in_the_end(w, held.id) is HoldState.UNKNOWN
        (outcome,) = await w.records("outcome")
        assert outcome.event.fields["outcome"] == "unknown"


async def test_a_question_that_nobody_comes_back_to_leaves_no_run_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RECOVERED", timedelta(milliseconds=100))
    servers, asked = {"asking": asking(tmp_path / "f", tools=DESTRUCTIVE)}, {"asked": ASKED}
    async with world(tmp_path, servers=servers) as w:
        token = await w.token(await w.ready("coder", "use"))
        await w.raw_call(token, "asking__ask", asked, capabilities=ELICITS)
        held = await pending(w)
        await w.answer(held.id, by="alice")
        answer = answer_in(await w.raw_call(token, "asking__ask", asked, capabilities=ELICITS))
        assert answer["result"]["resultType"] == "input_required"
        await anyio.sleep(0.3)
        assert (await w.store.hold(held.id)).state is HoldState.CLAIMED
        w.clock.advance(limits.REQUEST_STATE_LIFETIME)
        assert await state_in_the_end(w, held.id) is HoldState.UNKNOWN
        last = (await w.records("approval"))[-1].event.fields
        assert last["hold"] == held.id and "not answered in time" in last["summary"]
