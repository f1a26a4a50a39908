"""Everything that the log has about one call, and an excerpt of it that shows this without the rest of the log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import anyio.lowlevel
import anyio.to_thread

from mcp_authz.audit_reading import newest
from mcp_authz.errors import InputError, NotFound
from mcp_authz.rules import jose
from mcp_authz.rules.audit_filter import Filter
from mcp_authz.rules.checkpoint import checkpoint_digest
from mcp_authz.rules.excerpt import entry, excerpt
from mcp_authz.rules.log import record_bytes
from mcp_authz.store.ports import Record, Store
from mcp_authz.taken_away import taken_away

_MOST: Final = 1000  # records of one call; a caller can make the same call again and again


async def records_of(store: Store, call: str) -> tuple[Record, ...]:
    """Return every record of this call, or of all calls of this hold, oldest first; enough of the id names it.

    A held call is made again with an id of its own: what became of it is told by the hold that both belong to. What
    was taken away while it ran is among them, if that ended it.

    Raises:
        NotFound: no record is of such a call.
        InputError: several begin like this; what is done with one must not be done with all of them.
    """
    found = {record.sequence: record for record in await newest(store, Filter(call=call), _MOST)}
    if not found:
        base = (await store.log_base()).sequence
        pruned = f", or it is among the first {base}, which were pruned: look into the archive" if base else ""
        raise NotFound(f"no record is of a call or hold `{call}`; `mcp-authz audit list` has their ids{pruned}")
    if len(named := ids_named(found.values(), call)) > 1 and call not in named:
        raise InputError(f"more than one call or hold begins with `{call}`; give more of its id")
    for hold in holds_of(found.values()):
        said = await newest(store, Filter(text=hold), _MOST)
        # A caller can write the id of a hold into another call.
        of = [record for record in said if record.event.kind != "decision" or hold in holds_of([record])]
        found |= {record.sequence: record for record in of}
    for again in {record.event.call for record in found.values() if record.event.kind == "decision"}:
        if again is not None:
            found |= {record.sequence: record for record in await store.records(call=again, limit=_MOST)}
    found |= {record.sequence: record for record in await taken_away(store, found.values(), Filter())}
    return tuple(found[sequence] for sequence in sorted(found))


async def excerpt_of(
    store: Store, records: Iterable[Record], *, gateway: str, evidence: Mapping[str, Any]
) -> dict[str, Any]:
    """Return an excerpt of the log with these records, and this evidence beside them (`rules.excerpt`)."""
    made = await _checkpoints(store)
    covered: dict[str, list[Mapping[str, Any]]] = {}
    uncovered: list[bytes] = []
    of, hashes = "", tuple[bytes, ...]()
    for record in records:
        one = next((one for one in made if record.sequence <= one["sequence"]), None)
        if one is None:
            uncovered.append(_bytes(record))
            continue
        if of != one["text"]:
            of, hashes = one["text"], await store.record_hashes(after=one["after"], until=one["sequence"])
        # A tree over very many records takes a while, in which others are served.
        shown = await anyio.to_thread.run_sync(_entry, record, one["after"], hashes)
        covered.setdefault(str(one["text"]), []).append(shown)
    issuers = [str(jose.read(text).claims["iss"]) for text in covered]  # the URL that it had then
    return excerpt(covered, uncovered, gateway=(issuers or [gateway])[-1], evidence=evidence)


async def _checkpoints(store: Store) -> list[dict[str, Any]]:
    """The checkpoints that the log has, oldest first, each with the record behind which its tree begins."""
    made: list[dict[str, Any]] = []
    after = before = 0
    while records := await store.records(after=after, kind="checkpoint"):
        for record in records:
            after, said = record.sequence, record.event.fields
            if "text" in said and checkpoint_digest(str(said["text"])).hex() == said.get("digest"):
                made.append({"text": said["text"], "sequence": int(said["sequence"]), "after": before})
                before = int(said["sequence"])
        await anyio.lowlevel.checkpoint()
    return made


def _entry(record: Record, after: int, hashes: tuple[bytes, ...]) -> dict[str, Any]:
    return entry(_bytes(record), sequence=record.sequence, after=after, hashes=hashes)


def holds_of(records: Iterable[Record]) -> set[str]:
    """Return the ids of the holds that the records are of."""
    holds = set()
    for record in records:
        approval = record.event.fields.get("approval")
        named = (record.event.fields.get("hold"), approval.get("hold") if isinstance(approval, dict) else None)
        holds |= {str(hold) for hold in named if hold is not None}
    return holds


def _bytes(record: Record) -> bytes:
    event = record.event
    return record_bytes(
        sequence=record.sequence,
        previous=record.previous,
        kind=event.kind,
        at=event.at,
        call=event.call,
        fields=event.fields,
    )


def ids_named(records: Iterable[Record], call: str) -> set[str]:
    """Return the ids of calls and holds among these records that begin like this."""
    ids = {of for record in records for of in (record.event.call, record.event.fields.get("hold"))}
    return {of for of in ids if isinstance(of, str) and of.startswith(call)}
