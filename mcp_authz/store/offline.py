"""The log of a store, or of a copy of one, as it lies on the disk: read only, without a key, nothing believed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

from mcp_authz.errors import StoreError
from mcp_authz.rules.audit_filter import Filter
from mcp_authz.rules.log import GENESIS, Stored
from mcp_authz.store.faults import store_error
from mcp_authz.store.log_where import where
from mcp_authz.store.retention_port import LogBase
from mcp_authz.store.rows import Row

_PAGE: Final = 5000  # records in memory at once


class LogFile:
    """The log of one file, which may be in use; every question is a short one, so that nobody waits for who reads."""

    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        self._path = path
        self._db = db

    def head(self) -> tuple[int, bytes]:
        """Where the log says that it ends: a sequence number and a hash."""
        rows = self._ask("SELECT sequence, hash FROM log_head")
        if len(rows) != 1:
            raise StoreError(f"store `{self._path}`: the log has no head")
        sequence, hash_ = rows[0]
        return sequence, hash_

    def base(self) -> LogBase:
        """Which record the log says that it follows; a store of an older version has everything."""
        if not self._ask("SELECT 1 FROM sqlite_schema WHERE name = 'log_base'"):
            return LogBase(sequence=0, hash=GENESIS, chain=bytes(32), told=0)
        rows = self._ask("SELECT sequence, hash, chain, told FROM log_base")
        if len(rows) != 1:
            raise StoreError(f"store `{self._path}`: the log has no base")
        sequence, hash_, chain, told = rows[0]
        return LogBase(sequence=sequence, hash=hash_, chain=chain, told=told)

    def first(self) -> int:
        """The number of the first row, also where it is no part of the log any more; 1 where there is none."""
        ((first,),) = self._ask("SELECT min(sequence) FROM log")
        return 1 if first is None else int(first)

    def pages(self, *, after: int, until: int, wanted: Filter | None = None) -> Iterator[tuple[int, list[Stored]]]:
        """Yield the rows up to `until`, oldest first, in pages, and up to where each page was looked for.

        With `wanted` those that may be wanted, by what `Filter.marks` and `words` say.
        """
        ((last,),) = self._ask("SELECT max(sequence) FROM log")
        until = min(until, last or 0)  # the head of a log that somebody wrote to may say anything
        while after < until:
            condition, values = where(wanted or Filter(), after=after, before=min(after + _PAGE, until) + 1)
            rows = self._ask(f"SELECT sequence, body, hash FROM log WHERE {condition} ORDER BY sequence", *values)  # noqa: S608 - constants
            after = min(after + _PAGE, until)
            yield after, [Stored(sequence=number, body=bytes(body), hash=bytes(hash_)) for number, body, hash_ in rows]

    def after(self, sequence: int, limit: int) -> tuple[Stored, ...]:
        """The rows after this one, oldest first."""
        asked = "SELECT sequence, body, hash FROM log WHERE sequence > ? ORDER BY sequence LIMIT ?"
        rows = self._ask(asked, sequence, limit)
        return tuple(Stored(sequence=number, body=bytes(body), hash=bytes(hash_)) for number, body, hash_ in rows)

    def _ask(self, sql: str, *values: Any) -> list[Row]:
        try:
            return self._db.execute(sql, values).fetchall()
        except sqlite3.Error as fault:
            raise store_error(fault, self._path) from fault


@contextmanager
def log_file(path: Path) -> Iterator[LogFile]:
    """The log at `path` can be read.

    Raises:
        StoreError: `path` is no store, or cannot be read.
    """
    try:
        db = _open(path)
    except (sqlite3.Error, OSError) as fault:
        raise store_error(fault, path) from fault
    with closing(db):
        yield LogFile(path, db)


def stored_records(path: Path, *, after: int = 0, limit: int = 1000) -> tuple[Stored, ...]:
    """Return the rows of the log after `after`, oldest first, for `rules.log.first_break`.

    Raises:
        StoreError: `path` is no store, or cannot be read.
    """
    with log_file(path) as log:
        return log.after(after, limit)


def stored_head(path: Path) -> tuple[int, bytes]:
    """Return where the log says that it ends: a sequence number and a hash.

    Raises:
        StoreError: `path` is no store, or cannot be read.
    """
    with log_file(path) as log:
        return log.head()


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
