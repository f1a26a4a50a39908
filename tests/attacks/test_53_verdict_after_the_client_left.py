"""Row 53: the approval is given after the client stopped waiting. Nothing runs for nobody; whoever comes back joins."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
from mcp_types import ElicitResult

from mcp_authz import limits
from mcp_authz.model import HoldState
from tests.road.places import BOTH
from tests.road.waiting import DEPLOY, TOOL, approve_next, nobody_waits, pending, waiting
from tests.road.wire import wire
from tests.world import LEGACY, called, world

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
