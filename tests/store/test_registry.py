"""Agents, people, keys, grants, sessions and links, in every store."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mcp_authz import limits
from mcp_authz.errors import Conflict, NotFound
from mcp_authz.principals import AgentName, GrantId, LinkId, PersonName, SessionId, Thumbprint
from tests.store.conftest import Stores
from tests.store.world import (
    ALICE,
    BOB,
    CODER,
    GRANT,
    HOUR,
    LEAF,
    MINUTE,
    PLANNER,
    ROOT,
    SESSION,
    START,
    admission,
    agent,
    event,
    grant,
    key,
    link,
    person,
    root,
    session,
    settle,
)


async def test_everything_comes_back_as_it_was_written(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)

        assert await store.person(ALICE) == person()
        assert await store.people() == (person(),)
        assert await store.agent(CODER) == agent(CODER)
        assert await store.agents() == (agent(CODER), agent(PLANNER))
        assert await store.key(key("agent:coder").thumbprint) == key("agent:coder")
        assert await store.keys_of("agent:coder") == (key("agent:coder"),)
        assert await store.grant(GRANT) == grant()
        assert await store.grants() == await store.grants(agent=PLANNER) == (grant(),)
        assert await store.grants(agent=CODER) == ()
        assert await store.session(SESSION) == session()
        assert await store.sessions() == (session(),)
        assert await store.link(LEAF) == link()
        assert await store.links(SESSION) == (root(), link())


async def test_what_was_never_written_is_none(stores: Stores) -> None:
    async with stores.open() as store:
        assert await store.person(BOB) is None
        assert await store.agent(CODER) is None
        assert await store.key(Thumbprint("nobody's")) is None
        assert await store.grant(GRANT) is None
        assert await store.session(SESSION) is None
        assert await store.link(LEAF) is None
        assert await store.links(SESSION) == ()


async def test_what_one_process_wrote_the_other_reads_at_once(stores: Stores) -> None:
    async with stores.open() as one, stores.open() as other:
        await settle(one)
        assert await other.links(SESSION) == (root(), link())
        await other.revoke("agent", CODER, event("revocation"))
        coder = await one.agent(CODER)
        assert coder is not None and coder.status == "revoked"


async def test_every_change_is_recorded_with_it(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        kinds = [record.event.kind for record in await store.records()]
        assert kinds == ["enrolment", "enrolment", "enrolment", "grant", "session", "delegation", "pin"]


async def test_a_change_that_is_refused_is_not_recorded(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        before = await store.head()
        with pytest.raises(Conflict):
            await store.add_person(person(), event())
        with pytest.raises(Conflict):
            await store.add_grant(grant(), event())
        with pytest.raises(Conflict):
            await store.add_link(link(), event())
        assert await store.head() == before


async def test_the_name_of_an_agent_is_given_once(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.revoke("agent", CODER, event())
        with pytest.raises(Conflict):
            await store.add_agent(agent(CODER), None, event())


async def test_a_key_belongs_to_one_agent_even_after_its_revocation(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.revoke("key", key("agent:coder").thumbprint, event())
        stolen = replace(key("agent:coder"), holder="agent:thief")
        with pytest.raises(Conflict):
            await store.add_agent(agent("thief"), stolen, event())
        assert await store.agent(AgentName("thief")) is None


async def test_the_same_key_bytes_do_not_come_back_under_another_name(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        renamed = replace(key("agent:coder"), thumbprint=Thumbprint("another"), holder="agent:planner")
        with pytest.raises(Conflict):
            await store.add_key(renamed, event(), retire_others_at=None)


async def test_an_agent_can_be_changed(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        changed = replace(agent(CODER), labels={}, interactive=False, depth=0)
        await store.update_agent(changed, event())
        assert await store.agent(CODER) == changed


async def test_a_change_does_not_bring_a_revoked_agent_back(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.revoke("agent", CODER, event())
        with pytest.raises(Conflict):
            await store.update_agent(agent(CODER), event())


async def test_an_unknown_agent_cannot_be_changed(stores: Stores) -> None:
    async with stores.open() as store:
        with pytest.raises(NotFound):
            await store.update_agent(agent(CODER), event())


async def test_a_third_active_key_is_refused(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.add_key(key("agent:coder", "2"), event(), retire_others_at=None)
        with pytest.raises(Conflict):
            await store.add_key(key("agent:coder", "3"), event(), retire_others_at=None)


async def test_a_rotation_ends_the_other_keys_at_the_time_it_names(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.add_key(key("agent:coder", "2"), event(), retire_others_at=START + HOUR)

        old, new = await store.keys_of("agent:coder")
        assert (old.retires_at, new.retires_at) == (START + HOUR, None)
        with pytest.raises(Conflict):
            await store.add_key(key("agent:coder", "3"), event(), retire_others_at=None)
        stores.clock.pass_(HOUR)
        await store.add_key(key("agent:coder", "3"), event(), retire_others_at=None)


async def test_a_refused_rotation_retires_nothing(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.add_key(key("agent:coder", "2"), event(), retire_others_at=None)
        with pytest.raises(Conflict):
            await store.add_key(key("agent:coder", "3"), event(), retire_others_at=START + HOUR)
        assert [one.retires_at for one in await store.keys_of("agent:coder")] == [None, None]


async def test_a_key_needs_a_holder_who_exists(stores: Stores) -> None:
    async with stores.open() as store:
        with pytest.raises(NotFound):
            await store.add_key(key("user:bob"), event(), retire_others_at=None)
        await store.add_person(person(BOB), event())
        await store.add_key(key("user:bob"), event(), retire_others_at=None)
        assert await store.keys_of("user:bob") == (key("user:bob"),)


async def test_a_grant_needs_an_agent_who_exists(stores: Stores) -> None:
    async with stores.open() as store:
        with pytest.raises(NotFound):
            await store.add_grant(grant(), event())


async def test_a_session_opens_only_under_a_live_grant(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        second = session("s_2"), root("l_2", of="s_2")
        stores.clock.pass_(90 * 24 * HOUR)
        with pytest.raises(Conflict):
            await store.open_session(*second, event())
        stores.clock.now = START
        await store.revoke("grant", GRANT, event())
        with pytest.raises(Conflict):
            await store.open_session(*second, event())
        assert await store.session(SessionId("s_2")) is None


@pytest.mark.parametrize(
    ("kind", "name"),
    [("link", ROOT), ("session", SESSION), ("grant", GRANT), ("agent", PLANNER), ("person", ALICE)],
)
async def test_a_link_is_not_added_under_what_was_revoked(stores: Stores, kind: str, name: str) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.revoke(kind, name, event())  # type: ignore[arg-type]
        with pytest.raises(Conflict):
            await store.add_link(link("l_late", LEAF, PLANNER, depth=2), event())
        assert await store.link(LinkId("l_late")) is None


async def test_a_link_is_not_added_under_what_has_expired(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        stores.clock.pass_(9 * HOUR)
        with pytest.raises(Conflict):
            await store.add_link(link("l_late", LEAF, PLANNER, depth=2), event())


async def test_a_link_is_not_added_under_another_session(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.open_session(session("s_2"), root("l_2", of="s_2"), event())
        with pytest.raises(Conflict):
            await store.add_link(link("l_late", ROOT, of="s_2"), event())


async def test_standing_is_everything_a_token_names(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        found = await store.standing(agent=CODER, key=key("agent:coder").thumbprint, person=ALICE, link=LEAF)

        assert (found.agent, found.key, found.person) == (agent(CODER), key("agent:coder"), person())
        assert (found.grant, found.session) == (grant(), session())
        assert found.links == (root(), link())
        assert found.holders == {PLANNER: agent(PLANNER), CODER: agent(CODER)}


async def test_standing_says_none_for_what_is_absent(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        found = await store.standing(
            agent=AgentName("x"), key=Thumbprint("x"), person=PersonName("x"), link=LinkId("x")
        )
        assert (found.agent, found.key, found.person, found.grant, found.session) == (None,) * 5
        assert (found.links, dict(found.holders)) == ((), {})


async def test_standing_is_never_older_than_the_last_revocation(stores: Stores) -> None:
    async with stores.open() as store, stores.open() as other:
        await settle(store)
        await other.revoke("link", ROOT, event())
        found = await store.standing(agent=CODER, key=key("agent:coder").thumbprint, person=ALICE, link=LEAF)
        assert [one.status for one in found.links] == ["revoked", "active"]


async def test_standing_shows_that_a_chain_is_longer_than_it_may_be(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        parent = str(LEAF)
        for depth in range(2, limits.CHAIN_LINKS):
            await store.add_link(link(f"l_{depth}", parent, depth=depth), event())
            parent = f"l_{depth}"
        found = await store.standing(agent=CODER, key=Thumbprint("x"), person=None, link=LinkId(parent))
        assert len(found.links) == limits.CHAIN_LINKS
        await store.add_link(link("l_over", parent, depth=limits.CHAIN_LINKS), event())
        found = await store.standing(agent=CODER, key=Thumbprint("x"), person=None, link=LinkId("l_over"))
        assert len(found.links) == limits.CHAIN_LINKS + 1


async def test_an_open_link_is_one_that_could_carry_a_call(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        assert await store.open_links(CODER, START) == ((session(), link()),)
        assert await store.open_links(PLANNER, START) == ((session(), root()),)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("link", LEAF), ("link", ROOT), ("session", SESSION), ("grant", GRANT),
        ("agent", PLANNER), ("agent", CODER), ("person", ALICE),
    ],
)  # fmt: skip
async def test_a_link_closes_when_anything_above_it_is_revoked(stores: Stores, kind: str, name: str) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.revoke(kind, name, event())  # type: ignore[arg-type]
        assert await store.open_links(CODER, START) == ()


async def test_a_link_closes_when_its_session_is_idle(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        assert len(await store.open_links(CODER, START + limits.SESSION_IDLE - MINUTE)) == 1
        assert await store.open_links(CODER, START + limits.SESSION_IDLE) == ()


async def test_a_link_closes_when_its_time_is_up(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        short = replace(link("l_short"), expires_at=START + MINUTE)
        await store.add_link(short, event())
        assert [found.id for _, found in await store.open_links(CODER, START)] == [LEAF, "l_short"]
        assert [found.id for _, found in await store.open_links(CODER, START + MINUTE)] == [LEAF]


async def test_a_link_closes_when_its_budget_is_used_up(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store, link_calls=1)
        assert len(await store.open_links(CODER, START)) == 1
        assert isinstance(await store.admit(admission()), int)
        assert await store.open_links(CODER, START) == ()
        assert len(await store.open_links(PLANNER, START)) == 1


async def test_other_grants_stay_open(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.add_grant(grant("g_2"), event())
        await store.open_session(session("s_2", "g_2"), root("l_2", of="s_2"), event())
        await store.revoke("grant", GRANT, event())
        assert [found.id for found, _ in await store.open_links(PLANNER, START)] == ["s_2"]
        second = await store.grant(GrantId("g_2"))
        assert second is not None and second.status == "active"
