"""What is under way, calls and streams: each ends as soon as what its caller stands on is revoked, by any process.

One rule decides whether a caller still stands, the same that lets a request in: steps 5 and 6 of the road. What only
runs out while a call runs, such as its session's time, ends no call: nobody took it away.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

import anyio
import anyio.lowlevel

from mcp_authz import limits
from mcp_authz.errors import StoreError, TokenRefused
from mcp_authz.model import Tool
from mcp_authz.principals import AccessToken, Caller, Proof
from mcp_authz.store.ports import Clock, Store

log = logging.getLogger(__name__)

_PAUSE: Final = limits.WAIT_PAUSE.total_seconds()
_TROUBLE: Final = 0.25  # seconds between two looks at a store that cannot be read


class Identify(Protocol):
    """`Sessions.identify`."""

    async def __call__(self, token: AccessToken, proof: Proof, *, at: datetime | None = None) -> Caller: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """Something that runs; a stream calls no tool."""

    caller: Caller
    tool: Tool | None
    since: datetime


class Underway:
    """What runs for whom, in this process. Nothing is looked up while nothing is revoked."""

    def __init__(self, store: Store, identify: Identify, clock: Clock) -> None:
        self._store = store
        self._identify = identify
        self._clock = clock
        self._running: dict[anyio.CancelScope, _Run] = {}
        self._somebody = anyio.Event()
        self._fell = anyio.Event()
        self._seen: int | None = None

    @property
    def count(self) -> int:
        """How many calls and streams run now."""
        return len(self._running)

    @contextmanager
    def while_standing(self, caller: Caller, tool: Tool | None = None) -> Iterator[anyio.CancelScope]:
        """The body is cancelled, and `cancel_called` of what it is given, once the caller's authority is revoked.

        A call begins before its decision is on disk: what is revoked later than that is seen, whenever it happens.
        """
        with anyio.CancelScope() as scope:
            self._running[scope] = _Run(caller=caller, tool=tool, since=self._clock())
            self._somebody.set()
            try:
                yield scope
            finally:
                del self._running[scope]

    async def run(self, tell: Callable[[], Awaitable[None]]) -> None:
        """Whatever loses its authority ends, and after revocations `tell` is called, now and then; without end."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._keep_telling, tell)
            await self._watch()

    async def _watch(self) -> None:
        changed = 0
        with suppress(StoreError):
            self._seen = await self._newest()  # nothing runs yet: what was revoked until now is no news
        while True:
            if not self._running:
                self._somebody = anyio.Event()
                await self._somebody.wait()
            try:
                changed = await self._store.changed(changed)
                newest = await self._newest()
                if newest != self._seen:
                    await self._end_what_fell()
                    self._seen = newest
                    self._fell.set()
            except StoreError as error:
                log.error("what runs cannot be watched, the store cannot be read: %s", error)
                changed = 0  # what could not be looked at is looked at again, whether anything is written or not
                await anyio.sleep(_TROUBLE)
            await anyio.sleep(_PAUSE)

    async def _keep_telling(self, tell: Callable[[], Awaitable[None]]) -> None:
        """Many revocations at once are told of once, and whoever is slow to hear of them keeps nothing running."""
        while True:
            await self._fell.wait()
            self._fell = anyio.Event()
            with anyio.move_on_after(limits.NOTICE_TIMEOUT.total_seconds()):
                await tell()
            await anyio.sleep(limits.LISTING_PAUSE.total_seconds())

    async def _newest(self) -> int:
        last = await self._store.last_of("revocation")
        return 0 if last is None else last.sequence

    async def _end_what_fell(self) -> None:
        stands: dict[tuple[str, Proof], bool] = {}
        off = await self._store.switched_off()
        for scope, run in list(self._running.items()):
            presented = (run.caller.token.id, run.caller.proof)
            if presented not in stands:
                stands[presented] = await self._stands(run)
                await anyio.lowlevel.checkpoint()  # however much runs, requests are answered in between
            is_off = run.tool is not None and any(it.is_for(run.tool.server, run.tool.tool) for it in off)
            if (is_off or not stands[presented]) and scope in self._running:
                log.info("what %s had under way has ended: it was revoked, or switched off", run.caller.agent.name)
                scope.cancel()

    async def _stands(self, run: _Run) -> bool:
        try:
            now = await self._identify(run.caller.token, run.caller.proof, at=run.since)
        except TokenRefused:
            return False
        return now.session is not None or run.caller.session is None
