"""What growth costs a call: tools, agents, audit records; few and many measured in turns, in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio

from bench.governed import OPERATOR, SERVER
from bench.house import House, house
from bench.process import started
from bench.wire import TEXT
from mcp_authz.agents import Agents
from mcp_authz.installation import utc_now
from mcp_authz.model import Admitted
from mcp_authz.relay import GovernedRelay
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.store.ports import Event

_TOGETHER = 16
_ROUNDS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """CPU microseconds of one call, all threads, forwarding left out."""

    what: str
    few: float
    many: float


class Answering:
    """A tool server that costs nothing, so that nothing of the gateway's own is lost beside it."""

    async def forward(self, admitted: Admitted, relay: GovernedRelay) -> Mapping[str, Any]:
        """The answer, at once."""
        return {"resultType": "complete", "content": [{"type": "text", "text": TEXT}]}


async def growth(directory: Path, *, share: int) -> list[Grown]:
    """Each dimension by itself; `share` divides how much is grown."""

    async def agents(one: House) -> None:
        await _in_parallel(10_000 // share, lambda number: _agent(one, number))

    async def records(one: House) -> None:
        event = Event(kind="outcome", at=utc_now(), call="c_earlier", fields={"outcome": "done", "milliseconds": 1})
        await _in_parallel(100_000 // share, lambda _: one.running.installation.store.append(event))

    return [
        await _compared(directory / "tools", f"{1000 // share} tools instead of 1", _nothing, tools=1000 // share),
        await _compared(directory / "agents", f"{10_000 // share} agents instead of 1", agents),
        await _compared(directory / "records", f"{100_000 // share} audit records more", records),
    ]


async def _compared(directory: Path, what: str, grow: Callable[[House], Awaitable[None]], *, tools: int = 1) -> Grown:
    async with AsyncExitStack() as stack:
        few = await stack.enter_async_context(_answered(directory / "few", 1))
        many = await stack.enter_async_context(_answered(directory / "many", tools))
        await grow(many)
        taken: dict[str, list[float]] = {"few": [], "many": []}
        for number in range(_ROUNDS + 1):
            for name, one in (("few", few), ("many", many)):
                if number:  # the first round warms up
                    taken[name].append(await _cpu(one))
                else:
                    await _cpu(one)
        return Grown(what=what, few=statistics.median(taken["few"]), many=statistics.median(taken["many"]))


@asynccontextmanager
async def _answered(directory: Path, tools: int) -> AsyncIterator[House]:
    with started("-m", "bench.tool_server", TOOLS=str(tools)) as server:
        async with house(directory, f"http://127.0.0.1:{server.port}/mcp") as one:
            one.running.parts.downstreams[SERVER] = Answering()  # type: ignore[index]
            yield one


async def _cpu(one: House, calls: int = 480) -> float:
    began = time.process_time()
    await _in_parallel(calls, lambda _: one.call())
    return (time.process_time() - began) / calls * 1e6


async def _in_parallel(count: int, job: Callable[[int], Awaitable[Any]]) -> None:
    left = iter(range(count))

    async def work() -> None:
        for number in left:
            await job(number)

    async with anyio.create_task_group() as group:
        for _ in range(_TOGETHER):
            group.start_soon(work)


async def _agent(one: House, number: int) -> None:
    await Agents(one.running.installation.store, utc_now).add(
        f"agent-{number}",
        owner="alice",
        key=PrivateKey.generate().public,
        ceiling=parse_scopes("book:read"),
        by=OPERATOR,
    )


async def _nothing(_: House) -> None:
    return
