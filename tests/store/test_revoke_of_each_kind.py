"""Which waiting calls end with a thing of each kind, read from the tables alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from mcp_authz.store.ports import Event, RevocableKind
from mcp_authz.store.revoke import revoke
from tests.store.tables import NOW, asked, put, tables, transaction
from tests.store.world import START

EVENT = Event(kind="revocation", at=START, fields={})


@pytest.fixture
def db() -> Iterator[sqlite3.Connection]:
    with tables() as it:
        yield it


def hold(db: sqlite3.Connection, id_: str, **values: Any) -> None:
    number = len(asked(db, "SELECT 1 FROM holds")) + 1
    of = {"state": "approved", "session_id": "", "actor": "coder", "chain": '["coder"]', "subject": "alice"}
    put(db, "holds", id=id_, position=number, **{**of, **values})


def verdict(db: sqlite3.Connection, of: str, **values: Any) -> None:
    number = len(asked(db, "SELECT 1 FROM verdicts")) + 1
    said = {"approve": 1, "person": "bob", "signed_by": "k_other", "standing": None}
    put(db, "verdicts", hold_id=of, position=number, **{**said, **values})


def key(db: sqlite3.Connection, name: str, **values: Any) -> None:
    put(db, "keys", thumbprint=name, raw=name.encode().ljust(32), **values)


def cancelled(db: sqlite3.Connection, kind: RevocableKind, name: str) -> set[str]:
    ended = set(revoke(transaction(db), kind, name, EVENT))
    assert ended == {id_ for (id_,) in asked(db, "SELECT id FROM holds WHERE state = 'cancelled'")}
    assert revoke(transaction(db), kind, name, EVENT) == () and len(asked(db, "SELECT 1 FROM log")) == 1
    return set(map(str, ended))


def test_with_a_persons_key_ends_what_was_approved_by_it(db: sqlite3.Connection) -> None:
    key(db, "k_bob", holder="user:bob")
    key(db, "k_coder", holder="agent:coder")
    for id_, approve, signed_by in (("h_by", 1, "k_bob"), ("h_denied", 0, "k_bob"), ("h_other", 1, "k_other")):
        hold(db, id_)
        verdict(db, id_, approve=approve, signed_by=signed_by)
    assert cancelled(db, "key", "k_bob") == {"h_by"}


@pytest.mark.parametrize(
    ("retires_at", "ends"), [(None, set[str]()), (NOW + 1, set[str]()), (NOW, {"h"}), (NOW - 1, {"h"})]
)
def test_with_an_agents_last_key_that_still_counts_end_its_calls(
    db: sqlite3.Connection, retires_at: int | None, ends: set[str]
) -> None:
    key(db, "k_1", holder="agent:coder")
    key(db, "k_2", holder="agent:coder", retires_at=retires_at)
    key(db, "k_3", holder="agent:other")
    hold(db, "h")
    hold(db, "h_other", actor="other", chain='["other"]')
    assert cancelled(db, "key", "k_1") == ends


def test_with_a_passkey_end_the_sign_ins_by_it_and_no_other(db: sqlite3.Connection) -> None:
    put(db, "passkeys", credential=b"\x01" * 16, person="bob")
    for number, credential in enumerate((b"\x01" * 16, b"\x02" * 16)):
        put(db, "sign_ins", digest=bytes([number]) * 32, credential=credential)
    assert cancelled(db, "passkey", "AQEBAQEBAQEBAQEBAQEBAQ") == set()
    assert asked(db, "SELECT credential FROM sign_ins WHERE ended_at IS NOT NULL") == [(b"\x01" * 16,)]


def test_with_a_client_end_its_agents_its_grants_and_the_calls_of_both(db: sqlite3.Connection) -> None:
    put(db, "clients", id="c_1")
    put(db, "agents", name="desk", client_id="c_1")
    put(db, "agents", name="coder", client_id=None)
    for grant, client in (("g_through", "c_1"), ("g_other", "c_2")):
        put(db, "grants", id=grant, agent="coder", client_id=client)
        put(db, "sessions", id=grant.replace("g_", "s_"), grant_id=grant)
    hold(db, "h_its", actor="desk", chain='["desk"]')
    hold(db, "h_through", session_id="s_through")
    hold(db, "h_other", session_id="s_other")
    assert cancelled(db, "client", "c_1") == {"h_its", "h_through"}
    assert asked(db, "SELECT name FROM agents WHERE status = 'active'") == [("coder",)]
    assert asked(db, "SELECT id FROM grants WHERE status = 'active'") == [("g_other",)]


def test_with_a_person_end_the_calls_for_them_and_those_that_ran_on_their_word_alone(db: sqlite3.Connection) -> None:
    put(db, "people", name="bob")
    hold(db, "h_for", subject="bob", state="pending")
    for id_, state in (("h_approved", "approved"), ("h_pending", "pending")):
        hold(db, id_, state=state)
        verdict(db, id_, person="bob")
    hold(db, "h_denied")
    verdict(db, "h_denied", person="bob", approve=0)
    hold(db, "h_other")
    verdict(db, "h_other", person="carol")
    assert cancelled(db, "person", "bob") == {"h_for", "h_approved"}


def test_with_a_standing_approval_ends_what_it_let_through(db: sqlite3.Connection) -> None:
    put(db, "standing_approvals", id="a_1")
    for id_, standing in (("h_by", "a_1"), ("h_other", "a_2"), ("h_own", None)):
        hold(db, id_)
        verdict(db, id_, standing=standing)
    assert cancelled(db, "approval", "a_1") == {"h_by"}


def test_with_an_agent_end_its_calls_and_those_of_whom_it_delegated_to(db: sqlite3.Connection) -> None:
    put(db, "agents", name="coder")
    hold(db, "h_own")
    hold(db, "h_below", actor="tester", chain='["planner","coder","tester"]')
    hold(db, "h_above", actor="planner", chain='["planner"]')
    hold(db, "h_alike", actor="coder2", chain='["coder2"]')
    assert cancelled(db, "agent", "coder") == {"h_own", "h_below"}
