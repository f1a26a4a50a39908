"""One transaction as its jobs see it: a connection, the transaction's own time, and what opens sealed columns."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from mcp_authz.errors import SignatureRefused, StoreError
from mcp_authz.rules.keys import Sealer
from mcp_authz.rules.record_redaction import DEFAULT, RecordRedaction

_DEFAULT: Final = RecordRedaction(DEFAULT)


@dataclass(slots=True)
class LogEnd:
    """Where the log ends, once a write transaction has looked; nobody else appends while it lasts."""

    known: tuple[int, bytes] | None = None  # sequence and hash of the last record


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """What a read or a write is given; nothing in it outlives the transaction."""

    db: sqlite3.Connection
    at: datetime  # when the transaction began; what is compared with every expiry
    now: int  # the same in microseconds since 1970, as the columns have it
    sealer: Sealer
    instance: str  # the open store that runs it; a claimed hold remembers its own
    redact: RecordRedaction = _DEFAULT  # takes out what no record may have
    log_end: LogEnd = field(default_factory=LogEnd)  # of a write transaction; forgotten with what is undone

    def unseal(self, sealed: bytes, context: bytes) -> bytes:
        """Return what was sealed for this context.

        Raises:
            StoreError: with another key, or for another place; the store is of no use with the key at hand.
        """
        try:
            return self.sealer.unseal(sealed, context)
        except SignatureRefused:
            where = context.decode()
            raise StoreError(
                f"`{where}` of the store does not open: it was altered, or this is not the key the store was made with"
            ) from None


def known_secret(tx: Transaction, name: str) -> bytes | None:
    """The named secret, or None when there is none yet."""
    row = tx.db.execute("SELECT value FROM secrets WHERE name = ?", (name,)).fetchone()
    return None if row is None else tx.unseal(row[0], _context(name))


def secret(tx: Transaction, name: str, make: Callable[[], bytes]) -> bytes:
    """The named secret; made and stored when there is none yet, so that every process has the same."""
    known = known_secret(tx, name)
    if known is not None:
        return known
    value = make()
    sealed = tx.sealer.seal(value, _context(name))
    tx.db.execute("INSERT INTO secrets (name, value) VALUES (?, ?)", (name, sealed))
    return value


def _context(name: str) -> bytes:
    return f"secrets:{name}:value".encode()
