"""The part of the SQLite store that is about evidence and its end."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path
from typing import Final

from mcp_authz.store import evidence, shredding
from mcp_authz.store.connections import Reader
from mcp_authz.store.evidence_port import Before, OfCalls, Shredded
from mcp_authz.store.ports import Event
from mcp_authz.store.writer import Writer

_PATIENCE: Final = 0.5  # seconds; the write-ahead log can be emptied another time


class EvidenceInSqlite:
    """The promises of `store.evidence_port`; reads and writes go where the store's others go."""

    _reader: Reader
    _writer: Writer
    _evidence_kept: timedelta

    async def signed(self, names: Sequence[str]) -> tuple[str | None, ...]:
        return self._reader.ask(lambda tx: tuple(evidence.signed(tx, name) for name in names))

    async def would_shred(self, what: OfCalls | Before) -> Shredded:
        try:
            await self._writer.run(lambda tx: shredding.rehearse(tx, what))
        except shredding.Rehearsed as rehearsed:
            return rehearsed.shredded
        raise AssertionError("a rehearsal always tells what it found")

    async def shred(self, what: OfCalls | Before, event: Event | None) -> Shredded:
        gone = await self._writer.run(lambda tx: shredding.shred(tx, what, event))
        if not gone.is_nothing:
            await asyncio.to_thread(_empty_wal, self._reader.path)
        return gone

    async def shred_due(self) -> bool:
        more = await self._writer.run(lambda tx: shredding.shred_due(tx, self._evidence_kept))
        if not more:
            await asyncio.to_thread(_empty_wal, self._reader.path)
        return more


def _empty_wal(path: Path) -> None:
    """What was overwritten is not in the write-ahead log either; where somebody reads just now, it is for a while."""
    with (
        suppress(sqlite3.Error),
        closing(sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=_PATIENCE)) as db,
    ):
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
