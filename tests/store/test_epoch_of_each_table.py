"""Each table when a backup takes the store's place: what is open in it is void, what ended since has ended."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mcp_authz.store import epoch
from mcp_authz.store.epoch_since import Carried, carry_losses, carry_over, end_all_ways_in
from mcp_authz.store.revoke import TABLE
from mcp_authz.store.transaction import Transaction
from tests.store.tables import LATER, NOW, asked, put, tables, transaction

LIVES = {"status", "state", "expires_at", "used_at", "ended_at"}
KEPT_AS_THEY_ARE = {"once", "spent", "counted"}  # what was used up stays so, until its own time is over
OVER: dict[str, str] = {
    "sessions": "status = 'revoked'",
    "links": "status = 'revoked'",
    "standing_approvals": "status = 'revoked'",
    "refresh_tokens": f"expires_at = {NOW}",
    "codes": f"expires_at = {NOW}",
    "enrolments": f"expires_at = {NOW}",
    "invitations": f"expires_at = {NOW}",
    "sign_ins": f"ended_at = {NOW}",
    "tasks": f"expires_at = {NOW}",
    "holds": "state IN ('cancelled', 'unknown')",
}


@pytest.fixture
def here() -> Iterator[Transaction]:
    with tables() as db:
        yield transaction(db)


@pytest.fixture
def newer() -> Iterator[sqlite3.Connection]:
    with tables() as db:
        yield db


def test_every_table_of_things_that_end_is_voided_carried_over_or_kept_as_it_is(newer: sqlite3.Connection) -> None:
    tables = [name for (name,) in asked(newer, "SELECT name FROM sqlite_schema WHERE type = 'table'")]
    live = {one for one in tables if LIVES & {row[1] for row in asked(newer, f"PRAGMA table_info({one})")}}
    carried = {table for table, _ in TABLE.values()}
    assert live == OVER.keys() | carried | KEPT_AS_THEY_ARE | {"signing_keys"}


@pytest.mark.parametrize("table", OVER)
def test_what_was_open_in_a_table_is_over_in_the_new_epoch(here: Transaction, table: str) -> None:
    put(here.db, table)
    voided = epoch.begin(here, number=1, dated_from=NOW, sequence=0, reason="the disk broke")
    assert sum(voided.values()) == 1
    assert asked(here.db, f"SELECT count(*) FROM {table} WHERE {OVER[table]}") == [(1,)]  # noqa: S608


def test_a_call_that_ran_in_the_backup_ended_nobody_knows_how(here: Transaction) -> None:
    for number, state in enumerate(("pending", "approved", "claimed")):
        put(here.db, "holds", id=state, state=state, position=number)
    epoch.begin(here, number=1, dated_from=NOW, sequence=0, reason="the disk broke")
    ends = asked(here.db, "SELECT state, ended_at FROM holds ORDER BY position")
    assert ends == [("cancelled", NOW), ("cancelled", NOW), ("unknown", NOW)]


@pytest.mark.parametrize(
    ("column", "had_has", "is_then"),
    [
        ("depth", (3, 1), 1),
        ("depth", (1, 3), 1),
        ("interactive", (1, 0), 0),
        ("interactive", (0, 1), 0),
        ("ends_at", (None, LATER), LATER),
        ("ends_at", (NOW, LATER), NOW),
        ("ends_at", (LATER, None), LATER),
        ("delegates_to", ('["coder","tester"]', '["coder"]'), '["coder"]'),
        ("delegates_to", ('["coder"]', '["coder","tester"]'), '["coder"]'),
        ("roles", ('["reader","writer"]', '["reader"]'), '["reader"]'),
        ("ceiling", ('["pr:*"]', '["pr:read"]'), '["pr:read"]'),
        ("ceiling", ('["pr:read"]', '["pr:*"]'), '["pr:read"]'),
    ],
)
def test_an_agent_has_no_more_than_it_had_in_both_stores(
    here: Transaction, newer: sqlite3.Connection, column: str, had_has: tuple[Any, Any], is_then: Any
) -> None:
    had, has = had_has
    put(here.db, "agents", name="coder", **{column: had})
    put(newer, "agents", name="coder", **{column: has})
    carry_over(here, newer, Carried())
    assert asked(here.db, f"SELECT {column} FROM agents") == [(is_then,)]  # noqa: S608


def test_people_keys_definitions_and_what_was_spent_are_as_narrow_as_in_the_newer_store(
    here: Transaction, newer: sqlite3.Connection
) -> None:
    put(here.db, "people", name="alice", member_of='["admins","developers"]')
    put(newer, "people", name="alice", member_of='["developers","owners"]')
    put(here.db, "keys", thumbprint="k", holder="agent:coder")
    put(newer, "keys", thumbprint="k", holder="agent:coder", retires_at=NOW)
    pin: dict[str, Any] = {"server": "acme", "tool": "deploy", "definition": "{}"}
    put(here.db, "pins", **pin, changed=None, changed_digest=None)
    put(newer, "pins", **pin, changed="{}", changed_digest=b"1" * 32)
    for db, amount in ((here.db, 3), (newer, 8)):
        put(db, "spent", budget="daily", account="alice", amount=amount)
    carried = Carried()
    carry_over(here, newer, carried)
    assert asked(here.db, "SELECT member_of FROM people") == [('["developers"]',)]
    assert asked(here.db, "SELECT retires_at FROM keys") == [(NOW,)]
    assert asked(here.db, "SELECT changed, changed_digest FROM pins") == [("{}", b"1" * 32)]
    assert asked(here.db, "SELECT amount FROM spent") == [(8,)]
    assert carried.ended == {
        "key": ["k"],
        "group": ["admins of user:alice"],
        "definition": ["acme/deploy"],
    }
    put(newer, "spent", budget="daily", account="bob", amount=1)
    put(here.db, "spent", budget="daily", account="bob", amount=9)
    newer.execute("UPDATE spent SET amount = 2 WHERE account = 'alice'")
    carry_over(here, newer, Carried())
    assert sorted(asked(here.db, "SELECT amount FROM spent")) == [(8,), (9,)]


LOST: dict[str, Callable[[sqlite3.Connection], None]] = {
    "identities": lambda db: put(db, "identities", issuer="https://idp", subject="1", person="alice"),
    "evidence": lambda db: put(db, "evidence", kind="call-proof"),
    "inputs": lambda db: put(db, "inputs"),
    "standing_approvals": lambda db: put(db, "standing_approvals"),
}


@pytest.mark.parametrize("table", LOST)
def test_what_was_taken_out_of_a_later_state_is_not_in_the_backup_either(
    here: Transaction, newer: sqlite3.Connection, table: str
) -> None:
    LOST[table](here.db)
    LOST[table](newer)
    carry_losses(here, newer, Carried())
    assert asked(here.db, f"SELECT count(*) FROM {table}") == [(1,)]  # noqa: S608
    newer.execute(f"DELETE FROM {table}")  # noqa: S608
    carry_losses(here, newer, Carried())
    assert asked(here.db, f"SELECT count(*) FROM {table}") == [(0,)]  # noqa: S608


def test_where_nothing_is_known_only_those_who_are_named_have_a_way_in(here: Transaction) -> None:
    for name in ("alice", "bob"):
        put(here.db, "identities", issuer="https://idp", subject=name, person=name)
        put(here.db, "passkeys", credential=name.encode(), person=name)
        put(here.db, "keys", thumbprint=f"k_{name}", holder=f"user:{name}", raw=name.encode().ljust(32))
    for name in ("coder", "tester"):
        put(here.db, "grants", id=f"g_{name}", agent=name, subject="alice")
        put(here.db, "agents", name=name, metadata_url=f"https://{name}.example")
    end_all_ways_in(here, frozenset({"user:alice", "agent:coder"}), "the disk broke")
    for table, name in (("passkeys", "person"), ("keys", "holder"), ("grants", "agent"), ("agents", "name")):
        left = asked(here.db, f"SELECT {name} FROM {table} WHERE status = 'active'")  # noqa: S608
        assert left == [({"person": "alice", "holder": "user:alice"}.get(name, "coder"),)], table
    assert asked(here.db, "SELECT person FROM identities") == [("alice",)]
    assert asked(here.db, "SELECT server, tool, by FROM switched_off") == [("", "", "restore")]
