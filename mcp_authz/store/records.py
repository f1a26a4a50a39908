"""The log in a transaction: appending to the one hash chain of the database, and reading it."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from datetime import datetime
from itertools import islice

from mcp_authz.errors import StoreError
from mcp_authz.rules.audit_filter import Filter
from mcp_authz.rules.log import record_bytes, record_hash
from mcp_authz.store import evidence
from mcp_authz.store.inputs import keep
from mcp_authz.store.log_where import where
from mcp_authz.store.ports import Event, EventKind, Record
from mcp_authz.store.transaction import Transaction


def append(tx: Transaction, event: Event) -> Record:
    """The event is the next record; head and record are written together, so that all processes share one chain.

    What no record may have is taken out of it first, for it could never be taken out later (`RecordRedaction`).

    What it was decided upon (`inputs`), and what its caller signed (`evidence`), is kept beside it, and no part of it.

    Raises:
        InputError: the event's fields have no canonical form.
        StoreError: the head does not fit the records, so that nothing can follow.
    """
    event = _redacted(tx, event)
    sequence, previous = tx.log_end.known or head(tx)
    body = record_bytes(
        sequence=sequence + 1, previous=previous, kind=event.kind, at=event.at, call=event.call, fields=event.fields
    )
    hash_ = record_hash(body)
    try:
        tx.db.execute("INSERT INTO log (sequence, body, hash) VALUES (?, ?, ?)", (sequence + 1, body, hash_))
    except sqlite3.IntegrityError:
        raise StoreError("the log's head does not fit its records; run `mcp-authz audit verify`") from None
    tx.db.execute("UPDATE log_head SET sequence = ?, hash = ?", (sequence + 1, hash_))
    tx.log_end.known = (sequence + 1, hash_)
    keep(tx, sequence + 1, event)
    if event.signed is not None:
        evidence.keep(tx, "call-proof", event.signed)
    return Record(sequence=sequence + 1, event=event, previous=previous, hash=hash_)


def _redacted(tx: Transaction, event: Event) -> Event:
    fields = tx.redact(event.kind, event.fields)
    return event if fields is event.fields else replace(event, fields=fields)


def head(tx: Transaction) -> tuple[int, bytes]:
    """The sequence number and hash of the last record."""
    row = tx.db.execute("SELECT sequence, hash FROM log_head").fetchone()
    if row is None:
        raise StoreError("the log has no head; run `mcp-authz audit verify`")
    sequence, hash_ = row
    return sequence, hash_


def records(tx: Transaction, *, after: int, limit: int, call: str | None, kind: str | None) -> tuple[Record, ...]:
    """The records after `after`, oldest first, of one call or kind if one is given."""
    asked = {"call": call, "kind": kind}
    named = {column: value for column, value in asked.items() if value is not None}
    where = " AND ".join(["sequence > :after", *(f"{column} = :{column}" for column in named)])
    rows = tx.db.execute(
        f"SELECT sequence, body, hash FROM log WHERE {where} ORDER BY sequence LIMIT :limit",  # noqa: S608 - constants
        {"after": after, "limit": limit, **named},
    )
    return tuple(record(*row) for row in rows)


def hashes(tx: Transaction, *, after: int, until: int) -> tuple[bytes, ...]:
    """The hashes of the records behind `after`, up to `until`."""
    rows = tx.db.execute("SELECT hash FROM log WHERE sequence > ? AND sequence <= ? ORDER BY sequence", (after, until))
    return tuple(hash_ for (hash_,) in rows)


def last_of(tx: Transaction, kind: EventKind) -> Record | None:
    """The newest record of this kind."""
    row = tx.db.execute(
        "SELECT sequence, body, hash FROM log WHERE kind = ? ORDER BY sequence DESC LIMIT 1", (kind,)
    ).fetchone()
    return None if row is None else record(*row)


def search(tx: Transaction, wanted: Filter, *, after: int, before: int, limit: int) -> tuple[Record, ...]:
    """The newest records between `after` and `before`, both not among them, that are wanted; oldest first."""
    condition, values = where(wanted, after=after, before=before)
    rows = tx.db.execute(
        f"SELECT sequence, body, hash FROM log WHERE {condition} ORDER BY sequence DESC",  # noqa: S608 - constants
        values,
    )
    found = [*islice((it for it in (record(*row) for row in rows) if wanted.has(it.event)), limit)]
    rows.close()
    return tuple(reversed(found))


def record(sequence: int, body: bytes, hash_: bytes) -> Record:
    """One row of the log.

    Raises:
        StoreError: it was altered.
    """
    try:
        members = json.loads(body)
        event = Event(
            kind=members["kind"],
            at=datetime.fromisoformat(members["at"]),
            call=members["call"],
            fields=members["fields"],
        )
        return Record(sequence=sequence, event=event, previous=bytes.fromhex(members["prev"]), hash=hash_)
    except (ValueError, KeyError, TypeError):
        raise StoreError(f"record {sequence} of the log was altered; run `mcp-authz audit verify`") from None
