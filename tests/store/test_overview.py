"""What pages read: a bounded part of the sessions and agents, as far as one person may see it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import pytest

from mcp_authz.principals import AgentName, Link, LinkId, PersonName, Session, SessionId
from mcp_authz.store.overview_port import SessionsAsked
from mcp_authz.store.ports import Store
from tests.store.conftest import Stores
from tests.store.world import (
    ALICE,
    BOB,
    CODER,
    HOUR,
    PLANNER,
    START,
    agent,
    event,
    grant,
    key,
    link,
    person,
    root,
    session,
)

CAROL, EVE = PersonName("carol"), PersonName("eve")
NOON = START + 3 * HOUR


async def furnish(store: Store) -> None:
    """Carol's planner works for alice and for bob, four times each, an hour apart; bob's coder is delegated to once."""
    for name in (ALICE, BOB, CAROL, EVE):
        await store.add_person(person(name), event())
    for known, owner in ((PLANNER, CAROL), (CODER, BOB)):
        await store.add_agent(replace(agent(known), owner=owner), key(f"agent:{known}"), event())
    for who in (ALICE, BOB):
        await store.add_grant(replace(grant(f"g_{who}"), subject=who), event())
        for number in range(4):
            await store.open_session(*_session(who, number), event())
    await store.add_link(link("l_handed", "l_alice3", of="s_alice3"), event())


def _session(who: PersonName, number: int) -> tuple[Session, Link]:
    id_, began = f"{who}{number}", START + number * HOUR
    lasts = {"started_at": began, "last_used_at": began, "expires_at": began + 2 * HOUR}
    one = replace(session(f"s_{id_}", f"g_{who}"), subject=who, **lasts)  # type: ignore[arg-type]
    return one, root(f"l_{id_}", of=one.id)


async def seen(store: Store, whose: PersonName | None, *, are_open: bool, at: datetime = NOON) -> str:
    found = await store.sessions_seen(SessionsAsked(whose=whose, at=at, are_open=are_open, limit=9))
    return " ".join(one.id.removeprefix("s_") for one in found)


async def test_open_sessions_and_those_that_are_over_are_read_apart_newest_first(stores: Stores) -> None:
    async with stores.open() as store:
        await furnish(store)
        assert await seen(store, ALICE, are_open=True) == "alice3 alice2"
        assert await seen(store, ALICE, are_open=False) == "alice1 alice0"
        assert await seen(store, None, are_open=True) == "bob3 alice3 bob2 alice2"
        await store.revoke("grant", "g_alice", event())
        assert await seen(store, None, are_open=True) == "bob3 bob2"
        await store.revoke("agent", PLANNER, event())
        assert await seen(store, None, are_open=True) == ""
        assert await seen(store, None, are_open=False) == "bob3 alice3 bob2 alice2 bob1 alice1 bob0 alice0"


async def test_whoever_owns_the_agent_sees_its_sessions_and_whoever_owns_another_one_does_not(stores: Stores) -> None:
    async with stores.open() as store:
        await furnish(store)
        assert await seen(store, CAROL, are_open=True) == "bob3 alice3 bob2 alice2"
        assert await seen(store, BOB, are_open=True) == "bob3 bob2", "that coder is his does not open alice's session"
        assert await seen(store, EVE, are_open=True) == await seen(store, EVE, are_open=False) == ""


@pytest.mark.parametrize("whose", [None, CAROL])
async def test_pages_follow_each_other_without_gap_or_double(stores: Stores, whose: PersonName | None) -> None:
    async with stores.open() as store:
        await furnish(store)
        told, before = list[str](), None
        asked = SessionsAsked(whose=whose, at=NOON + 9 * HOUR, are_open=False, limit=3)
        while found := await store.sessions_seen(replace(asked, before=before)):
            told += [one.id for one in found]
            before = found[-1].id
        assert len(told) == len(set(told)) == 8


async def test_agents_are_seen_by_who_owns_them_and_by_whom_they_act_for(stores: Stores) -> None:
    async with stores.open() as store:
        await furnish(store)
        told = {who: [one.name for one in await store.agents_seen(who)] for who in (ALICE, BOB, CAROL, EVE, None)}
        assert told == {
            ALICE: [CODER, PLANNER],
            BOB: [CODER, PLANNER],
            CAROL: [PLANNER],
            EVE: [],
            None: [CODER, PLANNER],
        }
        for who, names in told.items():
            assert [name for name in (CODER, PLANNER) if await store.sees_agent(who, name)] == names
        assert not await store.sees_agent(None, AgentName("nobody"))
        assert [one.name for one in await store.agents_seen(None, after=CODER, limit=1)] == [PLANNER]


async def test_links_are_found_by_who_holds_them_and_by_what_they_were_handed_on_from(stores: Stores) -> None:
    async with stores.open() as store:
        await furnish(store)
        ((of, held),) = await store.links_held(CODER, limit=5)
        assert (of.id, held.id) == ("s_alice3", "l_handed")
        assert len(await store.links_held(PLANNER, limit=5)) == 5
        assert [one.id for one in await store.links_below([LinkId("l_alice3")], limit=5)] == ["l_handed"]
        assert await store.links_below([], limit=5) == ()


async def test_a_sessions_mark_is_another_one_when_links_come_end_or_are_used(stores: Stores) -> None:
    async with stores.open() as store:
        await furnish(store)
        stores.clock.pass_(3 * HOUR)
        marks = [await store.session_mark(SessionId("s_alice3"))]
        await store.add_link(link("l_more", "l_alice3", of="s_alice3"), event())
        marks.append(await store.session_mark(SessionId("s_alice3")))
        await store.revoke("link", "l_more", event())
        marks.append(await store.session_mark(SessionId("s_alice3")))
        await store.revoke("session", "s_alice3", event())
        marks.append(await store.session_mark(SessionId("s_alice3")))
        assert len(set(marks)) == 4


async def test_the_agents_that_somebody_owns_are_found_without_reading_those_of_others(stores: Stores) -> None:
    async with stores.open() as store:
        await furnish(store)
        await store.add_agent(replace(agent("walker"), owner=BOB, status="revoked"), key("agent:walker", "w"), event())
        assert await store.agents_owned(BOB) == {CODER, "walker"}
        assert await store.agents_owned(EVE) == frozenset()
        question = "EXPLAIN QUERY PLAN SELECT name FROM agents WHERE owner = 'bob'"
        ((*_, plan),) = store._reader.ask(lambda tx: tx.db.execute(question).fetchall())  # type: ignore[attr-defined]
        assert "COVERING INDEX agents_by_owner" in plan
