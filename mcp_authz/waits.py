"""Wakes whoever waits for a held call as soon as it moves: one look at the store for all who wait in this process."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import timedelta
from typing import Final

import anyio

from mcp_authz import limits
from mcp_authz.errors import StoreError
from mcp_authz.model import HeldCall, HoldId, HoldState
from mcp_authz.seldom import trouble
from mcp_authz.store.ports import Store

UNSETTLED: Final = frozenset({HoldState.PENDING, HoldState.CLAIMED})
"""While a hold is in one of these, whoever waits for it goes on waiting: for the verdict, or for the end of its run."""

_PAUSE: Final = limits.WAIT_PAUSE.total_seconds()
_NEWEST: Final = 2**62  # a number that no move has
_TROUBLE: Final = 0.25  # seconds between two looks at a store that cannot be read


class Waits:
    """Requests that wait for holds. Nobody who waits asks the store until the hold moved, or their time is up."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[HoldId, set[anyio.Event]] = defaultdict(set)
        self._places: Counter[HoldId] = Counter()
        self._somebody = anyio.Event()
        self._leaving = False

    @property
    def count(self) -> int:
        """How many requests wait now."""
        return self._places.total()

    @property
    def is_leaving(self) -> bool:
        """Whether the gateway was told to stop."""
        return self._leaving

    @contextmanager
    def place(self, hold: HoldId) -> Iterator[bool]:
        """Whether there was a place for one more request that waits for this hold; it is taken until the end."""
        free = self._places[hold] < limits.WAITING_PER_HOLD and self.count < limits.WAITING
        self._places[hold] += free
        try:
            yield free
        finally:
            self._places[hold] -= free
            if not self._places[hold]:
                del self._places[hold]

    async def until_settled(
        self, held: HeldCall, longest: timedelta, say: Callable[[HeldCall, float], Awaitable[None]]
    ) -> HeldCall:
        """Return the hold as soon as it has settled, or as it is after `longest`.

        `say` is told at once, and now and then, that it is still waited for, and for how many seconds by now; a client
        that does not read what it says keeps nobody here for longer.

        Raises:
            StoreError: the store cannot be read.
        """
        start, end, now = anyio.current_time(), longest.total_seconds(), held
        while now.state in UNSETTLED and not self._leaving and anyio.current_time() - start < end:
            with self._told(held.id) as moved:
                fresh = await self._store.hold(held.id) or held  # what moved before it was watched is not missed
                if _same(fresh, now):
                    while not moved.is_set() and (waited := anyio.current_time() - start) < end:
                        with anyio.move_on_after(end - waited):
                            await say(now, waited)
                        with anyio.move_on_after(min(end - waited, limits.WAIT_PROGRESS.total_seconds())):
                            await moved.wait()
            now = await self._store.hold(held.id) or held
        return now

    def leave(self) -> None:
        """Nobody waits any longer: each is answered as when the time is up, and can come back to another process."""
        self._leaving = True
        for events in self._waiting.values():
            for event in events:
                event.set()

    async def until_moved(self, held: HeldCall, longest: timedelta) -> HeldCall:
        """Return the hold as it is now, once it is another than `held`, or after `longest`.

        Raises:
            StoreError: the store cannot be read.
        """
        with self._told(held.id) as moved:
            now = await self._store.hold(held.id) or held  # what moved before it was waited for is not missed
            if not _same(now, held):
                return now
            with anyio.move_on_after(longest.total_seconds()):
                await moved.wait()
        return await self._store.hold(held.id) or held

    async def run(self) -> None:
        """Whoever waits is woken when their hold moved; without end."""
        seen = changed = 0
        with suppress(StoreError):
            seen, _ = await self._store.moved_holds(_NEWEST)  # nobody waits yet: what moved until now is no news
        while True:
            if not self._waiting:
                self._somebody = anyio.Event()
                await self._somebody.wait()
            try:
                changed = await self._store.changed(changed)
                seen, moved = await self._store.moved_holds(seen)
            except StoreError as error:
                trouble.error(error, "held calls cannot be watched, the store cannot be read: %s", error)
                moved = tuple(self._waiting)  # each reads for itself, and says what it finds
                await anyio.sleep(_TROUBLE)
            for hold in moved:
                for event in self._waiting.get(hold, ()):
                    event.set()
            await anyio.sleep(_PAUSE)

    def watched(self, hold: HoldId) -> AbstractContextManager[anyio.Event]:
        """An event that is set when the hold moves, or a task of it, for whoever looks at more than the hold."""
        return self._told(hold)

    @contextmanager
    def _told(self, hold: HoldId) -> Iterator[anyio.Event]:
        """An event that is set when the hold moves."""
        event = anyio.Event()
        self._waiting[hold].add(event)
        self._somebody.set()
        try:
            yield event
        finally:
            self._waiting[hold].discard(event)
            if not self._waiting[hold]:
                del self._waiting[hold]


def _same(one: HeldCall, other: HeldCall) -> bool:
    return (one.state, len(one.verdicts)) == (other.state, len(other.verdicts))
