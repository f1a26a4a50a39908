"""A gateway that is told to stop keeps nobody who waits for a person: their call goes on elsewhere."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio

from mcp_authz.installation import open_installation
from mcp_authz.model import HoldState
from tests.ports import free_port
from tests.road.places import DESTRUCTIVE, plain
from tests.road.wire import wire
from tests.site import outcome_of, site, until
from tests.world import LEGACY, MODERN, world

PROGRESS = {"progressToken": 1}
CALL = ("plain__received", {"text": "hello"})


async def test_who_waits_is_answered_at_once_and_goes_on_at_another_process(tmp_path: Path) -> None:
    answers: list[dict[str, Any]] = []
    port = free_port()
    async with (
        site(tmp_path, {"plain": plain("modern", tools=DESTRUCTIVE)}, "use", waiting=60) as here,
        open_installation(here.config) as installation,
        here.at() as one,
        here.at(port) as other,
    ):
        with here.serving() as gateway, here.serving(beside=port):
            await here.up(one)
            await here.up(other)

            async def wait() -> None:
                answers.append(await here.call(one, *CALL))

            async def is_held() -> bool:
                return bool(await installation.store.holds(states=[HoldState.PENDING]))

            async with anyio.create_task_group() as group:
                group.start_soon(wait)
                await until(is_held)
                await anyio.sleep(0.2)  # it waits by then
                gateway.terminate()
                with anyio.fail_after(4.5):  # of the 25 seconds of its round, and of the 5 for what is under way
                    await anyio.to_thread.run_sync(gateway.wait)
            assert answers[0]["resultType"] == "input_required"
            (held,) = await installation.store.holds()
            await here.approve(installation, held.id)
            done = await here.call(other, *CALL, requestState=answers[0]["requestState"])
            assert not outcome_of(done) and not done.get("isError")
            assert gateway.returncode == 0


async def test_a_call_that_runs_when_the_gateway_stops_is_on_record_as_ended_by_that(tmp_path: Path) -> None:
    async with AsyncExitStack() as clients:
        async with world(tmp_path, servers={"plain": plain()}) as w:
            coder = await w.ready("coder", "use")
            for mode in (LEGACY, MODERN):
                client = await clients.enter_async_context(wire(w, coder, mode, "use"))
                reply = await clients.enter_async_context(client.calling("plain__wait", {"tag": mode}, meta=PROGRESS))
                await reply.next("notifications/progress")
            w.running.parts.waits.leave()  # as the signal does
        async with open_installation(w.config) as installation:
            ended = [record.event.fields for record in await installation.store.records(kind="outcome")]
    assert [(it["outcome"], it["ended_by"]) for it in ended] == [("unknown", "shutdown")] * 2
