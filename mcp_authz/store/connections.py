"""The two connections of a store: one that the writer's thread writes with, one that reads.

The only door to sqlite-utils.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal, TypeVar

from sqlite_utils import Database

from mcp_authz.errors import StoreError
from mcp_authz.rules.keys import Sealer
from mcp_authz.rules.record_redaction import RecordRedaction
from mcp_authz.store.faults import store_error
from mcp_authz.store.files import DatabaseFile, FileLost, WriteLock, free_siblings
from mcp_authz.store.ports import Clock
from mcp_authz.store.rows import micros
from mcp_authz.store.transaction import Transaction

T = TypeVar("T")
Connect = Callable[[], sqlite3.Connection]
Synchronous = Literal["FULL", "NORMAL", "EXTRA"]


class Transactions:
    """Begins transactions at the clock's time, on a connection that is made anew after a fault."""

    def __init__(
        self,
        file: DatabaseFile,
        connect: Connect,
        *,
        clock: Clock,
        sealer: Sealer,
        instance: str,
        redact: RecordRedaction,
    ) -> None:
        self.file = file
        self._connect = connect
        self._clock = clock
        self._sealer = sealer
        self._instance = instance
        self._redact = redact
        self._db: sqlite3.Connection | None = None

    def begin(self, statement: str) -> Transaction:
        """A transaction has begun.

        Raises:
            StoreError: the database file is not there any more.
            sqlite3.Error: it cannot be used.
        """
        self.file.require()
        if self._db is None:
            self._db = self._connect()
            self.file.opened()
        self._db.execute(statement)
        at = self._clock()  # now, not before: the statement may have waited for another process
        return Transaction(
            db=self._db, at=at, now=micros(at), sealer=self._sealer, instance=self._instance, redact=self._redact
        )

    def require_schema(self, tx: Transaction) -> None:
        """Return only if no newer version has changed the tables.

        Raises:
            StoreUpgraded: one has.
        """
        (version,) = tx.db.execute("PRAGMA user_version").fetchone()
        self.file.require_schema(version)

    def end(self, statement: str) -> None:
        """The transaction has ended with `statement`."""
        if self._db is not None:
            self._db.execute(statement)

    def drop(self) -> None:
        """Nothing uncommitted remains; the next transaction connects anew."""
        if self._db is not None:
            with suppress(sqlite3.Error):
                self._db.close()
            self._db = None
            self.file.closed()


class Reader:
    """Asks questions, each of one snapshot: everything committed when it began, and nothing later."""

    def __init__(self, transactions: Transactions) -> None:
        self._transactions = transactions
        self._closed = False

    @property
    def path(self) -> Path:
        """Where the database is."""
        return self._transactions.file.path

    def ask(self, question: Callable[[Transaction], T]) -> T:
        """What the question found.

        Raises:
            StoreError: the store cannot be read, or is closed.
        """
        if self._closed:
            raise StoreError("the store is closed")
        try:
            tx = self._transactions.begin("BEGIN")
            try:
                return question(tx)
            finally:
                self._transactions.end("COMMIT")
        except FileLost:
            self._transactions.drop()
            raise
        except (sqlite3.Error, OSError) as fault:
            self._transactions.drop()
            raise store_error(fault, self._transactions.file.path) from fault

    def version(self) -> tuple[object, int]:
        """What changes with each commit of any other connection; counts of two connections do not compare.

        Raises:
            StoreError: the store cannot be read, or was upgraded.
        """

        def look(tx: Transaction) -> tuple[object, int]:
            self._transactions.require_schema(tx)  # whoever has changed the tables has committed
            (version,) = tx.db.execute("PRAGMA data_version").fetchone()
            return tx.db, version

        return self.ask(look)

    def close(self) -> None:
        """Nothing can be asked any more."""
        self._closed = True
        self._transactions.drop()


class FilePen:
    """What the writer writes with: the write lock, then a transaction that other writers wait for."""

    def __init__(self, transactions: Transactions, lock: WriteLock) -> None:
        self._transactions = transactions
        self._lock = lock

    def begin(self) -> Transaction:
        """A write transaction has begun, on a connection that works, in tables that this version knows.

        Raises:
            StoreUpgraded: a newer version has changed them. Nothing is forwarded without a write, so that it is enough
                to look at this once in each batch.
        """
        self._lock.take()
        tx = self._transactions.begin("BEGIN IMMEDIATE")
        self._transactions.require_schema(tx)
        return tx

    def commit(self) -> None:
        """What was written since `begin` is on the disk, and others may write.

        Raises:
            StoreError: it is in a file that was taken away meanwhile.
        """
        self._transactions.end("COMMIT")
        self._transactions.file.require()  # or what was written is where nobody will ever see it
        self._lock.release()

    def drop(self) -> None:
        """Nothing written since `begin` remains; the next `begin` connects anew."""
        self._transactions.drop()
        self._lock.release()

    def close(self) -> None:
        """Connection and lock file are closed."""
        self._transactions.drop()
        self._lock.close()

    def explain(self, fault: Exception) -> StoreError:
        """What went wrong, as a sentence that says what to do."""
        return store_error(fault, self._transactions.file.path)


def connect(path: Path, synchronous: Synchronous, seconds: float) -> sqlite3.Connection:
    free_siblings(path)
    connection = sqlite3.connect(
        f"{path.as_uri()}?mode=rw",  # a file that is gone is not made anew
        uri=True,
        timeout=seconds,
        isolation_level=None,  # transactions begin where they are written
        check_same_thread=False,  # made by one thread, used by another, never by two
        cached_statements=256,
    )
    try:
        db = Database(connection, execute_plugins=False)  # an installed plugin would run inside the gateway
        db.enable_wal()
        if db.journal_mode != "wal":
            raise StoreError(f"store `{path}`: its file system cannot share memory; put it on a local disk")
        for pragma in (
            f"synchronous = {synchronous}",
            "foreign_keys = ON",
            "cell_size_check = ON",
            # What is shredded does not stay in free pages. FAST does not do: a row that grew once left its old pages as
            # they were, and nothing finds those again. It would save a seventh of the processor time of a write that
            # deletes as many values as it adds, and nothing where none is deleted.
            "secure_delete = ON",
        ):
            db.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def connect_reader(connect: Callable[[], sqlite3.Connection]) -> sqlite3.Connection:
    connection = connect()
    connection.execute("PRAGMA query_only = ON")
    return connection
