"""One call as far as somebody may read it, found in bounded time, whatever they name and however long the log is."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from mcp_authz import limits
from mcp_authz.audit_excerpts import holds_of, ids_named
from mcp_authz.audit_reading import look_back
from mcp_authz.errors import InputError, NotFound
from mcp_authz.rules.audit_filter import Filter
from mcp_authz.store.ports import Record, Store
from mcp_authz.taken_away import taken_away

_MOST: Final = 1000  # records of one call; a caller can make the same call again and again
_HOLDS: Final = 3  # that one call is looked for by: each is looked for in a stretch of the log


async def call_as_read(store: Store, call: str, readable: Filter) -> tuple[Record, ...]:
    """Return the records of the one call or hold that is named, oldest first, if one of them is readable.

    Enough of the id names it, among those that are readable. A held call is made again with an id of its own: what
    became of it is told by the hold that both belong to. What is not readable reads as what is not there. What was
    taken away while it ran is among them, if that ended it and is readable.

    Raises:
        NotFound: nothing that is readable is of such a call.
        InputError: several begin like this.
    """
    mine = await _mine(store, call, readable)
    if not mine:
        raise NotFound(f"no record that you may read is of a call or hold `{call}`")
    found = {record.sequence: record for record in mine}
    for hold in sorted(holds_of(mine))[:_HOLDS]:
        near = min(found) + limits.RECORDS_LOOKED_AT // 2
        about = Filter(text=hold)
        of = await look_back(store, about, _MOST, before=near, at_most=limits.RECORDS_LOOKED_AT)
        found |= {record.sequence: record for record in of.records if hold in holds_of([record])}
    for again in sorted({record.event.call for record in found.values() if record.event.call is not None}):
        found |= {record.sequence: record for record in await store.records(call=again, limit=_MOST)}
    found |= {record.sequence: record for record in await taken_away(store, found.values(), readable)}
    return tuple(found[sequence] for sequence in sorted(found))


async def _mine(store: Store, call: str, readable: Filter) -> list[Record]:
    """The readable records that are of the named call or hold itself."""
    whole = [record for record in await store.records(call=call, limit=_MOST) if readable.has(record.event)]
    if whole:
        return whole
    begins = replace(readable, call=call)
    found = (await look_back(store, begins, _MOST, at_most=limits.RECORDS_LOOKED_AT)).records
    if len(named := ids_named(found, call)) > 1 and call not in named:
        raise InputError(f"more than one call or hold begins with `{call}`; give more of its id")
    return found
