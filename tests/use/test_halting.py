"""Stopping by the names that people use, and by two at once: what was off is said to be, and nothing slips between."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from mcp_authz.errors import Conflict, NotFound
from mcp_authz.halting import Halting, Off
from mcp_authz.model import HoldId, HoldState
from mcp_authz.naming import client_called, pin_called, subject_called
from mcp_authz.principals import GrantId, LinkId
from mcp_authz.revocation import Revocation
from mcp_authz.store.ports import Lost, RevocableKind
from mcp_authz.store.sqlite import SqliteStore
from tests.store.conftest import SEALER
from tests.store.test_clients import client
from tests.store.world import (
    Time,
    admission,
    approve,
    event,
    grant,
    held,
    link,
    open_hold,
    pin,
    root,
    session,
    settle,
    state_of,
)

WHO = {"reason": "leak", "by": "user:operator"}


@asynccontextmanager
async def two(directory: Path) -> AsyncIterator[tuple[SqliteStore, SqliteStore, Time]]:
    """Two open stores on one database, as two processes have, with the planner's and the coder's session."""
    clock = Time()
    here = SqliteStore.open(directory / "store.db", sealer=SEALER, clock=clock)
    there = SqliteStore.open(directory / "store.db", sealer=SEALER, clock=clock)
    try:
        await settle(here)
        yield here, there, clock
    finally:
        await there.aclose()
        await here.aclose()


async def test_what_is_off_is_said_to_be_off_and_what_only_lies_beside_it_is_not(tmp_path: Path) -> None:
    async with two(tmp_path) as (store, _, clock):
        await store.pin_first([pin("write"), pin("read")], event())
        await open_hold(store)
        halting = Halting(store, clock, servers=frozenset({"files", "quiet"}))
        assert (await halting.foresee_tool("files__write")).holds == ("h_1",)
        assert (await halting.tool_off("files__write", **WHO)).holds == ("h_1",)
        again = await halting.foresee_tool("files__write"), await halting.tool_off("files__write", **WHO)
        assert all(it.already and it.pin is not None and not it.holds for it in again)
        assert not (await halting.foresee_tool("files__read")).already
        assert not (await halting.foresee_server("files")).already
        assert not (await halting.server_off("files", **WHO)).already
        assert await halting.foresee_server("files") == await halting.server_off("files", **WHO) == Off(already=True)
        assert not (await halting.foresee_server("quiet")).already  # it is configured, and has listed nothing yet
        for name in ("other", "", "files__write"):
            with pytest.raises(NotFound, match="there are: files, quiet"):
                await halting.foresee_server(name)
            with pytest.raises(NotFound):
                await halting.server_off(name, **WHO)


async def test_a_name_is_that_of_one_thing_whole(tmp_path: Path) -> None:
    async with two(tmp_path) as (store, _, _clock):
        await store.pin_first([pin("write")], event())
        await store.add_client(client("https://c.example/c", "desk"), event())
        assert (await pin_called(store, "files__write")).tool == "write"
        for name in ("files__writ", "files__writer", "write", ""):
            with pytest.raises(NotFound):
                await pin_called(store, name)
        assert await client_called(store, "desk") == "https://c.example/c"
        assert await client_called(store, "https://c.example/c") == "https://c.example/c"
        assert await subject_called(store, "client:desk") == "client:https://c.example/c"
        assert await subject_called(store, "user:desk") == "user:desk"


ABOVE = [("link", "l_leaf"), ("link", "l_root"), ("session", "s_1"), ("grant", "g_1")]


@pytest.mark.parametrize(("kind", "name"), ABOVE)
async def test_what_another_process_revoked_since_it_was_read_gives_no_link_no_session_and_no_call(
    tmp_path: Path, kind: RevocableKind, name: str
) -> None:
    async with two(tmp_path) as (here, there, _clock):
        await open_hold(here, held("h_old"))
        await approve(here, "h_old")
        above, granted = await here.link(LinkId("l_leaf")), await here.grant(GrantId("g_1"))
        assert above is not None and above.status == "active" and granted is not None
        held_off = await there.revoke(kind, name, event("revocation"))
        assert held_off == ("h_old",)
        with pytest.raises(Conflict):
            await here.add_link(link("l_late", "l_leaf", "coder", depth=2), event())
        if kind == "grant":
            with pytest.raises(Conflict):
                await here.open_session(session("s_late"), root("l_other", of="s_late"), event())
        assert isinstance(await here.admit(admission("c_late")), Lost)
        assert not await here.move_hold(
            HoldId("h_old"), come_from=HoldState.APPROVED, to=HoldState.CLAIMED, event=event()
        )
        assert await state_of(there, "h_old") is HoldState.CANCELLED


@pytest.mark.parametrize(("kind", "name"), [*ABOVE, ("agent", "coder"), ("hold", "h_1")])
async def test_two_who_revoke_the_same_thing_at_once_leave_one_record_and_cancel_each_call_once(
    tmp_path: Path, kind: RevocableKind, name: str
) -> None:
    async with two(tmp_path) as (here, there, clock):
        await open_hold(here)
        got = list[tuple[HoldId, ...]]()

        async def revoke(store: SqliteStore) -> None:
            got.append((await Revocation(store, clock).revoke(kind, name, **WHO)).holds)

        async with anyio.create_task_group() as group:
            for store in (here, there):
                group.start_soon(revoke, store)
        assert sorted(got) == [(), ("h_1",)]
        assert len(await here.records(kind="revocation")) == 1


async def test_two_who_switch_off_the_same_tool_at_once_are_told_who_did(tmp_path: Path) -> None:
    async with two(tmp_path) as (here, there, clock):
        await here.pin_first([pin("write")], event())
        await open_hold(here)
        got = list[Off]()

        async def switch(store: SqliteStore) -> None:
            got.append(await Halting(store, clock, servers=frozenset()).tool_off("files__write", **WHO))

        async with anyio.create_task_group() as group:
            for store in (here, there):
                group.start_soon(switch, store)
        assert sorted((it.already, it.holds) for it in got) == [(False, ("h_1",)), (True, ())]
        assert len(await here.records(kind="revocation")) == 1


async def test_a_tool_that_is_switched_off_while_its_new_definition_is_accepted_stays_off(tmp_path: Path) -> None:
    async with two(tmp_path) as (here, there, clock):
        await here.pin_first([pin("write")], event())
        changed = pin("write", digest=b"2" * 32)
        await here.quarantine(replace(pin("write"), changed=changed.definition, changed_digest=changed.digest), event())
        await Halting(there, clock, servers=frozenset()).tool_off("files__write", **WHO)  # behind the acceptor's back
        await here.accept("files", "write", changed.digest, event())
        assert [(it.server, it.tool) for it in await here.switched_off()] == [("files", "write")]


async def test_everything_before_now_spares_what_is_made_in_that_very_instant_and_nothing_older(tmp_path: Path) -> None:
    async with two(tmp_path) as (here, there, clock):
        now = clock()
        made = replace(grant("g_now"), granted_at=now, expires_at=now + timedelta(days=1))
        older = replace(grant("g_older"), granted_at=now - timedelta(microseconds=1), expires_at=made.expires_at)
        for one in (made, older):
            await here.add_grant(one, event())
        swept = (await Halting(there, clock, servers=frozenset()).sweep("user:alice", now, **WHO)).swept
        ended = swept.ids["grant"]
        assert "g_older" in ended and "g_now" not in ended
