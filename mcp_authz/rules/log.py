"""The hash chain of the audit log: what a record's hash is, and whether a run of records hangs together."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from mcp_authz.rules.canonical import canonical

GENESIS: Final = bytes(32)
"""What the first record names as its predecessor."""

_PLACE: Final = re.compile(rb'"prev":"([0-9a-f]{64})","seq":([1-9][0-9]{0,15})\}\Z')


def timestamp(at: datetime) -> str:
    """The one spelling of a time in records: RFC 3339, UTC, microseconds, `Z`."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def record_bytes(
    *, sequence: int, previous: bytes, kind: str, at: datetime, call: str | None, fields: Mapping[str, Any]
) -> bytes:
    """The RFC 8785 form of one record without its own hash; it is what the store keeps and what is hashed."""
    return canonical(
        {
            "seq": sequence,
            "prev": previous.hex(),
            "kind": kind,
            "at": timestamp(at),
            "call": call,
            "fields": fields,
        }
    )


def record_hash(body: bytes) -> bytes:
    """SHA-256 over the record's canonical bytes, 32 bytes."""
    return hashlib.sha256(body).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """One row as the store holds it, before anything about it is believed."""

    sequence: int
    body: bytes
    hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """Where and why a run of records does not hang together."""

    sequence: int
    why: str


def first_break(
    rows: Iterable[Stored], *, head: tuple[int, bytes] | None, start: tuple[int, bytes] = (0, GENESIS)
) -> Break | None:
    """Return the first place where the chain is broken, or None when every record follows from the one before.

    `start` is the position and hash that the first row must follow; `head` is where the chain is said to end, so that a
    cut tail is found.
    """
    sequence, previous = start
    for row in rows:
        expected = sequence + 1
        if row.sequence != expected:
            return Break(sequence=expected, why=f"record {expected} is missing; {row.sequence} stands in its place")
        if record_hash(row.body) != row.hash:
            return Break(sequence=expected, why=f"record {expected} was altered: its hash does not fit its content")
        # RFC 8785 sorts the members, so a record ends with its two of these: none of its fields can stand in for them.
        if not row.body.endswith(f'"prev":"{previous.hex()}","seq":{expected}}}'.encode()):
            return Break(sequence=expected, why=f"record {expected} does not follow record {sequence}")
        sequence, previous = row.sequence, row.hash
    if head is not None and (sequence, previous) != head:
        return Break(sequence=sequence + 1, why=f"the log ends at record {sequence}, but its head says {head[0]}")
    return None


def place_of(body: bytes) -> tuple[int, bytes] | None:
    """Return the number that a record gives itself and the hash that it names before it; None where it is no record."""
    found = _PLACE.search(body)
    return None if found is None else (int(found[2]), bytes.fromhex(found[1].decode()))
