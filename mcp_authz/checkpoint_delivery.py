"""Checkpoints brought to the places that keep them, in order and without a gap, however long a place is away.

The log has every checkpoint, so that what a place lacks is read from there: nothing piles up in memory, and a gateway
that starts again goes on where it was. A place that gets one twice, one after the other, has it once.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Final, Protocol

from mcp_authz.errors import AuthzError
from mcp_authz.store.ports import Record, Store

log = logging.getLogger(__name__)

_AT_ONCE: Final = 100  # checkpoints that a place is brought in one go


class Sink(Protocol):
    """A place outside the store where checkpoints are kept."""

    @property
    def name(self) -> str:
        """What it is called in records and errors."""

    async def keep(self, text: str) -> None:
        """The checkpoint is there, durably.

        Raises:
            AuthzError: it is not; the message says why.
        """


class Delivery:
    """Knows which place lacks what: for each, the number of the record of the first checkpoint that it has not."""

    def __init__(self, store: Store, sinks: Sequence[Sink]) -> None:
        self._store = store
        self._sinks = tuple(sinks)
        self._behind: dict[str, int] | None = None
        self._failing: frozenset[str] = frozenset()

    @property
    def behind(self) -> Mapping[str, int]:
        """What each place lacks that lacks anything."""
        return dict(self._behind or {})

    async def begin(self, last: Record | None) -> None:
        """It is known what is lacking; `last` is the newest record of a checkpoint.

        Nobody can tell whether the last one was brought anywhere before a gateway was killed: it is brought anew.
        """
        if self._behind is not None:
            return
        said = {} if last is None else last.event.fields.get("behind", {})
        found = {sink.name: int(said[sink.name]) for sink in self._sinks if sink.name in said}
        newest = 0 if last is None else int(last.event.fields.get("record", last.sequence))
        self._behind = {sink.name: found.get(sink.name, newest) for sink in self._sinks} if newest else {}

    def add(self, sequence: int) -> None:
        """Every place lacks the checkpoint in this record."""
        for sink in self._sinks:
            self._lacking.setdefault(sink.name, sequence)

    async def deliver(self, failed: Mapping[str, str] | None = None) -> Mapping[str, str]:
        """Every place has what it lacked, but for those that are returned with the reason why not.

        Those in `failed` are not tried, and returned too.
        """
        failed = dict(failed or {})
        for sink in self._sinks:
            if sink.name in failed or (since := self._lacking.get(sink.name)) is None:
                continue
            try:
                await self._bring(sink, since)
            except AuthzError as error:
                failed[sink.name] = str(error)
                if sink.name not in self._failing:  # once, until it works again
                    log.error("checkpoints cannot be left in %s, which is tried again: %s", sink.name, error)
        self._failing = frozenset(failed)
        return failed

    @property
    def _lacking(self) -> dict[str, int]:
        if self._behind is None:
            raise AssertionError("begin() was not awaited")
        return self._behind

    async def _bring(self, sink: Sink, since: int) -> None:
        for record in await self._store.records(after=since - 1, kind="checkpoint", limit=_AT_ONCE):
            self._lacking[sink.name] = record.sequence
            if "text" in record.event.fields:
                await sink.keep(str(record.event.fields["text"]))
            since = record.sequence + 1
        if await self._store.records(after=since - 1, kind="checkpoint", limit=1):
            self._lacking[sink.name] = since
        else:
            del self._lacking[sink.name]
