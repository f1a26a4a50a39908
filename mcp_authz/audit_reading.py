"""The newest records that are asked for, read backwards a stretch at a time, so that others are served meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import anyio.lowlevel

from mcp_authz.rules.audit_filter import Filter
from mcp_authz.store.ports import Log, Record

STRETCH: Final = 5000  # records; a few milliseconds, in which nobody else is served


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Records that are wanted, oldest first, from which number on every record was looked at, and which was newest."""

    records: list[Record]
    reached: int
    head: int


async def newest(log: Log, wanted: Filter, limit: int) -> list[Record]:
    """The newest records that are wanted, oldest first; none that came while it was read."""
    return (await look_back(log, wanted, limit)).records


async def look_back(
    log: Log, wanted: Filter, limit: int, *, before: int | None = None, after: int = 0, at_most: int | None = None
) -> Found:
    """The newest records between numbers `after` and `before` that are wanted; no more than `at_most` are looked at."""
    found: list[Record] = []
    head, _ = await log.head()
    reached = head + 1 if before is None else min(before, head + 1)
    end = max(after + 1, 1 if at_most is None else reached - at_most)
    while reached > end and len(found) < limit:
        behind = max(end - 1, reached - 1 - STRETCH)
        found[:0] = await log.search(wanted, after=behind, before=reached, limit=limit - len(found))
        reached = found[0].sequence if len(found) == limit else behind + 1
        await anyio.lowlevel.checkpoint()
    return Found(records=found, reached=reached, head=head)
