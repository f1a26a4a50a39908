"""A look into a store that changes nothing, not even beside it: nothing is migrated, locked for long, or made."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

from mcp_authz.errors import StoreError
from mcp_authz.passkey import Passkey
from mcp_authz.principals import Agent, AgentName, Grant, Key, Person, PersonName, SessionId
from mcp_authz.rules.keys import Sealer
from mcp_authz.rules.log import GENESIS, Break, Stored, first_break
from mcp_authz.store import accounts, pins, registry
from mcp_authz.store.faults import store_error
from mcp_authz.store.ports import Pin
from mcp_authz.store.rows import micros
from mcp_authz.store.schema import APPLICATION_ID, MIGRATIONS
from mcp_authz.store.signing_keys import signing_since
from mcp_authz.store.transaction import Transaction
from mcp_authz.store.witness import Witness, contradiction, hash_at, mark_of

T = TypeVar("T")

_STEPS: Final = 10_000  # of SQLite's machine, between two looks at the clock


@dataclass(frozen=True, slots=True, kw_only=True)
class Inside:
    """What a store holds about who is who, at one moment."""

    people: tuple[Person, ...]
    agents: tuple[Agent, ...]
    keys: Mapping[str, tuple[Key, ...]]  # by `agent:NAME` or `user:NAME`
    passkeys: Mapping[PersonName, tuple[Passkey, ...]]
    grants: tuple[Grant, ...]
    open_sessions: Mapping[AgentName, frozenset[SessionId]]
    pins: tuple[Pin, ...]
    signing_since: Mapping[str, datetime]  # since when the gateway signs with its newest key, by use


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """How the file of a store is."""

    schema: int  # of `NEWEST_SCHEMA`
    damage: str  # what SQLite's own check says; empty when it found nothing
    checked_whole: bool  # False: the check was given up, because its time was over
    newest_at: datetime | None  # the time of the newest record


NEWEST_SCHEMA: Final = len(MIGRATIONS)


def condition(path: Path, *, patience: timedelta) -> Condition:
    """Return how the file is; its own check takes `patience` at most.

    Raises:
        StoreError: there is no store at `path`, or it cannot be read.
    """
    return _look(path, lambda db: _condition(db, path, patience))


def newest_break(path: Path, records: int) -> tuple[int, Break | None]:
    """Return how long the log is, and where its newest `records` do not hang together, if they do not.

    Raises:
        StoreError: there is no store at `path`, or it cannot be read.
    """
    length, broken = _look(path, lambda db: _newest_break(db, records))
    # A store that was opened in this moment was read while it was written: the second look knows of that.
    return (length, None) if broken is None else _look(path, lambda db: _newest_break(db, records))


def newest_of(path: Path, kind: str) -> tuple[Stored | None, int]:
    """Return the newest row of a record of this kind, and the number of the last record of any kind.

    Raises:
        StoreError: there is no store at `path`, or it cannot be read.
    """
    return _look(path, lambda db: _newest_of(db, kind))


def put_back(path: Path) -> str | None:
    """Return why the store is an earlier one than its witness knows of; None where it is not, as far as is known.

    Raises:
        StoreError: there is no store at `path`, or it cannot be read.
    """
    seen = Witness(path).read()  # before the store, which may be written in between
    return None if seen is None else _look(path, lambda db: contradiction(seen, mark_of(db), partial(hash_at, db)))


def newest_backup(path: Path) -> datetime | None:
    """Return when the newest backup on record was made; where there is none, when the log began, None if it is empty.

    Raises:
        StoreError: there is no store at `path`, or it cannot be read.
    """
    return _look(path, _newest_backup)


def inside(path: Path, at: datetime) -> Inside:
    """Return what a store of this version holds; `at` decides what is open.

    Raises:
        StoreError: there is no store at `path`, or it cannot be read.
    """
    # Nothing that is read here is sealed, so that no key is needed, nor believed.
    return _look(
        path,
        lambda db: _inside(Transaction(db=db, at=at, now=micros(at), sealer=Sealer(bytes(32)), instance="")),
    )


def _look(path: Path, question: Callable[[sqlite3.Connection], T]) -> T:
    try:
        # Without a write-ahead log the file is the whole truth, and no shared memory has to be made to read it.
        whole = not path.with_name(f"{path.name}-wal").exists()
        uri = f"{path.resolve(strict=True).as_uri()}?mode=ro{'&immutable=1' if whole else ''}"
        with closing(sqlite3.connect(uri, uri=True)) as db:
            return question(db)
    except (sqlite3.Error, OSError) as fault:
        raise store_error(fault, path) from fault


def _condition(db: sqlite3.Connection, path: Path, patience: timedelta) -> Condition:
    (application,) = db.execute("PRAGMA application_id").fetchone()
    (schema,) = db.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        raise StoreError(f"store `{path}`: the file is the database of another program; name another file as the store")
    newest = "SELECT json_extract(CAST(body AS TEXT), '$.at') FROM log ORDER BY sequence DESC LIMIT 1"
    record = db.execute(newest).fetchone()
    until = time.monotonic() + patience.total_seconds()
    db.set_progress_handler(lambda: int(time.monotonic() > until), _STEPS)
    try:
        (said,) = db.execute("PRAGMA quick_check(1)").fetchone()
        whole = True
    except sqlite3.OperationalError as error:
        if "interrupted" not in str(error):
            raise
        said, whole = "ok", False
    return Condition(
        schema=schema,
        damage="" if said == "ok" else said,
        checked_whole=whole,
        newest_at=None if record is None else datetime.fromisoformat(record[0]),
    )


def _newest_break(db: sqlite3.Connection, records: int) -> tuple[int, Break | None]:
    db.execute("BEGIN")  # everything that follows is of one moment
    head: tuple[int, bytes] = db.execute("SELECT sequence, hash FROM log_head").fetchone()
    base: tuple[int, bytes] = (0, GENESIS)
    if db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'log_base'").fetchone() is not None:
        base = db.execute("SELECT sequence, hash FROM log_base").fetchone()  # `audit verify` shows whether it may be so
    found = db.execute(
        "SELECT sequence, body, hash FROM log WHERE sequence > ? ORDER BY sequence",
        (max(base[0], head[0] - records - 1),),
    ).fetchall()
    rows = [Stored(sequence=sequence, body=bytes(body), hash=hash_) for sequence, body, hash_ in found]
    if head[0] - base[0] <= records:
        return head[0], first_break(rows, head=head, start=base)
    if not rows:
        return head[0], Break(sequence=head[0], why=f"record {head[0]} is missing")
    return head[0], first_break(rows[1:], head=head, start=(rows[0].sequence, rows[0].hash))


def _newest_of(db: sqlite3.Connection, kind: str) -> tuple[Stored | None, int]:
    row = db.execute(
        "SELECT sequence, body, hash FROM log WHERE kind = ? ORDER BY sequence DESC LIMIT 1", (kind,)
    ).fetchone()
    (head,) = db.execute("SELECT sequence FROM log_head").fetchone()
    return None if row is None else Stored(sequence=row[0], body=bytes(row[1]), hash=bytes(row[2])), int(head)


def _inside(tx: Transaction) -> Inside:
    people, agents = registry.people(tx), registry.agents(tx)
    holders = [*(f"agent:{agent.name}" for agent in agents), *(f"user:{person.name}" for person in people)]
    return Inside(
        people=people,
        agents=agents,
        keys={holder: registry.keys_of(tx, holder) for holder in holders},
        passkeys={person.name: accounts.passkeys_of(tx, person.name) for person in people},
        grants=registry.grants(tx, None),
        open_sessions={
            agent.name: frozenset(session.id for session, _ in registry.open_links(tx, agent.name, tx.now, 0))
            for agent in agents
        },
        pins=pins.pins(tx),
        signing_since=signing_since(tx),
    )


def _newest_backup(db: sqlite3.Connection) -> datetime | None:
    rows = (
        db.execute(
            """SELECT body FROM log WHERE kind = 'administration' AND instr(CAST(body AS TEXT), '"backup":')
        ORDER BY sequence DESC LIMIT 1"""
        ).fetchall()
        or db.execute("SELECT body FROM log ORDER BY sequence LIMIT 1").fetchall()
    )
    return datetime.fromisoformat(json.loads(rows[0][0])["at"]) if rows else None
