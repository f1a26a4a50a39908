"""Whoever asks `Administration` or `Overview` sees what the table lets them see, and waits for themselves alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_authz import limits
from mcp_authz.administration import NOBODY, Actor, Administration, RolesOfPeople
from mcp_authz.errors import NotFound
from mcp_authz.overview import Overview
from mcp_authz.principals import AgentName, PersonName
from mcp_authz.rules.administration import Role
from mcp_authz.stopping import Stopping
from mcp_authz.store.sqlite import SqliteStore
from mcp_authz.turns import SlowDown
from tests.store.conftest import SEALER
from tests.store.world import Time, event, grant, person, root, session, settle

ROLES = RolesOfPeople(admins=frozenset({"user:ada", "group:ops"}), auditors=frozenset({"user:aud", "group:alice"}))


@asynccontextmanager
async def settled(directory: Path) -> AsyncIterator[tuple[SqliteStore, Administration, Overview]]:
    store = SqliteStore.open(directory / "store.db", sealer=SEALER, clock=Time())
    try:
        await settle(store)
        for name in ("eve", "ada", "aud"):
            await store.add_person(person(name), event())
        administration = Administration(store, Time())
        catalog: Any = None  # nothing here lists tools
        yield store, administration, Overview(administration, store, Time(), catalog)
    finally:
        await store.aclose()


async def sees(asked: Any) -> bool:
    try:
        await asked
    except NotFound:
        return False
    return True


async def test_a_person_and_an_agent_are_seen_by_themselves_their_owner_and_who_reads_everything(
    tmp_path: Path,
) -> None:
    async with settled(tmp_path) as (store, administration, overview):
        coder, alice = AgentName("coder"), PersonName("alice")
        for name, expected in {"alice": True, "ada": True, "aud": True, "eve": False}.items():
            actor = ROLES.actor(person(name))
            assert await sees(overview.person(actor, alice)) is expected, name
            assert await sees(overview.agent(actor, coder)) is expected, name
            assert await sees(administration.agent(actor, coder)) is expected, name
            assert not await sees(overview.person(actor, PersonName("nobody")))
            assert not await sees(overview.agent(actor, AgentName("nobody")))
        await Stopping(store, Time()).stop_all(reason="x", by="user:ada")
        stopped = {name: await administration.stopped(ROLES.actor(person(name))) for name in ("ada", "aud", "alice")}
        assert [name for name, switch in stopped.items() if switch is not None] == ["ada", "aud"]


def test_a_group_is_no_person_of_its_name_nor_the_other_way_round() -> None:
    def roles(name: str, *groups: str) -> frozenset[Role]:
        return ROLES.actor(replace(person(name), groups=frozenset(groups))).roles

    assert roles("ada") == roles("eve", "ops") == {Role.ADMIN}
    assert roles("ops") == roles("eve", "ada") == roles("alice") == roles("eve", "user:ada") == frozenset()
    assert roles("ada", "alice") == {Role.ADMIN, Role.AUDITOR}
    assert NOBODY.actor(person("ada")).roles == frozenset()


async def test_who_is_no_person_does_not_see_what_agents_do_for_themselves(tmp_path: Path) -> None:
    async with settled(tmp_path) as (store, administration, _):
        await store.add_grant(replace(grant("g_own"), subject=PersonName("")), event())
        own = replace(session("s_own", "g_own"), subject=PersonName(""))
        await store.open_session(own, root("l_own", of="s_own"), event())
        nobody = Actor(name="nobody", roles=frozenset(), person=None)
        assert await administration.some_sessions(nobody, are_open=True, limit=9) == ()
        everything = await administration.some_sessions(ROLES.actor(person("aud")), are_open=True, limit=9)
        assert "s_own" in {one.id for one in everything}


async def test_who_wants_to_stop_something_waits_for_no_reading_and_asks_for_no_more_than_a_few_at_once(
    tmp_path: Path,
) -> None:
    async with settled(tmp_path) as (_, administration, _overview):
        alice, ada, refused = ROLES.actor(person("alice")), ROLES.actor(person("ada")), list[str]()
        async with administration.turn(alice):
            with anyio.fail_after(10):
                assert (await administration.foresee(alice, "session", "s_1")).links

        async def foresee(actor: Actor) -> None:
            try:
                await administration.foresee(actor, "session", "s_1")
            except SlowDown:
                refused.append(actor.name)

        async with anyio.create_task_group() as group:
            for _ in range(4 * limits.READERS_WAITING):
                group.start_soon(foresee, alice)
            group.start_soon(foresee, ada)
        assert refused and set(refused) == {"user:alice"}
        with pytest.raises(NotFound):
            await administration.foresee(ROLES.actor(person("eve")), "session", "s_1")
