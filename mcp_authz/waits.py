"""Wakes whoever waits for a held call as soon as it moves: one look at the store for all who wait in this process."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final

import anyio

from mcp_authz import limits
from mcp_authz.errors import StoreError
from mcp_authz.model import HeldCall, HoldId
from mcp_authz.store.ports import Store

log = logging.getLogger(__name__)

_PAUSE: Final = limits.WAIT_PAUSE.total_seconds()
_TROUBLE: Final = 0.25  # seconds between two looks at a store that cannot be read


class Waits:
    """Requests that wait for holds. Nobody who waits asks the store until the hold moved, or their time is up."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[HoldId, set[anyio.Event]] = defaultdict(set)
        self._count = 0
        self._somebody = anyio.Event()

    def has_room(self, hold: HoldId) -> bool:
        """Whether one more request may wait for this hold."""
        of_this = len(self._waiting[hold]) if hold in self._waiting else 0
        return of_this < limits.WAITING_PER_HOLD and self._count < limits.WAITING

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
        while True:
            if not self._count:
                self._somebody = anyio.Event()
                await self._somebody.wait()
            try:
                changed = await self._store.changed(changed)
                seen, moved = await self._store.moved_holds(seen)
            except StoreError as error:
                log.error("held calls cannot be watched, the store cannot be read: %s", error)
                moved = tuple(self._waiting)  # each reads for itself, and says what it finds
                await anyio.sleep(_TROUBLE)
            for hold in moved:
                for event in self._waiting.get(hold, ()):
                    event.set()
            await anyio.sleep(_PAUSE)

    @contextmanager
    def _told(self, hold: HoldId) -> Iterator[anyio.Event]:
        """An event that is set when the hold moves."""
        event = anyio.Event()
        self._waiting[hold].add(event)
        self._count += 1
        self._somebody.set()
        try:
            yield event
        finally:
            self._count -= 1
            self._waiting[hold].discard(event)
            if not self._waiting[hold]:
                del self._waiting[hold]


def _same(one: HeldCall, other: HeldCall) -> bool:
    return (one.state, len(one.verdicts)) == (other.state, len(other.verdicts))
