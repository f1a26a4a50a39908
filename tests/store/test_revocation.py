"""The verb that stops things, in every store: what descends from the revoked thing stops, and nothing else."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_authz.errors import NotFound
from mcp_authz.model import HoldId, HoldState
from mcp_authz.principals import AgentName, GrantId, LinkId, SessionId
from mcp_authz.rules.keys import b64url
from mcp_authz.store.ports import Admission, Lost, Store
from mcp_authz.store.schema import migrate
from mcp_authz.store.sqlite import SqliteStore
from tests.store import test_accounts as accounts
from tests.store.conftest import SEALER, Stores
from tests.store.world import (
    ALICE,
    BOB,
    CODER,
    GRANT,
    LEAF,
    PLANNER,
    ROOT,
    SESSION,
    START,
    Time,
    admission,
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
)


async def second_family(store: Store) -> None:
    """The same once more beside the first: grant, session and root of the planner, link and hold of the coder."""
    await store.add_grant(grant("g_2"), event())
    await store.open_session(session("s_2", "g_2"), root("l_2", of="s_2"), event())
    await store.add_link(link("l_2_leaf", "l_2", of="s_2"), event())
    await open_hold(store, held("h_other", session=SessionId("s_2")))


async def waiting(store: Store) -> set[str]:
    return {call.id for call in await store.holds(states=[HoldState.PENDING, HoldState.APPROVED])}


@pytest.mark.parametrize(
    ("kind", "name", "left"),
    [
        ("link", LEAF, {"h_planner", "h_other"}),
        ("link", ROOT, {"h_other"}),
        ("session", SESSION, {"h_other"}),
        ("grant", GRANT, {"h_other"}),
        ("agent", CODER, {"h_planner"}),
        ("agent", PLANNER, set()),
        ("person", ALICE, set()),
        ("person", BOB, {"h_1", "h_approved", "h_planner", "h_other"}),
        ("key", key("agent:coder").thumbprint, {"h_planner"}),
        ("key", key("agent:planner").thumbprint, {"h_1", "h_approved", "h_other"}),
        ("hold", "h_1", {"h_approved", "h_planner", "h_other"}),
    ],
)
async def test_the_waiting_calls_of_exactly_that_lineage_are_cancelled(
    stores: Stores, kind: str, name: str, left: set[str]
) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.add_person(person(BOB), event())
        await second_family(store)
        await open_hold(store)
        await open_hold(store, held("h_approved", b"\x02" * 32))
        await approve(store, "h_approved")
        await open_hold(store, held("h_planner", actor=PLANNER, chain=(PLANNER,)))
        before = await waiting(store)
        head, _ = await store.head()

        cancelled = await store.revoke(kind, name, event("revocation"))  # type: ignore[arg-type]

        assert await waiting(store) == left
        assert set(cancelled) == before - left
        assert {call.id for call in await store.holds(states=[HoldState.CANCELLED])} == set(cancelled)
        assert (await store.head())[0] == head + 1


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("link", LEAF), ("session", SESSION), ("grant", GRANT), ("agent", CODER),
        ("person", ALICE), ("key", key("agent:coder").thumbprint), ("hold", "h_1"),
    ],
)  # fmt: skip
async def test_revoking_twice_is_recorded_once(stores: Stores, kind: str, name: str) -> None:
    async with stores.open() as store:
        await settle(store)
        await open_hold(store)
        await store.revoke(kind, name, event("revocation"))  # type: ignore[arg-type]
        head = await store.head()
        assert await store.revoke(kind, name, event("revocation")) == ()  # type: ignore[arg-type]
        assert await store.head() == head


@pytest.mark.parametrize("kind", ["link", "session", "grant", "agent", "key", "person", "hold"])
async def test_what_does_not_exist_cannot_be_revoked(stores: Stores, kind: str) -> None:
    async with stores.open() as store:
        await settle(store)
        head = await store.head()
        with pytest.raises(NotFound):
            await store.revoke(kind, "nobody", event())  # type: ignore[arg-type]
        assert await store.head() == head


async def test_a_running_call_is_not_called_back_by_the_store(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await open_hold(store)
        await approve(store)
        await store.admit(admission(claim=HoldId("h_1")))
        assert await store.revoke("hold", "h_1", event()) == ()
        assert await store.revoke("session", SESSION, event()) == ()


async def test_a_hold_outlives_a_link_when_its_agent_has_another_one_in_the_session(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.add_link(link("l_again"), event())
        await open_hold(store)
        assert await store.revoke("link", LEAF, event()) == ()
        assert await store.revoke("link", "l_again", event()) == ("h_1",)


async def test_a_hold_ends_with_the_last_link_through_its_agents_whoever_else_delegated_to_its_own(
    stores: Stores,
) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.add_agent(agent("tester"), key("agent:tester"), event())
        await store.add_link(link("l_tester", ROOT, "tester"), event())
        await store.add_link(link("l_through_it", "l_tester", depth=2), event())
        await open_hold(store)
        await open_hold(store, held("h_through_it", b"\x02" * 32, chain=(PLANNER, AgentName("tester"), CODER)))
        assert await store.would_cancel("link", LEAF) == ("h_1",)
        assert await store.revoke("link", LEAF, event()) == ("h_1",)
        assert await store.revoke("agent", "tester", event()) == ("h_through_it",)


async def test_a_hold_outlives_a_key_when_its_agent_has_another_one(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.add_key(key("agent:coder", "2"), event(), retire_others_at=None)
        await open_hold(store)
        assert await store.revoke("key", key("agent:coder").thumbprint, event()) == ()
        assert await store.revoke("key", key("agent:coder", "2").thumbprint, event()) == ("h_1",)


async def test_a_hold_ends_with_a_key_that_a_link_above_it_was_signed_with(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.add_key(key("agent:planner", "2"), event(), retire_others_at=None)
        signed = replace(link("l_signed"), signed_by=key("agent:planner", "2").thumbprint)
        await store.add_link(signed, event())
        await store.revoke("link", LEAF, event())
        await open_hold(store)
        assert await store.revoke("key", key("agent:planner").thumbprint, event()) == ()
        assert await store.revoke("key", key("agent:planner", "2").thumbprint, event()) == ("h_1",)


async def test_an_expired_link_keeps_no_hold_alive(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.add_link(replace(link("l_short"), expires_at=START), event())
        await open_hold(store)
        assert await store.revoke("link", LEAF, event()) == ("h_1",)


# A tree is the list of its parents: node n + 1 hangs under the node that parents[n] names, node 0 is the root.
TREES = st.lists(st.integers(min_value=0), min_size=1, max_size=6).map(
    lambda numbers: [number % (index + 1) for index, number in enumerate(numbers)]
)


def above(node: int, parents: list[int]) -> list[int]:
    return [node] if node == 0 else [*above(parents[node - 1], parents), node]


@given(parents=TREES, kind=st.sampled_from(["link", "agent"]), chosen=st.integers(min_value=0))
@settings(max_examples=40, deadline=None)
def test_revoking_any_node_of_any_tree_stops_exactly_what_hangs_under_it(
    parents: list[int], kind: str, chosen: int
) -> None:
    asyncio.run(_revoke_in_tree(parents, kind, chosen % (len(parents) + 1)))


async def _revoke_in_tree(parents: list[int], kind: str, chosen: int) -> None:
    nodes = range(len(parents) + 1)
    with TemporaryDirectory() as directory:
        store = SqliteStore.open(Path(directory) / "store.db", sealer=SEALER, clock=Time(), synchronous="NORMAL")
        try:
            await plant(store, parents)
            await store.revoke(kind, f"l_{chosen}" if kind == "link" else f"a_{chosen}", event())  # type: ignore[arg-type]
            for node in nodes:
                lives = chosen not in above(node, parents)
                assert bool(await store.open_links(AgentName(f"a_{node}"), START)) is lives
                answer = await store.admit(call_of(node, parents))
                assert isinstance(answer, int) if lives else answer == Lost(reason="revoked")
                hold = await store.hold(HoldId(f"h_{node}"))
                assert hold is not None and (hold.state is HoldState.PENDING) is lives
        finally:
            await store.aclose()


async def plant(store: Store, parents: list[int]) -> None:
    """One agent, link and hold for each node of the tree."""
    await settle(store)
    for node in range(len(parents) + 1):
        await store.add_agent(agent(f"a_{node}"), key(f"agent:a_{node}"), event())
    await store.add_grant(grant("g_tree", "a_0"), event())
    await store.open_session(session("s_tree", "g_tree", "a_0"), root("l_0", "a_0", "s_tree"), event())
    for index, parent in enumerate(parents):
        below = link(f"l_{index + 1}", f"l_{parent}", f"a_{index + 1}", "s_tree", len(above(index + 1, parents)) - 1)
        await store.add_link(below, event())
    for node in range(len(parents) + 1):
        chain = tuple(AgentName(f"a_{one}") for one in above(node, parents))
        await open_hold(
            store, held(f"h_{node}", bytes([node]) * 32, session=SessionId("s_tree"), actor=chain[-1], chain=chain)
        )


def call_of(node: int, parents: list[int]) -> Admission:
    return admission(
        f"c_{node}",
        agent=AgentName(f"a_{node}"),
        key=key(f"agent:a_{node}").thumbprint,
        grant=GrantId("g_tree"),
        session=SessionId("s_tree"),
        links=tuple(LinkId(f"l_{one}") for one in above(node, parents)),
    )


def test_whatever_can_be_revoked_is_counted_when_it_is() -> None:
    """Whoever adds a table with a status, or makes one anew, adds what counts its endings: calls that run need it."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        migrate(db)
        tables = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()]
        have = {name for name in tables if "status" in {row[1] for row in db.execute(f"PRAGMA table_info({name})")}}
        counted = db.execute(
            """SELECT tbl_name FROM sqlite_schema WHERE type = 'trigger' AND sql LIKE '%AFTER UPDATE OF status%'
            AND sql LIKE '%UPDATE endings%'"""
        )
        assert {name for (name,) in counted} == have >= {"agents", "keys", "links", "people", "passkeys", "sessions"}


async def test_each_ending_raises_the_number_and_nothing_else_does(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await open_hold(store)
        for kind, name in (("link", LEAF), ("session", SESSION), ("grant", GRANT), ("agent", CODER), ("person", ALICE)):
            before = await store.endings()
            await store.would_cancel(kind, name)  # type: ignore[arg-type]
            await store.append(event())
            assert await store.endings() == before
            await store.revoke(kind, name, event("revocation"))  # type: ignore[arg-type]
            assert (after := await store.endings()) > before
            await store.revoke(kind, name, event("revocation"))  # type: ignore[arg-type]
            assert await store.endings() == after


async def test_a_passkey_ends_alone_with_who_signed_in_by_it(stores: Stores) -> None:
    async with stores.open() as store:
        await accounts.settle(store)
        await store.open_sign_in(accounts.sign_in(), None, event())
        await store.add_further(accounts.passkey(credential=b"other"), accounts.COOKIE, event())
        await store.open_sign_in(accounts.sign_in(credential=b"other", digest=b"\x09" * 32), None, event())
        assert await store.revoke("passkey", b64url(b"credential"), event("revocation")) == ()
        assert await store.passkey(b"credential") is None and await store.passkey(b"other") is not None
        assert [it.credential for it in await store.sign_ins_of(ALICE)] == [b"other"]
        for unknown in (b64url(b"nobody's"), "no base64url"):
            with pytest.raises(NotFound):
                await store.revoke("passkey", unknown, event())


async def test_a_sweep_of_a_person_uses_up_the_links_that_would_bring_a_passkey(stores: Stores) -> None:
    async with stores.open() as store:
        await store.add_person(person(ALICE), event())
        await store.add_invitation(accounts.invitation(), event())
        swept = await store.sweep("user:alice", START + timedelta(seconds=1), event("revocation"))
        invited = await store.invitation(accounts.TOKEN)
        assert swept.codes == 1 and invited is not None and invited.used_at is not None
