"""Whole copies of a store, in one file, of one moment, also while it is in use; and what a copy is fit for."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mcp_authz.errors import StoreError
from mcp_authz.new_file import flush
from mcp_authz.store.faults import store_error
from mcp_authz.store.schema import APPLICATION_ID, MIGRATIONS
from mcp_authz.store.witness import Mark, mark_of

Told = Callable[[int, int], None]

_PAGES: Final = 2000  # copied between two looks at the progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspected:
    """What a copy is, once SQLite found nothing wrong with it."""

    mark: Mark
    schema: int


def copy(source: Path, to: Path, told: Told) -> Mark:
    """`to` is the store as it was at one moment: one file, for its owner alone, on the disk. Returns where it ends.

    `told` hears how many pages of how many are copied. What stood at `to` before is gone.

    Raises:
        StoreError: `source` is no store, or one of the files cannot be used.
    """
    path = source
    try:
        to.unlink(missing_ok=True)
        os.close(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600))
        with closing(read_only(source)) as db, closing(sqlite3.connect(to, isolation_level=None)) as made:
            db.execute("BEGIN")
            mark = mark_of(db)  # from now on this connection sees one moment, whoever writes meanwhile
            path = to
            made.execute("PRAGMA journal_mode = OFF")  # half a copy is no copy: nothing is left beside it
            db.backup(made, pages=_PAGES, progress=lambda _, left, all_: told(all_ - left, all_), sleep=0.0)
            made.execute("PRAGMA journal_mode = DELETE")  # the copy is one file, also for who reads it
        flush(to)
    except (sqlite3.Error, OSError, StoreError) as fault:
        to.unlink(missing_ok=True)
        raise store_error(fault, path) from fault
    return mark


def inspect(path: Path) -> Inspected:
    """What the store at `path` is; nothing is written.

    Raises:
        StoreError: it is none, or damaged, or of a newer version.
    """
    try:
        with closing(read_only(path)) as db:
            (schema,) = db.execute("PRAGMA user_version").fetchone()
            if schema > len(MIGRATIONS):
                raise StoreError(f"`{path}` was written by a newer version; install that one")
            said = [row[0] for row in db.execute("PRAGMA integrity_check(3)").fetchall()]
            if said != ["ok"]:
                raise StoreError(f"`{path}` is damaged: {'; '.join(said)}")
            return Inspected(mark=mark_of(db), schema=schema)
    except (sqlite3.Error, OSError) as fault:
        raise store_error(fault, path) from fault


def end_of(path: Path) -> Mark:
    """Where the log of the store at `path` ends, and in which epoch.

    Raises:
        StoreError: it is none, or cannot be read.
    """
    try:
        with closing(read_only(path)) as db:
            return mark_of(db)
    except (sqlite3.Error, OSError) as fault:
        raise store_error(fault, path) from fault


def read_only(path: Path) -> sqlite3.Connection:
    """A connection that reads the store at `path`, its write-ahead log included.

    Raises:
        StoreError: it is the database of another program, or none.
        sqlite3.Error, OSError: it cannot be read.
    """
    db = sqlite3.connect(f"{path.resolve(strict=True).as_uri()}?mode=ro", uri=True, isolation_level=None)
    try:
        if db.execute("PRAGMA application_id").fetchone() != (APPLICATION_ID,):
            raise StoreError(f"`{path}` is no store of mcp-authz; name another file")
    except BaseException:
        db.close()
        raise
    return db


def put_in_place(new: Path, path: Path, aside: Path | None) -> None:
    """`new` is the store at `path`; what was there is at `aside`, with its write-ahead log.

    At each moment there is a store at `path`. One that lost its write-ahead log halfway is behind its witness.

    Raises:
        OSError: it cannot be.
    """
    if aside is not None:
        aside.hardlink_to(path)
    for suffix in ("-wal", "-shm"):
        left = path.with_name(path.name + suffix)
        with suppress(FileNotFoundError):
            left.unlink() if aside is None else left.rename(aside.with_name(aside.name + suffix))
    flush(path.parent)
    new.replace(path)
    flush(path.parent)
