"""Everything of a subject before a time, table by table: what was made earlier ends, and nothing else."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from mcp_authz.store.ports import Event
from mcp_authz.store.rows import micros
from mcp_authz.store.sweep import Rehearsed, rehearse, sweep
from mcp_authz.store.switch_port import Swept
from tests.store.tables import LATER, NOW, asked, put, tables, transaction
from tests.store.world import START

BEFORE = START - timedelta(hours=1)
UNTIL = micros(BEFORE)
EVENT = Event(kind="revocation", at=START, fields={"of": "everything"})


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    with tables() as it:
        put(it, "agents", name="desk", client_id="c_1")
        put(it, "grants", id="g_desk", agent="desk", client_id=None, granted_at=NOW)
        put(it, "grants", id="g_other", agent="other", client_id="c_1", granted_at=NOW)
        yield it


def swept(db: sqlite3.Connection, subject: str) -> Swept:
    return sweep(transaction(db), subject, BEFORE, EVENT)


OF: list[tuple[str, str, str, dict[str, Any], dict[str, Any]]] = [
    # subject, table, the column of when it was made, whose it is, and whose it is not
    ("user:alice", "grants", "granted_at", {"subject": "alice"}, {"subject": "bob"}),
    ("user:alice", "sessions", "started_at", {"subject": "alice"}, {"subject": "bob"}),
    ("user:alice", "keys", "added_at", {"holder": "user:alice"}, {"holder": "agent:alice"}),
    ("user:alice", "standing_approvals", "given_at", {"person": "alice"}, {"person": "bob"}),
    ("agent:coder", "grants", "granted_at", {"agent": "coder"}, {"agent": "desk"}),
    ("agent:coder", "sessions", "started_at", {"agent": "coder"}, {"agent": "desk"}),
    ("agent:coder", "links", "issued_at", {"holder": "coder"}, {"holder": "desk"}),
    ("agent:coder", "keys", "added_at", {"holder": "agent:coder"}, {"holder": "user:coder"}),
    ("agent:coder", "standing_approvals", "given_at", {"actor": "coder"}, {"actor": "desk"}),
    ("client:c_1", "grants", "granted_at", {"agent": "desk", "client_id": None}, {"agent": "x", "client_id": None}),
    ("client:c_1", "grants", "granted_at", {"agent": "x", "client_id": "c_1"}, {"agent": "x", "client_id": "c_2"}),
    ("client:c_1", "sessions", "started_at", {"grant_id": "g_desk"}, {"grant_id": "g_x"}),
    ("client:c_1", "sessions", "started_at", {"grant_id": "g_other"}, {"grant_id": "g_x"}),
    ("client:c_1", "standing_approvals", "given_at", {"actor": "desk"}, {"actor": "coder"}),
]


@pytest.mark.parametrize("of", OF, ids=lambda it: f"{it[0]} {it[1]} {it[3]}")
def test_what_is_the_subjects_and_older_ends_and_nothing_else(
    db: sqlite3.Connection, of: tuple[str, str, str, dict[str, Any], dict[str, Any]]
) -> None:
    subject, table, made_at, mine, others = of
    name = "thumbprint" if table == "keys" else "id"
    for number, (id_, whose, at) in enumerate(
        (("old", mine, UNTIL - 1), ("new", mine, UNTIL), ("other", others, UNTIL - 1))
    ):
        more = {"raw": bytes([number]) * 32} if table == "keys" else {}
        put(db, table, **{name: id_, made_at: at, **more, **whose})
    assert not swept(db, subject).is_nothing
    assert asked(db, f"SELECT {name} FROM {table} WHERE status = 'revoked'") == [("old",)]  # noqa: S608
    assert len(asked(db, "SELECT 1 FROM log")) == 1
    assert swept(db, subject).is_nothing
    assert len(asked(db, "SELECT 1 FROM log")) == 1  # where nothing ended nothing is recorded


@pytest.mark.parametrize(
    ("subject", "table", "made_at"),
    [
        ("user:alice", "sign_ins", "began_at"),
        ("user:alice", "invitations", "made_at"),
        ("agent:coder", "enrolments", "made_at"),
    ],
)
def test_sign_ins_and_one_time_codes_of_before_are_over(
    db: sqlite3.Connection, subject: str, table: str, made_at: str
) -> None:
    kind, _, name = subject.partition(":")
    whose, over = {"user": "person"}.get(kind, kind), "ended_at" if table == "sign_ins" else "used_at"
    for id_, of, at, expires in (
        (b"old", name, UNTIL - 1, LATER),
        (b"new", name, UNTIL, LATER),
        (b"other", "bob", UNTIL - 1, LATER),
        (b"over", name, UNTIL - 1, NOW),
    ):
        put(db, table, digest=id_.ljust(32), expires_at=expires, **{made_at: at, whose: of})
    db.execute("SAVEPOINT rehearsal")
    with pytest.raises(Rehearsed) as rehearsed:
        rehearse(transaction(db), subject, BEFORE, EVENT)
    db.execute("ROLLBACK TO rehearsal")
    gone = swept(db, subject)
    assert gone == rehearsed.value.swept and gone.sign_ins + gone.codes == 1
    ended = asked(db, f"SELECT digest FROM {table} WHERE {over} = {NOW}")  # noqa: S608
    assert ended == [(b"old".ljust(32),)]
