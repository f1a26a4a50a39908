"""Rows of single tables, put there as they are: for what is promised of each table on its own."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from typing import Any, Final

from mcp_authz.store.rows import micros
from mcp_authz.store.schema import migrate
from mcp_authz.store.transaction import Transaction
from tests.store.conftest import SEALER
from tests.store.world import START

NOW: Final = micros(START)
LATER: Final = micros(START + timedelta(days=1))
_NEVER: Final = frozenset({"used_at", "ended_at", "retires_at", "shredded_at", "ends_at"})
_OWN: Final[dict[str, dict[str, Any]]] = {
    "sessions": {"mode": "delegated"},
    "standing_approvals": {"assurance": 3},
    "sign_ins": {"auth_issuer": None},
    "holds": {"hazard": "read", "mode": "delegated", "state": "pending"},
    "agents": {"labels": "{}", "parent": None, "metadata_url": None, "client_id": None},
    "clients": {"kind": "registered"},
    "keys": {"holder": "user:nobody"},
}


@contextmanager
def tables() -> Iterator[sqlite3.Connection]:
    """A database with every table and nothing in them, in which rows may refer to what is not there."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        migrate(db)
        db.execute("PRAGMA foreign_keys = OFF")
        yield db


def transaction(db: sqlite3.Connection) -> Transaction:
    """One of the time at which every test begins."""
    return Transaction(db=db, at=START, now=NOW, sealer=SEALER, instance="i_1")


def put(db: sqlite3.Connection, table: str, **values: Any) -> None:
    """A row that is open for a day, of which only these values matter."""
    made: dict[str, Any] = {}
    for _, name, kind, *_ in db.execute(f"PRAGMA table_info({table})").fetchall():
        blank: Any = {"TEXT": "[]", "BLOB": bytes(32)}.get(kind, 1)
        special = {"expires_at": LATER, "status": "active", **dict.fromkeys(_NEVER)}
        made[name] = special.get(name, blank)
    row = {name: value for name, value in {**made, **_OWN.get(table, {}), **values}.items() if name in made}
    marks = ", ".join("?" * len(row))
    db.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))  # noqa: S608


def asked(db: sqlite3.Connection, question: str) -> list[Any]:
    """The rows that answer this."""
    return db.execute(question).fetchall()
