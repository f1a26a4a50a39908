"""A backup takes the place of a store: whatever was open in it is void, and what was revoked since is revoked.

Deny when in doubt: where nothing tells what was revoked since the backup, nobody's key counts any more.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.errors import Conflict, NotFound, StoreError
from mcp_authz.locking import is_locked
from mcp_authz.new_file import flush
from mcp_authz.rules.keys import Sealer
from mcp_authz.rules.log import timestamp
from mcp_authz.store import epoch
from mcp_authz.store.copying import Told, copy, inspect, put_in_place, read_only
from mcp_authz.store.epoch_since import Carried, carry_losses, carry_over, end_all_ways_in, without_a_key
from mcp_authz.store.faults import store_error
from mcp_authz.store.files import WriteLock
from mcp_authz.store.ports import Clock, Event
from mcp_authz.store.records import append, head
from mcp_authz.store.rows import micros
from mcp_authz.store.schema import migrate
from mcp_authz.store.transaction import Transaction, known_secret
from mcp_authz.store.witness import Mark, Witness, contradiction, hash_at, mark_of

_NAMED: Final = 200  # ids of each kind that the record has; the others end all the same
_INSTANCE: Final = "restore"
_PATIENCE: Final = 5.0  # seconds that another process may keep the store locked


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What is to be restored, by whom, and what is known of the time since."""

    backup: Path | None  # None: what lies in the store's place is the backup
    reason: str
    by: str
    since: tuple[Path, ...] = ()  # other stores that are newer than the backup
    revocations_unknown: bool = False
    good: frozenset[str] = frozenset()  # who keeps their keys where revocations are not known
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """What is so now, or would be."""

    number: int  # of the epoch
    mark: Mark  # where the backup ended
    lost: Mark | None  # where the log ended that was replaced
    revocations_known: bool
    replaced: Path | None  # where the store is that was replaced
    voided: Mapping[str, int]
    ended: Mapping[str, Sequence[str]]
    missing: Mapping[str, Sequence[str]]
    keyless: tuple[str, ...]  # agents that have to enrol anew


@dataclass(slots=True, kw_only=True)
class _Sources:
    """Copies of stores that may be newer than the backup, and why others cannot be asked."""

    newer: list[sqlite3.Connection] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


def restore(store: Path, asked: Asked, *, sealer: Sealer, clock: Clock, seen: Sequence[Mark], told: Told) -> Restored:
    """The backup is the store at `store`, in a new epoch; what was there is beside it.

    `seen` is where the log is known to have ended, beside what the witness says.

    Raises:
        Conflict: a process has the store open.
        NotFound: there is no such backup.
        StoreError: the backup cannot be used; or what was revoked since is not known.
    """
    backup = store if asked.backup is None else asked.backup
    if not backup.exists():
        raise NotFound(f"there is no backup at `{backup}`")
    witness, scratch = Witness(store), store.with_name(f"{store.name}.restoring")
    marks = [mark for mark in (witness.read(), *seen) if mark is not None]
    with _alone(store), ExitStack() as stack:
        inspect(backup)
        stack.callback(scratch.unlink, missing_ok=True)
        copy(backup, scratch, told)
        sources = _opened(stack, store, asked)
        try:
            with closing(_connect(scratch)) as db:
                db.execute("BEGIN IMMEDIATE")
                at = clock()
                tx = Transaction(db=db, at=at, now=micros(at), sealer=sealer, instance=_INSTANCE)
                aside = store.with_name(f"{store.name}.replaced-{at:%Y%m%dT%H%M%SZ}") if store.exists() else None
                done = _begin(tx, asked, sources, marks, aside)
                db.execute("ROLLBACK" if asked.dry_run else "COMMIT")
                after = mark_of(db)
            if not asked.dry_run:
                flush(scratch)
                _settle(store)
                put_in_place(scratch, store, aside)
                witness.make(after)
        except (sqlite3.Error, OSError) as fault:
            raise store_error(fault, store) from fault
        finally:
            witness.close()
    return done


def _begin(tx: Transaction, asked: Asked, sources: _Sources, marks: Sequence[Mark], aside: Path | None) -> Restored:
    known_secret(tx, "sealing-key-check")  # with another master key the backup is of no use
    ours = mark_of(tx.db)
    knowing = [db for db in sources.newer if _knows(db, ours, marks)]
    if not knowing and not asked.revocations_unknown:
        raise StoreError(_unknown(sources))
    ends = [*marks, *(mark_of(db) for db in knowing)]
    lost = max((one for one in ends if contradiction(one, ours, lambda _: None) is not None), key=_order, default=None)
    number = max([ours.epoch, *(one.epoch for one in ends)]) + 1
    dated_from = tx.now if knowing else micros(tx.at + limits.CLOCK_SKEW)
    voided = epoch.begin(tx, number=number, dated_from=dated_from, sequence=ours.sequence, reason=asked.reason)
    carried = Carried() if knowing else end_all_ways_in(tx, asked.good, asked.reason)
    for db in sources.newer:
        carry_over(tx, db, carried)
        if _is_later(db, ours):
            carry_losses(tx, db, carried)
    done = Restored(
        number=number,
        mark=ours,
        lost=lost,
        revocations_known=bool(knowing),
        replaced=aside,
        voided={name: count for name, count in voided.items() if count},
        ended=carried.ended,
        missing=carried.missing,
        keyless=without_a_key(tx),
    )
    append(tx, _event(tx, asked, done))
    return done


def _knows(db: sqlite3.Connection, backup: Mark, marks: Sequence[Mark]) -> bool:
    """Whether this store is a later state of the backup, and the latest that is known of."""
    here = mark_of(db)
    return _is_later(db, backup) and all(contradiction(mark, here, partial(hash_at, db)) is None for mark in marks)


def _is_later(db: sqlite3.Connection, backup: Mark) -> bool:
    here = mark_of(db)
    if here.sequence < backup.sequence or not epoch.was_at(db, backup.epoch, backup.sequence):
        return False
    return hash_at(db, backup.sequence) in {None, backup.hash}  # None: pruned


def _order(mark: Mark) -> tuple[int, int]:
    return mark.epoch, mark.sequence


def _unknown(sources: _Sources) -> str:
    why = "; ".join(sources.unread) or "no store is at hand that is newer than the backup, and the newest there was"
    return (
        f"what was revoked since the backup is not known ({why}): name a newer copy with --since FILE, "
        "or let every key and passkey end with --revocations-unknown"
    )


def _event(tx: Transaction, asked: Asked, done: Restored) -> Event:
    said = "what lay in the store's place" if asked.backup is None else f"backup {asked.backup.name}"
    sequence, hash_ = head(tx)
    fields: dict[str, Any] = {
        "summary": f"{asked.by} restored {said}: epoch {done.number} begins; what was open is void: {asked.reason}",
        "by": asked.by,
        "reason": asked.reason,
        "epoch": done.number,
        "restored": {
            "epoch": done.mark.epoch,
            "sequence": done.mark.sequence,
            "hash": done.mark.hash.hex(),
            "goes_on_after": [sequence, hash_.hex()],
        },
        "lost": _lost(done),
        "replaced": None if done.replaced is None else done.replaced.name,
        "revocations_known": done.revocations_known,
        "voided": dict(done.voided),
        "ended": {kind: len(names) for kind, names in done.ended.items()},
        "ids": {kind: list(names[:_NAMED]) for kind, names in done.ended.items()},
        "at": timestamp(tx.at),
    }
    return Event(kind="administration", at=tx.at, fields=fields)


def _lost(done: Restored) -> dict[str, Any] | None:
    """Where the log ended that was replaced, as far as is known; where nothing was lost it ended with the backup."""
    end = done.mark if done.lost is None and done.revocations_known else done.lost
    if end is None:
        return None
    return {
        "epoch": end.epoch,
        "sequence": end.sequence,
        "hash": end.hash.hex(),
        "exact": done.revocations_known,
    }


@contextmanager
def _alone(store: Path) -> Iterator[None]:
    """No process has the store open, and none writes to it."""
    lock = WriteLock(store, patience=_PATIENCE)
    try:
        lock.take()
        if any(is_locked(path) for path in store.parent.glob(f"{store.name}.i_*.lock")):
            raise Conflict(f"a process has store `{store}` open: stop the gateway, and commands that run on it")
        yield
    finally:
        lock.close()


def _opened(stack: ExitStack, store: Path, asked: Asked) -> _Sources:
    """Copies of what may be newer than the backup: the store that is replaced, and those that were named."""
    sources = _Sources()
    own = () if asked.backup is None or not store.exists() else (store,)
    for number, path in enumerate((*own, *asked.since)):
        scratch = store.with_name(f"{store.name}.since-{number}")
        stack.callback(scratch.unlink, missing_ok=True)
        try:
            inspect(path)
            copy(path, scratch, lambda *_: None)
            sources.newer.append(stack.enter_context(closing(_connect(scratch))))
        except StoreError as error:
            if path is not store:
                raise
            sources.unread.append(str(error))
    return sources


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    try:
        for pragma in ("synchronous = FULL", "foreign_keys = ON", "secure_delete = ON"):
            db.execute(f"PRAGMA {pragma}")
        migrate(db)
    except BaseException:
        db.close()
        raise
    return db


def _settle(store: Path) -> None:
    """The store that is replaced is one file, if it can be read at all."""
    with suppress(sqlite3.Error, OSError, StoreError):
        read_only(store).close()
        with closing(sqlite3.connect(store, isolation_level=None)) as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
