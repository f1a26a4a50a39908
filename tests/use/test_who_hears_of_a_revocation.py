"""The record of a revocation names whoever loses something, so that they find it, and several people no one of them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from mcp_authz.principals import GrantId, PersonName
from mcp_authz.revocation import Revocation
from mcp_authz.store.ports import RevocableKind
from mcp_authz.store.sqlite import SqliteStore
from tests.store.conftest import SEALER
from tests.store.world import (
    BOB,
    Time,
    agent,
    approve,
    event,
    grant,
    held,
    key,
    link,
    open_hold,
    person,
    root,
    session,
    settle,
    state_of,
)  # fmt: skip


@asynccontextmanager
async def two_people(directory: Path) -> AsyncIterator[SqliteStore]:
    """The planner works for alice and for bob, and the coder for it in both sessions."""
    store = SqliteStore.open(directory / "store.db", sealer=SEALER, clock=Time())
    try:
        await settle(store)
        await store.add_person(person(BOB), event())
        await store.add_key(key("user:bob"), event(), retire_others_at=None)
        await store.add_grant(replace(grant("g_2"), subject=BOB), event())
        await store.open_session(replace(session("s_2", "g_2"), subject=BOB), root("l_2", of="s_2"), event())
        await store.add_link(link("l_2_leaf", "l_2", of="s_2"), event())
        await store.add_agent(replace(agent("idle"), owner=PersonName(BOB)), key("agent:idle"), event())
        yield store
    finally:
        await store.aclose()


async def told(store: SqliteStore, kind: RevocableKind, name: str) -> dict[str, Any]:
    stopped = await Revocation(store, Time()).revoke(kind, name, reason="leak", by="user:op")
    assert not stopped.already
    (*_, record) = [one for one in await store.records() if one.event.kind == "revocation"]
    return {what: ones for what, ones in record.event.fields.items() if what in {"agents", "people", "sessions"}}


async def test_where_one_person_loses_something_they_and_their_session_are_named(tmp_path: Path) -> None:
    async with two_people(tmp_path) as store:
        both = ["agent:coder", "agent:planner"]
        assert await told(store, "link", "l_leaf") == {
            "agents": ["agent:coder"], "people": ["user:alice"], "sessions": ["s_1"],
        }  # fmt: skip
        assert await told(store, "session", "s_2") == {"agents": both, "people": ["user:bob"], "sessions": ["s_2"]}
        assert await told(store, "session", "s_1") == {
            "agents": ["agent:planner"], "people": ["user:alice"], "sessions": ["s_1"],
        }  # fmt: skip


async def test_where_several_do_none_of_them_is_named(tmp_path: Path) -> None:
    async with two_people(tmp_path) as store:
        assert await told(store, "agent", "coder") == {"agents": ["agent:coder"]}
        assert await told(store, "key", "agent:planner/1") == {"agents": ["agent:planner"]}


async def test_what_nobody_uses_is_told_to_whom_it_is_of(tmp_path: Path) -> None:
    async with two_people(tmp_path) as store:
        assert await told(store, "agent", "idle") == {"agents": ["agent:idle"]}
        assert await told(store, "key", "user:bob/1") == {"people": ["user:bob"]}
        await store.revoke("grant", GrantId("g_2"), event())
        assert await told(store, "person", BOB) == {"people": ["user:bob"]}
        assert await told(store, "session", "s_2") == {"sessions": ["s_2"]}


async def test_an_approved_call_can_be_called_off_and_one_that_is_over_cannot(tmp_path: Path) -> None:
    async with two_people(tmp_path) as store:
        await open_hold(store, held())
        await approve(store)
        revocation = Revocation(store, Time())
        assert (await revocation.foresee("hold", "h_1")).holds == ("h_1",)
        stopped = await revocation.revoke("hold", "h_1", reason="leak", by="user:op")
        assert (stopped.holds, stopped.links, stopped.already) == (("h_1",), (), False)
        assert (await state_of(store)).value == "cancelled"
        assert (await revocation.revoke("hold", "h_1", reason="again", by="user:op")).already
