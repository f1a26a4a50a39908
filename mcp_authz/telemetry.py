"""Whoever wants to hear of each record hears of it, from the log itself: behind what happens, never in its way.

The log is the queue. What is read is what was committed, also by another process on the same store; nothing is kept
back in memory, nothing gets lost when whoever listens is slow, and a call does not wait for it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import anyio
import anyio.lowlevel

from mcp_authz.errors import StoreError
from mcp_authz.store.ports import Record

log = logging.getLogger(__name__)

PAGE: Final = 200  # records; about two milliseconds, in which nobody else is served
PAUSE: Final = 1.0  # seconds between two looks; what happened meanwhile is read at once


class Followed(Protocol):
    """What of a store is followed."""

    async def head(self) -> tuple[int, bytes]: ...
    async def records(self, *, after: int = 0, limit: int = 1000) -> tuple[Record, ...]: ...
    async def changed(self, since: int) -> int: ...


class Telemetry:
    """Reads the log as it grows, from where it ended when this began."""

    def __init__(self, store: Followed, listeners: Sequence[Callable[[Record], None]]) -> None:
        self._store = store
        self._listeners = listeners
        self._after: int | None = None
        self._turn = anyio.Lock()

    async def begin(self) -> None:
        """Whatever is appended from now on will be heard of."""
        if self._after is None:
            self._after, _ = await self._store.head()

    async def catch_up(self) -> None:
        """Everything that is in the log by now has been heard of.

        Raises:
            StoreError: it cannot be read.
        """
        await self.begin()
        async with self._turn:
            while page := await self._store.records(after=self._after or 0, limit=PAGE):
                for record in page:
                    self._hear(record)
                self._after = page[-1].sequence
                await anyio.lowlevel.checkpoint()

    async def run(self) -> None:
        """Listen, without end; a store that cannot be read for a while is read again later."""
        version = 0
        while True:
            try:
                version = await self._store.changed(version)
                await self.catch_up()
            except StoreError as error:
                log.warning("metrics and spans wait for the store: %s", error)
            await anyio.sleep(PAUSE)

    def _hear(self, record: Record) -> None:
        for listener in self._listeners:
            try:
                listener(record)
            except Exception:
                log.exception("record %s could not be counted", record.sequence)
