"""The newest records that are asked for, read backwards a stretch at a time, so that others are served meanwhile."""

from __future__ import annotations

from typing import Final

import anyio.lowlevel

from mcp_authz.rules.audit_filter import Filter
from mcp_authz.store.ports import Log, Record

STRETCH: Final = 5000  # records; a few milliseconds, in which nobody else is served


async def newest(log: Log, wanted: Filter, limit: int) -> list[Record]:
    """The newest records that are wanted, oldest first; none that came while it was read."""
    found: list[Record] = []
    head, _ = await log.head()
    before = head + 1
    while before > 1 and len(found) < limit:
        after = max(0, before - 1 - STRETCH)
        found[:0] = await log.search(wanted, after=after, before=before, limit=limit - len(found))
        before = after + 1
        await anyio.lowlevel.checkpoint()
    return found
