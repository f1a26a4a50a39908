"""The newest records that are asked for, or the oldest: read a stretch at a time, and others are served meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import anyio.lowlevel

from mcp_authz.rules.audit_filter import Filter
from mcp_authz.store.ports import Log, Record

STRETCH: Final = 5000  # records; a few milliseconds, in which nobody else is served
AHEAD: Final = 500  # records of a stretch, where most of them may be wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Records that are wanted, oldest first, from which number on every record was looked at, and which was newest."""

    records: list[Record]
    reached: int
    head: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """Records that are wanted, oldest first, up to which number every record was looked at, and the log's two ends."""

    records: list[Record]
    reached: int
    first: int  # the number of the oldest that is kept
    head: int
    hash: bytes  # of the newest


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


async def look_ahead(log: Log, wanted: Filter, limit: int, *, after: int, before: int | None, at_most: int) -> Ahead:
    """The oldest records between numbers `after` and `before` that are wanted; no more than `at_most` are looked at."""
    found: list[Record] = []
    head, hash_ = await log.head()
    base = (await log.log_base()).sequence
    reached = max(after, base)
    end = min(head if before is None else before - 1, head, reached + at_most)
    while reached < end and len(found) < limit:
        ahead, room = min(reached + AHEAD, end), limit - len(found)
        rows = await log.search(wanted, after=reached, before=ahead + 1, limit=AHEAD)
        found += rows[:room]
        reached = rows[room - 1].sequence if len(rows) > room else ahead
        await anyio.lowlevel.checkpoint()
    return Ahead(records=found, reached=reached, first=base + 1, head=head, hash=hash_)
