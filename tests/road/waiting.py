"""A call that waits: a stock client in the middle of one, and what a test does meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import anyio
from mcp import Client

from mcp_authz.model import HeldCall, HoldState
from tests.world import Called, World

DEPLOY = {"owner": "acme", "repo": "api", "environment": "staging", "version": "1.4.0"}
TOOL = "acme__deploy"
SOON = 20.0  # seconds; every wait is bounded by it


class Call:
    """One call on its way; `waits` is set once its client has been told that it waits."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.progress: list[float] = []
        self.answer: Called | None = None
        self._rounds = [anyio.Event() for _ in range(3)]
        self._answered = anyio.Event()

    async def hear(self, progress: float, total: float | None, message: str | None) -> None:
        """The client's progress callback."""
        self.progress.append(progress)
        self.heard.append(message or "")
        self._rounds[len(self.heard) - 1].set()

    async def waits(self, rounds: int = 1) -> None:
        """The gateway has said so often that the call waits."""
        with anyio.fail_after(SOON):
            await self._rounds[rounds - 1].wait()

    def done(self, answer: Called) -> None:
        """The call was answered."""
        self.answer = answer
        self._answered.set()

    async def result(self) -> Called:
        """What the call came to."""
        with anyio.fail_after(SOON):
            await self._answered.wait()
        assert self.answer is not None
        return self.answer


@asynccontextmanager
async def waiting(client: Client, tool: str = TOOL, arguments: Mapping[str, Any] = DEPLOY) -> AsyncIterator[Call]:
    """A call that its client was told to wait for; its client gives it up at the end if it was not answered."""
    call = Call()

    async def make() -> None:
        result = await client.call_tool(tool, dict(arguments), progress_callback=call.hear)
        call.done(Called(result.model_dump(by_alias=True, mode="json", exclude_none=True)))

    async with anyio.create_task_group() as group:
        group.start_soon(make)
        await call.waits()
        yield call
        group.cancel_scope.cancel()


async def pending(w: World) -> HeldCall:
    """The one call that is held."""
    (held,) = await w.store.holds(states=(HoldState.PENDING,))
    found: HeldCall = held
    return found


async def approve_next(w: World, by: str) -> None:
    """The next call that is held is approved as soon as it is."""
    seen = 0
    with anyio.fail_after(SOON):
        while not await w.store.holds(states=(HoldState.PENDING,)):
            seen = await w.store.changed(seen)
    await w.answer((await pending(w)).id, by=by)


async def nobody_waits(w: World) -> None:
    """The gateway has noticed that whoever waited has gone away."""
    with anyio.fail_after(SOON):
        while w.running.parts.waits.count:  # noqa: ASYNC110 - the network tells it, and nobody here
            await anyio.sleep(0.002)
