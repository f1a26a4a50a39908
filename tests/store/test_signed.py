"""Signed links in every store: all of a registration or nothing, with the statements that prove it and its children."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import anyio
import pytest

from mcp_authz import limits
from mcp_authz.errors import Conflict
from mcp_authz.principals import Agent, AgentName, Key, Link, LinkId, Thumbprint
from mcp_authz.rules.scope import Scope
from mcp_authz.store.ports import Event, Lost, Registration, Statement, Store
from tests.store.conftest import Stores
from tests.store.world import (
    CODER,
    HOUR,
    LEAF,
    PLANNER,
    ROOT,
    SESSION,
    START,
    admission,
    agent,
    event,
    key,
    link,
    root,
    settle,
)

CHILD = AgentName("coder/worker-7")
ABOVE, BELOW = (
    Statement(digest=b"a" * 32, above=None, text="root"),
    Statement(digest=b"b" * 32, above=b"a" * 32, text="x"),
)
WORKER = Key(thumbprint=Thumbprint("worker"), holder=f"agent:{CHILD}", raw=b"w" * 32, added_at=START)
SIGNED = replace(
    link("l_signed", LEAF, CHILD, depth=2),
    holder_key=WORKER.thumbprint,
    signed_by=key("agent:coder").thumbprint,
    statement=BELOW.digest,
)


def child(**changes: object) -> Agent:
    made = Agent(name=CHILD, owner=agent().owner, ceiling=agent().ceiling, parent=CODER, ends_at=START + HOUR)
    return replace(made, **changes)  # type: ignore[arg-type]


def registration(link_: Link = SIGNED, key_: Key = WORKER, agent_: Agent | None = None) -> Registration:
    return Registration(links=(link_,), statements=(ABOVE, BELOW), children=((agent_ or child(), key_),))


def recorded(one: Link | Key) -> Event:
    return event(
        "delegation" if isinstance(one, Link) else "enrolment", new=one.id if isinstance(one, Link) else one.holder
    )


async def new_records(store: Store, after: int) -> list[str]:
    return [record.event.fields["new"] for record in await store.records(after=after)]


async def test_a_signed_link_comes_back_with_its_statements_its_child_and_its_records(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        sequence, _ = await store.head()
        await store.add_signed(registration(), recorded)
        assert await new_records(store, sequence) == [f"agent:{CHILD}", SIGNED.id]
    async with stores.open() as store:
        assert await store.link(SIGNED.id) == SIGNED
        assert await store.statements(BELOW.digest) == (ABOVE, BELOW) and await store.statements(b"c" * 32) == ()
        assert (await store.agent(CHILD), await store.keys_of(f"agent:{CHILD}")) == (child(), (WORKER,))
        standing = await store.standing(agent=CHILD, key=WORKER.thumbprint, person=None, link=SIGNED.id)
        assert [one.id for one in standing.links] == [ROOT, LEAF, SIGNED.id]
        assert standing.keys.keys() == {WORKER.thumbprint, key("agent:coder").thumbprint}


async def test_the_same_registration_again_and_at_once_changes_and_records_nothing(stores: Stores) -> None:
    async with stores.open() as one, stores.open() as other:
        await settle(one)
        sequence, _ = await one.head()
        async with anyio.create_task_group() as group:
            for store in (one, other, one, other):
                group.start_soon(store.add_signed, registration(), recorded)
        await other.add_signed(registration(), recorded)
        assert await new_records(one, sequence) == [f"agent:{CHILD}", SIGNED.id]
        assert len(await other.links(SESSION)) == 3


OTHERS = {
    "another statement": registration(replace(SIGNED, statement=b"c" * 32)),
    "a revoked one": registration(replace(SIGNED, status="revoked")),
    "a link that the gateway made": registration(replace(SIGNED, id=LEAF)),
    "no link above": registration(replace(SIGNED, id=LinkId("l_new"), parent=LinkId("l_none"))),
    "another session": registration(replace(SIGNED, id=LinkId("l_new"), session="s_2")),  # type: ignore[arg-type]
    "a root": registration(replace(SIGNED, id=LinkId("l_new"), parent=None)),
    "another's key": registration(key_=replace(WORKER, thumbprint=key("agent:planner").thumbprint)),
    "another's name": registration(key_=replace(WORKER, holder="agent:planner"), agent_=agent(PLANNER)),
    "another parent": registration(agent_=child(parent=PLANNER)),
    "an older key": registration(key_=replace(WORKER, thumbprint="older", raw=b"o" * 32, added_at=START - HOUR)),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("what", OTHERS)
async def test_what_conflicts_with_what_is_there_leaves_nothing_behind(stores: Stores, what: str) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.add_signed(registration(), recorded)
        sequence, links = (await store.head())[0], await store.links(SESSION)
        with pytest.raises(Conflict):
            await store.add_signed(OTHERS[what], recorded)
        assert (await store.head())[0] == sequence and await store.links(SESSION) == links
        assert await store.keys_of(f"agent:{CHILD}") == (WORKER,) and await store.agent(CHILD) == child()


async def test_a_link_that_was_revoked_does_not_come_back(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.add_signed(registration(), recorded)
        await store.revoke("link", SIGNED.id, event("revocation"))
        with pytest.raises(Conflict, match="revoked"):
            await store.add_signed(registration(), recorded)


async def test_a_link_that_is_revoked_before_it_was_there_never_is(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        ended = replace(SIGNED, holder=CODER, status="revoked")
        await store.add_signed(Registration(links=(ended,), statements=(ABOVE, BELOW)), recorded)
        with pytest.raises(Conflict, match="revoked"):
            await store.add_signed(registration(), recorded)
        assert await store.agent(CHILD) is None and await store.open_links(CHILD, START) == ()


@pytest.mark.parametrize(
    ("kind", "name"),
    [("link", ROOT), ("link", LEAF), ("session", SESSION), ("agent", PLANNER), ("agent", CODER), ("person", "alice")],
)
async def test_nothing_is_registered_below_what_has_ended(stores: Stores, kind: str, name: str) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.revoke(kind, name, event("revocation"))  # type: ignore[arg-type]
        with pytest.raises(Conflict, match="not active"):
            await store.add_signed(registration(), recorded)
        assert await store.agent(CHILD) is None


@pytest.mark.parametrize("thumbprint", [WORKER.thumbprint, key("agent:coder").thumbprint])
async def test_a_revoked_key_ends_the_links_it_signed_or_was_given(stores: Stores, thumbprint: str) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.add_signed(registration(), recorded)
        call = admission(agent=CHILD, key=WORKER.thumbprint, links=(ROOT, LEAF, SIGNED.id))
        assert isinstance(await store.admit(call), int)
        await store.revoke("key", thumbprint, event("revocation"))
        assert await store.open_links(CHILD, START) == ()
        again = admission("c_2", agent=CHILD, key=WORKER.thumbprint, links=(ROOT, LEAF, SIGNED.id))
        assert await store.admit(again) == Lost(reason="revoked")


async def test_a_childs_new_key_ends_the_older_one_and_the_later_end_is_its_end(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.add_signed(registration(), recorded)
        newer = replace(WORKER, thumbprint=Thumbprint("newer"), raw=b"n" * 32, added_at=START + timedelta(seconds=1))
        below = replace(SIGNED, id=LinkId("l_new"), holder_key=newer.thumbprint, statement=b"n" * 32)
        await store.add_signed(registration(below, newer, child(ends_at=START + 2 * HOUR)), recorded)
        assert [one.status for one in await store.keys_of(f"agent:{CHILD}")] == ["revoked", "active"]
        assert [one.id for _, one in await store.open_links(CHILD, START)] == ["l_new"]
        sooner = replace(below, id=LinkId("l_sooner"), statement=b"s" * 32)
        await store.add_signed(registration(sooner, newer, child(ends_at=START + HOUR)), recorded)
        found = await store.agent(CHILD)
        assert found is not None and found.ends_at == START + 2 * HOUR


async def test_a_revoked_childs_name_is_not_given_again(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.add_signed(registration(), recorded)
        await store.revoke("agent", CHILD, event("revocation"))
        newer = replace(WORKER, thumbprint=Thumbprint("newer"), raw=b"n" * 32, added_at=START + timedelta(seconds=1))
        below = replace(SIGNED, id=LinkId("l_new"), holder_key=newer.thumbprint, statement=b"n" * 32)
        with pytest.raises(Conflict, match="revoked"):
            await store.add_signed(registration(below, newer), recorded)


async def test_what_a_parent_is_changed_to_its_children_are_too(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.add_signed(registration(), recorded)
        changed = replace(agent(), labels={"environment": "none"}, ceiling=frozenset({Scope("files:read")}), depth=7)
        await store.update_agent(changed, event())
        found, planner = await store.agent(CHILD), await store.agent(PLANNER)
        assert found == child(labels=changed.labels, ceiling=changed.ceiling) and planner == agent(PLANNER)


async def test_a_session_has_one_root_signed_or_not(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        second = replace(root("l_second"), statement=ABOVE.digest)
        with pytest.raises(Conflict):
            await store.add_signed(Registration(links=(second,), statements=(ABOVE,)), recorded)


async def test_a_session_has_room_for_so_many_delegations_and_an_agent_for_so_many_children(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.add_signed(registration(), recorded)
        there = len(await store.links(SESSION))
        with monkeypatch.context() as patch:
            patch.setattr(limits, "CHILDREN_PER_AGENT", 1)
            second = replace(child(), name=AgentName("coder/worker-8"))
            other = replace(WORKER, thumbprint=Thumbprint("other"), holder="agent:coder/worker-8", raw=b"o" * 32)
            with pytest.raises(Conflict, match="1 children"):
                await store.add_signed(registration(replace(SIGNED, id=LinkId("l_2")), other, second), recorded)
            assert await store.agent(second.name) is None
        with monkeypatch.context() as patch:
            patch.setattr(limits, "LINKS_PER_SESSION", there)
            with pytest.raises(Conflict, match="no room"):
                await store.add_signed(replace(registration(replace(SIGNED, id=LinkId("l_3"))), children=()), recorded)
            with pytest.raises(Conflict, match="no room"):
                await store.add_link(replace(link("l_4", LEAF, CODER, depth=2)), event("delegation"))
            await store.add_signed(registration(), recorded)  # what is there already stays as it is
        assert len(await store.links(SESSION)) == there


async def test_an_agent_has_room_for_so_many_open_delegations_in_a_session(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with stores.open() as store:
        await settle(store)
        held = [one for one in await store.links(SESSION) if one.holder == CODER]
        monkeypatch.setattr(limits, "LINKS_PER_HOLDER", len(held) + 1)
        await store.add_link(replace(held[0], id=LinkId("l_5")), event("delegation"))
        with pytest.raises(Conflict, match="open delegations"):
            await store.add_link(replace(held[0], id=LinkId("l_6")), event("delegation"))
        await store.revoke("link", "l_5", event("revocation"))
        await store.add_link(replace(held[0], id=LinkId("l_7")), event("delegation"))
        found = await store.open_links(CODER, START, since=held[0].issued_at)
        assert {one.id for _, one in found} == {held[0].id, "l_7"}
        assert await store.open_links(CODER, START, since=held[0].issued_at + HOUR) == ()
