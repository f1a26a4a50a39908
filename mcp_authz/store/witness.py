"""The witness of a store: a small file beside it that says where its log ended when it was last written.

A store that is behind its witness was put back to an earlier state: somebody copied a backup over it. The witness is
written after what it tells of is on the disk, so that it is never ahead of a store that nobody touched, and not
flushed, so that it may be behind: that proves nothing. It helps against accidents. Who can write the directory can
write the witness as well; checkpoints that are kept elsewhere help against that.
"""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from mcp_authz.errors import StoreError
from mcp_authz.new_file import flush
from mcp_authz.store.connections import FilePen, Transactions
from mcp_authz.store.epoch import begin_first, epoch_of
from mcp_authz.store.files import WriteLock
from mcp_authz.store.transaction import Transaction

log = logging.getLogger(__name__)

_FORM: Final = struct.Struct(">8sQQ32s")
_MAGIC: Final = b"mcpzwit1"
_SUM: Final = 8  # bytes of a SHA-256: against torn writes, not against anybody

ACCEPT: Final = 'mcp-authz restore --in-place --reason "..."'


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """Where a log was known to end, in which epoch of its store."""

    epoch: int
    sequence: int
    hash: bytes
    by: str = "its witness"


class Witness:
    """`<database>.witness`: one record of fixed size, written over again and again."""

    def __init__(self, store: Path) -> None:
        self.store = store
        self.path = store.with_name(f"{store.name}.witness")
        self._file: int | None = None
        self._trouble = ""

    def exists(self) -> bool:
        """Whether there is a file."""
        return self.path.exists()

    def read(self) -> Mark | None:
        """What it says; None where there is none, or a torn one."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return None
        body, sum_ = data[: _FORM.size], data[_FORM.size :]
        if len(body) != _FORM.size or hashlib.sha256(body).digest()[:_SUM] != sum_:
            return None
        magic, epoch, sequence, hash_ = _FORM.unpack(body)
        return None if magic != _MAGIC else Mark(epoch=epoch, sequence=sequence, hash=hash_)

    def make(self, mark: Mark) -> None:
        """The file is there and says this, also after a loss of power.

        Raises:
            OSError: it cannot be written.
        """
        self._write(mark)
        if self._file is not None:
            os.fsync(self._file)
        flush(self.path.parent)

    def say(self, mark: Mark) -> None:
        """The file says this, unless it cannot be written: then it is behind, which proves nothing."""
        try:
            self._write(mark)
            self._trouble = ""
        except OSError as error:
            if str(error) != self._trouble:
                self._trouble = str(error)
                log.warning("`%s` cannot be written: %s; the store goes on without", self.path, error.strerror)

    def close(self) -> None:
        """The file is closed."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _write(self, mark: Mark) -> None:
        if self._file is None:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        body = _FORM.pack(_MAGIC, mark.epoch, mark.sequence, mark.hash)
        os.pwrite(self._file, body + hashlib.sha256(body).digest()[:_SUM], 0)


class WitnessedPen(FilePen):
    """A pen whose every commit is witnessed, once it is on the disk."""

    def __init__(self, transactions: Transactions, lock: WriteLock, witness: Witness) -> None:
        super().__init__(transactions, lock)
        self._witness = witness
        self._tx: Transaction | None = None
        self._epoch: int | None = None  # which stays as it is while a store is open

    def begin(self) -> Transaction:
        self._tx = super().begin()
        return self._tx

    def commit(self) -> None:
        mark = None if self._tx is None else self._mark(self._tx)
        super().commit()
        if mark is not None and mark.sequence > 0:
            self._witness.say(mark)

    def close(self) -> None:
        super().close()
        self._witness.close()

    def _mark(self, tx: Transaction) -> Mark:
        if self._epoch is None:
            self._epoch = epoch_of(tx.db) or 0
        if tx.log_end.known is None:
            return _end(tx.db, self._epoch)
        sequence, hash_ = tx.log_end.known
        return Mark(epoch=self._epoch, sequence=sequence, hash=hash_)


def begin_witness(tx: Transaction, witness: Witness) -> None:
    """The witness is there, and the store knows that it has one.

    Raises:
        OSError: it cannot be written.
    """
    if epoch_of(tx.db) is None or witness.read() is None:
        witness.make(mark_of(tx.db))
        begin_first(tx)


def mark_of(db: sqlite3.Connection) -> Mark:
    """Where the store's log ends, as this connection sees it; of a store without tables, nowhere."""
    if db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'log_head'").fetchone() is None:
        return Mark(epoch=0, sequence=0, hash=bytes(32))
    return _end(db, epoch_of(db) or 0)


def _end(db: sqlite3.Connection, epoch: int) -> Mark:
    row = db.execute("SELECT sequence, hash FROM log_head").fetchone()
    if row is None:
        raise StoreError("the log has no head; run `mcp-authz audit verify`")
    return Mark(epoch=epoch, sequence=row[0], hash=row[1])


def require_current(db: sqlite3.Connection, witness: Witness, seen: Iterable[Mark]) -> None:
    """Return only if nothing that was written into this store is missing from it, as far as is known.

    `seen` is what is known beside the witness. Nobody else writes meanwhile.

    Raises:
        StoreError: the store is an earlier one; the message says what to do.
    """
    if epoch_of(db) is not None and not witness.exists():
        missing = f"`{witness.path.name}` is not beside it, so that nobody can tell whether it is the newest"
        raise StoreError(_put_back(witness.store, missing))
    marks = [mark for mark in (witness.read(), *seen) if mark is not None]
    here = mark_of(db)
    for mark in marks:
        if (why := contradiction(mark, here, partial(hash_at, db))) is not None:
            raise StoreError(_put_back(witness.store, f"{why}, says {mark.by}"))


def contradiction(seen: Mark, here: Mark, hash_at: Callable[[int], bytes | None]) -> str | None:
    """Why a store that ends `here` is not what was `seen`, or a later state of it; None where it may be.

    Only a restore begins an epoch, so that a later one is a later state.
    """
    if here.epoch > seen.epoch or seen.sequence == 0:
        return None
    if here.epoch < seen.epoch:
        return f"it is of epoch {here.epoch}, and epoch {seen.epoch} had begun"
    if here.sequence < seen.sequence:
        return f"its log ends at record {here.sequence}, and record {seen.sequence} had been written"
    found = hash_at(seen.sequence)
    if found is not None and found != seen.hash:  # None: retention has cut it off since
        return f"its record {seen.sequence} is another one than had been written"
    return None


def hash_at(db: sqlite3.Connection, sequence: int) -> bytes | None:
    """The hash of the record with this number; None where it is not there, or not any more."""
    row = db.execute("SELECT hash FROM log WHERE sequence = ?", (sequence,)).fetchone()
    return None if row is None else bytes(row[0])


def _put_back(path: Path, why: str) -> str:
    return f"store `{path}` was put back: {why}; put the newest one there, or make it a restored backup: {ACCEPT}"
