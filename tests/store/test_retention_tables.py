"""From where the log is kept: what the table of its beginning takes, and what holds it where it is."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from mcp_authz.errors import StoreError
from mcp_authz.store.ports import Event
from mcp_authz.store.records import append
from mcp_authz.store.retention import base, needed_from, prune, remove_pruned
from mcp_authz.store.retention_port import LogBase
from tests.store.tables import asked, put, tables, transaction
from tests.store.world import START


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    with tables() as it:
        for number in range(1, 9):
            append(transaction(it), Event(kind="decision", at=START, call=f"c_{number}", fields={}))
        yield it


TOLD = Event(kind="administration", at=START, fields={})


def new_base(db: sqlite3.Connection, at: int, **other: Any) -> LogBase:
    ((hash_,),) = asked(db, f"SELECT hash FROM log WHERE sequence = {at}")  # noqa: S608
    return LogBase(**{"sequence": at, "hash": hash_, "chain": b"c" * 32, "told": 0, **other})


@pytest.mark.parametrize("state", ["pending", "approved", "claimed", "done", "denied", "unknown"])
def test_a_hold_that_is_open_holds_the_log_from_its_first_record_on(db: sqlite3.Connection, state: str) -> None:
    append(transaction(db), Event(kind="approval", at=START, call="h_1", fields={}))
    put(db, "holds", id="h_1", state=state)
    is_open = state in {"pending", "approved", "claimed"}
    assert needed_from(transaction(db)) == (9 if is_open else None)
    put(db, "inputs", sequence=4)
    assert needed_from(transaction(db)) == 4
    with pytest.raises(StoreError, match="record 4 of the log is needed still; nothing was pruned"):
        prune(transaction(db), new_base(db, 4), TOLD)
    assert prune(transaction(db), new_base(db, 3), TOLD) == 10


def test_the_log_begins_behind_a_record_that_it_has_and_never_earlier_again(db: sqlite3.Connection) -> None:
    for wrong in (
        new_base(db, 5, hash=b"x" * 32),
        new_base(db, 5, sequence=6),
        LogBase(sequence=77, hash=b"x" * 32, chain=b"c" * 32, told=0),
    ):
        with pytest.raises(StoreError, match="the log has no such record"):
            prune(transaction(db), wrong, TOLD)
    told = prune(transaction(db), new_base(db, 5), TOLD)
    assert (base(transaction(db)).sequence, base(transaction(db)).told, told) == (5, 9, 9)
    for earlier in (3, 5):
        with pytest.raises(StoreError):
            prune(transaction(db), new_base(db, earlier), TOLD)
    assert [remove_pruned(transaction(db), 2) for _ in range(4)] == [2, 2, 1, 0]
    assert asked(db, "SELECT min(sequence), count(*) FROM log") == [(6, 4)]
