"""What is shredded and what stays, read from the tables alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from mcp_authz import limits
from mcp_authz.model import HoldId
from mcp_authz.rules.evidence_name import digest_of, name_of
from mcp_authz.store import evidence
from mcp_authz.store.evidence_port import OfCalls
from mcp_authz.store.ports import Event
from mcp_authz.store.rows import micros
from mcp_authz.store.shredding import shred, shred_due
from tests.store.tables import LATER, NOW, asked, put, tables, transaction
from tests.store.world import START

EVENT = Event(kind="administration", at=START, fields={})
WEEK = timedelta(weeks=1)
LONG_AGO = micros(START - 2 * WEEK)


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    with tables() as it:
        yield it


def hold(db: sqlite3.Connection, id_: str, **values: Any) -> None:
    number = len(asked(db, "SELECT 1 FROM holds")) + 1
    of = {"state": "done", "ended_at": LONG_AGO, "expires_at": LONG_AGO, "arguments": b"secret", "result": b"secret"}
    put(db, "holds", id=id_, position=number, **{**of, **values})


def gone(db: sqlite3.Connection) -> set[str]:
    """The holds that have no values any more; of each of them nothing is left."""
    found = asked(db, "SELECT id, arguments, result, digest FROM holds WHERE shredded_at IS NOT NULL")
    assert all(tuple(row[1:]) == (b"", None, bytes(32)) for row in found)
    return {row[0] for row in found}


def test_what_is_over_for_long_enough_goes_and_nothing_that_can_still_be_asked_for(db: sqlite3.Connection) -> None:
    hold(db, "h_over")
    hold(db, "h_lately", ended_at=micros(START - WEEK) + 1)
    hold(db, "h_denied", state="denied", expires_at=LATER)
    hold(db, "h_denied_over", state="denied")
    hold(db, "h_task")
    put(db, "tasks", id="t", hold_id="h_task")
    hold(db, "h_waits", state="pending", ended_at=None, expires_at=LATER)
    assert shred_due(transaction(db), WEEK)
    assert gone(db) == {"h_over", "h_denied_over"}
    assert not shred_due(transaction(db), WEEK)


def test_what_may_be_repeated_is_kept_for_a_while_whatever_an_operator_says(db: sqlite3.Connection) -> None:
    hold(db, "h_just_now", ended_at=micros(START - limits.REPLAY_WINDOW) + 1)
    hold(db, "h_before", ended_at=micros(START - limits.REPLAY_WINDOW))
    assert shred_due(transaction(db), timedelta(0))
    assert gone(db) == {"h_before"}


def kept(db: sqlite3.Connection) -> set[bytes]:
    return {digest for (digest,) in asked(db, "SELECT digest FROM evidence")}


def of_call(db: sqlite3.Connection, *holds: str) -> OfCalls:
    """One call with everything that can have values in it."""
    evidence.keep(transaction(db), "call-proof", "a.proof.of-it")
    put(db, "inputs", sequence=5)
    return OfCalls(
        holds=frozenset(map(HoldId, holds)), sequences=frozenset({5}), proofs=frozenset({name_of("a.proof.of-it")})
    )


def only(hold: str) -> OfCalls:
    return OfCalls(holds=frozenset({HoldId(hold)}), sequences=frozenset(), proofs=frozenset())


def test_of_a_call_goes_everything_and_its_tasks_with_it(db: sqlite3.Connection) -> None:
    hold(db, "h_1")
    put(db, "tasks", id="t", hold_id="h_1")
    own = evidence.keep(transaction(db), "verdict", "the.verdict.of-it")
    put(db, "verdicts", hold_id="h_1", statement=own, standing=None)
    put(db, "verdicts", hold_id="h_1", position=2, approve=0, statement="an.old.one", standing=None)
    done = shred(transaction(db), of_call(db, "h_1"), EVENT)
    assert (len(done.holds), done.proofs, done.inputs, done.open) == (1, 1, 1, ())
    assert gone(db) == {"h_1"} and kept(db) == set()
    assert asked(db, "SELECT 1 FROM inputs UNION SELECT 1 FROM tasks") == []
    assert asked(db, "SELECT statement FROM verdicts ORDER BY position") == [(own,), ("",)]


def test_of_a_call_that_goes_on_stays_what_it_is_decided_upon(db: sqlite3.Connection) -> None:
    hold(db, "h_over")
    hold(db, "h_waits", state="pending", ended_at=None, expires_at=LATER)
    done = shred(transaction(db), of_call(db, "h_over", "h_waits"), EVENT)
    assert (done.holds, done.open, done.proofs, done.inputs) == (("h_over",), ("h_waits",), 0, 0)
    assert gone(db) == {"h_over"} and len(kept(db)) == len(asked(db, "SELECT 1 FROM inputs")) == 1


@pytest.mark.parametrize(
    ("status", "expires_at", "used", "stays"),
    [("active", LATER, 0, True), ("revoked", LATER, 0, False), ("active", NOW, 0, False), ("active", LATER, 5, False)],
)
def test_a_standing_approval_stays_for_as_long_as_calls_can_use_it(
    db: sqlite3.Connection, status: str, expires_at: int, used: int, stays: bool
) -> None:
    name = evidence.keep(transaction(db), "verdict", "the.standing.approval")
    hold(db, "h_1")
    put(db, "verdicts", hold_id="h_1", statement=name, standing="a_1")
    of = {"hold_id": "h_1", "statement": name, "most": 5, "used": used}
    put(db, "standing_approvals", id="a_1", status=status, expires_at=expires_at, **of)
    done = shred(transaction(db), only("h_1"), EVENT)
    assert (done.in_use, done.standing) == ((("a_1",), 0) if stays else ((), 1))
    assert len(asked(db, "SELECT 1 FROM standing_approvals")) == stays
    assert kept(db) == ({digest_of(name)} if stays else set())


def test_what_another_call_rests_on_stays_with_it(db: sqlite3.Connection) -> None:
    name = evidence.keep(transaction(db), "verdict", "the.standing.approval")
    for id_ in ("h_1", "h_2"):
        hold(db, id_)
        put(db, "verdicts", hold_id=id_, statement=name, standing="a_1")
    shred(transaction(db), only("h_1"), EVENT)
    assert kept(db) == {digest_of(name)}
    shred(transaction(db), only("h_2"), EVENT)
    assert kept(db) == set()
