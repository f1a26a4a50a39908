"""What held calls cost: from the verdict to the answer, a thousand that wait at once, and many that are over.

Calls come over HTTP, to a gateway in this process or to a real `mcp-authz serve`; verdicts are signed by the approver's
key, as at the command line. What is measured begins before the verdict is verified and written, and ends with the
tool's result in the client's hands: the flush of the verdict, the second evaluation, its record, the call, its record.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import uvicorn

from bench.governed import settings
from bench.held import Caller, Desk, answer_of, enrolled, send
from bench.process import cpu_seconds, free_port, resident_bytes, started
from mcp_authz.cli.listening import listening
from mcp_authz.cli.serve import open_app
from mcp_authz.config import Config, parse_config
from mcp_authz.ids import new_id
from mcp_authz.installation import open_installation, utc_now
from mcp_authz.model import HeldCall, HoldId, HoldState
from mcp_authz.store.ports import Event, Store

OLDER: Final = (0, 1_000, 100_000)
WAITING: Final = 1_000
PER_SESSION: Final = 20
_AT_REST: Final = 10.0  # seconds
_AT_ONCE: Final = 500  # holds that are made before they end together


async def holds(directory: Path, behind: str, *, share: int) -> dict[str, Any]:
    """All of it; `share` divides how much is done."""
    calls = 200 // share
    return {
        "one process": await _in_one(directory / "one", behind, calls),
        "two processes": await _in_two(directory / "two", behind, calls),
        "waiting": await _many(directory / "many", behind, WAITING // share),
        "older": await _older(directory / "older", behind, [older // share for older in OLDER]),
    }


async def _in_one(directory: Path, behind: str, calls: int) -> dict[str, float]:
    async with serving_here(config_of(directory, behind, waiting=200)) as desk:
        return await _continued(desk, await desk.caller("coder"), calls)


async def _in_two(directory: Path, behind: str, calls: int) -> dict[str, float]:
    config = config_of(directory, behind, waiting=200)
    async with open_installation(config) as here:
        desk = await enrolled(here, config)
        with serving(directory, config):
            return await _continued(desk, await desk.caller("coder"), calls)


async def _continued(desk: Desk, caller: Caller, calls: int) -> dict[str, float]:
    """Milliseconds from each verdict to its call's result, one after the other."""
    taken = []
    for number in range(calls + 10):
        reader, writer = await send(desk.config, caller, line=number + 1)
        held = await _pending(desk.store)
        await asyncio.sleep(0.02)  # it waits by then
        began = time.perf_counter()
        await desk.approve(held)
        await answer_of(reader)
        taken.append((time.perf_counter() - began) * 1e3)
        writer.close()
    return spread(taken[10:])


async def _pending(store: Store) -> HeldCall:
    while not (found := await store.holds(states=[HoldState.PENDING])):  # noqa: ASYNC110 - it may be another process
        await asyncio.sleep(0.002)
    return found[0]


async def _many(directory: Path, behind: str, waiting: int) -> dict[str, Any]:
    """What as many waiting calls add to a gateway's memory, and what it does while nobody answers."""
    config = config_of(directory, behind, waiting=200)
    async with open_installation(config) as here:
        desk = await enrolled(here, config)
        callers = [await desk.caller(f"agent-{n // 2}") for n in range(-(-waiting // PER_SESSION))]
        with serving(directory, config) as pid:
            await _continued(desk, await desk.caller("coder"), 10)
            before, began = resident_bytes(pid), time.perf_counter()
            streams = [await send(config, callers[n // PER_SESSION], line=n + 1) for n in range(waiting)]
            while len(await desk.store.holds(states=[HoldState.PENDING])) < waiting:  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
            opened, memory = time.perf_counter() - began, resident_bytes(pid)
            cpu = cpu_seconds(pid)
            await asyncio.sleep(_AT_REST)
            at_rest = (cpu_seconds(pid) - cpu) / _AT_REST
            last = (await desk.store.holds(states=[HoldState.PENDING]))[-1]
            began = time.perf_counter()
            await desk.approve(last)
            await answer_of(streams[-1][0])
            one = (time.perf_counter() - began) * 1e3
            for _, writer in streams:
                writer.close()
            await asyncio.sleep(1)  # it has noticed by then that nobody waits any more
    return {
        "calls": waiting,
        "opened in s": opened,
        "memory in MB": (memory - before) / 1e6,
        "CPU at rest in %": at_rest * 100,
        "one of them goes on in ms": one,
    }


async def _older(directory: Path, behind: str, older: list[int]) -> list[dict[str, float]]:
    """What a hold costs beside others that are over, in milliseconds."""
    measured, there = [], 0
    async with serving_here(config_of(directory, behind, waiting=0)) as desk:
        for many in older:
            await _age(desk, many - there, first=there)
            caller = await desk.caller("coder")
            there = many
            opened, answered = [], []
            for number in range(20):
                began = time.perf_counter()
                reader, writer = await send(desk.config, caller, line=there + number + 1)
                await answer_of(reader)
                opened.append((time.perf_counter() - began) * 1e3)
                writer.close()
                held, began = await _pending(desk.store), time.perf_counter()
                await desk.approve(held)
                answered.append((time.perf_counter() - began) * 1e3)
            there += 20
            page = await _timed(partial(_as_the_page, desk, held))
            known = await _timed(desk.store.hold_ids)
            row = {"opened": statistics.median(opened), "answered": statistics.median(answered)}
            measured.append({"older": many, **row, "page": page, "ids": known})
    return measured


async def _as_the_page(desk: Desk, held: HeldCall) -> None:
    """What the page reads for the list, and for one call."""
    await desk.store.holds(states=[HoldState.PENDING])
    await desk.store.latest_holds(200)
    await desk.approvals.context(held)


async def _age(desk: Desk, many: int, *, first: int) -> None:
    """So many holds more that are over, all of one agent and one tool."""
    caller = await desk.caller("coder")
    reader, writer = await send(desk.config, caller, line=1_000_000 + first)
    await answer_of(reader)
    writer.close()
    like, event = await _pending(desk.store), Event(kind="approval", at=utc_now(), fields={"summary": "bench"})
    room = {"per_session": first + many + 1, "per_agent": first + many + 1}
    for begin in range(first, first + many, _AT_ONCE):
        ends = utc_now() + timedelta(seconds=1)  # they are over by themselves: what is called off keeps its place
        async with anyio.create_task_group() as group:
            for number in range(begin, min(begin + _AT_ONCE, first + many)):
                digest = number.to_bytes(32, "big")
                held = replace(like, id=HoldId(new_id("h")), digest=digest, expires_at=ends)
                group.start_soon(partial(desk.store.open_hold, held, event, **room))
    await desk.call_off(caller)
    await anyio.sleep(1)


async def _timed(step: Callable[[], Awaitable[Any]]) -> float:
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        await step()
        taken.append((time.perf_counter() - began) * 1e3)
    return statistics.median(taken)


def spread(taken: list[float]) -> dict[str, float]:
    """What half of them took at most, and 99 of 100."""
    ordered = sorted(taken)
    return {"p50": statistics.median(ordered), "p99": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]}


def config_of(directory: Path, behind: str, *, waiting: int) -> Config:
    """A gateway whose calls are all held."""
    values = settings(directory, free_port(), behind)
    (server,) = values["servers"].values()
    server["tools"]["*"]["hazard"] = "destructive"
    return parse_config({**values, "notify": "none", "waiting": {"seconds": waiting}})


@asynccontextmanager
async def serving_here(config: Config) -> AsyncIterator[Desk]:
    """The gateway runs in this process."""
    async with open_app(config) as (app, running):
        desk = await enrolled(running.installation, config)
        server = uvicorn.Server(listening(app.asgi, port=config.listen_port))
        async with anyio.create_task_group() as group:
            group.start_soon(server.serve)
            while not server.started:  # noqa: ASYNC110 - uvicorn has no event for this
                await anyio.sleep(0.005)
            yield desk
            server.should_exit = True


@contextmanager
def serving(directory: Path, config: Config) -> Iterator[int]:
    """The process id of a real gateway."""
    file = directory / "gateway.toml"
    values = config.model_dump(
        mode="json", include={"public_url", "notify", "waiting", "dpop_nonce"}, exclude_unset=True
    )
    (name, server), *_ = config.servers.items()
    values["data_dir"] = str(config.data)
    values["servers"] = {name: server.model_dump(mode="json", exclude_unset=True)}
    file.write_text("".join(f"{key} = {_toml(value)}\n" for key, value in values.items()), encoding="utf-8")
    with started("-m", "mcp_authz.cli.main", "--config", str(file), "serve", port=config.listen_port) as process:
        yield process.pid


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(one)}" for key, one in value.items()) + "}"
    return json.dumps(value)
