"""The log of a store, or of a copy of one, as it lies on the disk: read only, without a key, nothing believed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from mcp_authz.errors import StoreError
from mcp_authz.rules.log import Stored
from mcp_authz.store.faults import store_error
from mcp_authz.store.rows import Row


def stored_records(path: Path, *, after: int = 0, limit: int = 1000) -> tuple[Stored, ...]:
    """Return the rows of the log after `after`, oldest first, for `rules.log.first_break`.

    Raises:
        StoreError: `path` is no store, or cannot be read.
    """
    rows = _ask(path, "SELECT sequence, body, hash FROM log WHERE sequence > ? ORDER BY sequence LIMIT ?", after, limit)
    return tuple(Stored(sequence=sequence, body=bytes(body), hash=bytes(hash_)) for sequence, body, hash_ in rows)


def stored_head(path: Path) -> tuple[int, bytes]:
    """Return where the log says that it ends: a sequence number and a hash.

    Raises:
        StoreError: `path` is no store, or cannot be read.
    """
    rows = _ask(path, "SELECT sequence, hash FROM log_head")
    if len(rows) != 1:
        raise StoreError(f"store `{path}`: the log has no head")
    sequence, hash_ = rows[0]
    return sequence, hash_


def _ask(path: Path, sql: str, *values: int) -> list[Row]:
    try:
        with closing(_open(path)) as db:
            return db.execute(sql, values).fetchall()
    except (sqlite3.Error, OSError) as fault:
        raise store_error(fault, path) from fault


def _open(path: Path) -> sqlite3.Connection:
    uri = f"{path.resolve(strict=True).as_uri()}?mode=ro"
    db = sqlite3.connect(uri, uri=True)
    try:
        db.execute("SELECT count(*) FROM sqlite_schema")
    except sqlite3.OperationalError:
        db.close()
        # A copy in a directory that cannot be written has no place for SQLite's shared memory. Without a write-ahead
        # log beside it the file is the whole truth; with one, leaving it out would cut the tail unnoticed.
        if path.with_name(path.name + "-wal").exists():
            raise
        db = sqlite3.connect(uri + "&immutable=1", uri=True)
    return db
