"""Step 14 in every store: one transaction that takes everything a call uses up, or nothing at all."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from mcp_authz import limits
from mcp_authz.model import HoldId, HoldState
from mcp_authz.principals import AgentName, ClientId, GrantId, LinkId, PersonName, SessionId, Thumbprint
from mcp_authz.store.ports import Admission, Lost, Once, Store
from tests.store.conftest import Stores
from tests.store.world import (
    ALICE,
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
    approve,
    event,
    grant,
    held,
    key,
    link,
    once,
    open_hold,
    pin,
    root,
    session,
    settle,
    state_of,
)


async def calls_made(store: Store) -> tuple[int, ...]:
    found = await store.session(SESSION)
    assert found is not None
    return found.calls_made, *(one.calls_made for one in await store.links(SESSION))


async def assert_lost(store: Store, asked: Admission, reason: str) -> None:
    """The call is lost for this reason, and nothing has changed by asking."""
    before = await store.head(), await calls_made(store), await store.session(SESSION)
    assert await store.admit(asked) == Lost(reason=reason)  # type: ignore[arg-type]
    assert (await store.head(), await calls_made(store), await store.session(SESSION)) == before


async def test_an_admitted_call_is_recorded_counted_and_remembered(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        stores.clock.pass_(MINUTE)
        sequence = await store.admit(admission())

        (record,) = await store.records(call="c_1")
        assert record.sequence == sequence and record.event == admission().event
        assert await calls_made(store) == (1, 1, 1)
        used = await store.session(SESSION)
        assert used is not None and used.last_used_at == START + MINUTE
        assert not await store.remember(once("proof of c_1"))


async def test_a_call_without_a_key_is_admitted_of_a_client_agent_and_of_nobody_else(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await assert_lost(store, admission(key=None), "revoked")
        coder = await store.agent(CODER)
        assert coder is not None
        await store.update_agent(replace(coder, client=ClientId("https://cursor.example/client.json")), event("grant"))
        assert isinstance(await store.admit(admission(key=None)), int)


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        ("link", LEAF, "revoked"),
        ("link", ROOT, "revoked"),
        ("grant", GRANT, "revoked"),
        ("agent", PLANNER, "revoked"),
        ("agent", CODER, "revoked"),
        ("person", ALICE, "revoked"),
        ("key", key("agent:coder").thumbprint, "revoked"),
        ("session", SESSION, "session"),
    ],
)
async def test_nothing_is_admitted_after_a_revocation(stores: Stores, kind: str, name: str, reason: str) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.revoke(kind, name, event())  # type: ignore[arg-type]
        await assert_lost(store, admission(), reason)


@pytest.mark.parametrize(
    "changes",
    [
        {"agent": PLANNER},
        {"key": key("agent:planner").thumbprint},
        {"key": Thumbprint("unknown")},
        {"subject": PersonName("bob")},
        {"grant": GrantId("g_2")},
        {"session": SessionId("s_2")},
        {"links": ()},
        {"links": (LEAF,)},
        {"links": (ROOT,)},
        {"links": (LEAF, ROOT)},
        {"links": (ROOT, LinkId("l_unknown"))},
    ],
)
async def test_what_does_not_belong_together_is_not_admitted(stores: Stores, changes: dict[str, Any]) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.add_grant(grant("g_2"), event())
        await store.open_session(session("s_2"), root("l_2", of="s_2"), event())
        await assert_lost(store, admission(**changes), "revoked")


async def test_an_expired_link_admits_nothing(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.add_link(replace(link("l_short"), expires_at=START + MINUTE), event())
        asked = admission(links=(ROOT, LinkId("l_short")))
        stores.clock.pass_(MINUTE)
        await assert_lost(store, asked, "expired")


async def test_an_expired_grant_admits_nothing_even_if_its_session_would_go_on(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.add_grant(replace(grant("g_2"), expires_at=START + MINUTE), event())
        await store.open_session(session("s_2", "g_2"), root("l_2", of="s_2"), event())
        asked = admission(
            agent=PLANNER,
            key=key("agent:planner").thumbprint,
            grant=GrantId("g_2"),
            session=SessionId("s_2"),
            links=(LinkId("l_2"),),
        )
        assert isinstance(await store.admit(asked), int)
        stores.clock.pass_(MINUTE)
        await assert_lost(store, replace(asked, once=()), "expired")


async def test_a_session_of_another_than_its_grant_was_given_to_admits_nothing(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        stolen = replace(session("s_2"), agent=CODER)
        await store.open_session(stolen, root("l_2", CODER, "s_2"), event())
        await assert_lost(store, admission(session=SessionId("s_2"), links=(LinkId("l_2"),)), "revoked")
        assert [found.id for found, _ in await store.open_links(CODER, START)] == [SESSION]


async def test_a_chain_that_is_too_long_admits_nothing(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        chain = [ROOT, LEAF]
        for depth in range(2, limits.CHAIN_LINKS + 1):
            chain.append(LinkId(f"l_{depth}"))
            await store.add_link(link(chain[-1], chain[-2], depth=depth), event())
        assert isinstance(await store.admit(admission(links=tuple(chain[:-1]))), int)
        await assert_lost(store, admission(links=tuple(chain), once=()), "revoked")


async def test_a_retired_key_admits_nothing(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.add_key(key("agent:coder", "2"), event(), retire_others_at=START + MINUTE)
        assert isinstance(await store.admit(admission()), int)
        stores.clock.pass_(MINUTE)
        await assert_lost(store, admission("c_2"), "expired")
        assert isinstance(await store.admit(admission("c_3", key=key("agent:coder", "2").thumbprint)), int)


async def test_an_expired_session_admits_nothing(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        for call in range(9):
            stores.clock.pass_(HOUR - MINUTE)
            assert isinstance(await store.admit(admission(f"c_{call}", once=())), int)
        stores.clock.pass_(HOUR + 10 * MINUTE)
        await assert_lost(store, admission(), "session")


async def test_a_session_is_idle_two_hours_after_its_last_call(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        stores.clock.pass_(limits.SESSION_IDLE - MINUTE)
        assert isinstance(await store.admit(admission(once=())), int)
        stores.clock.pass_(limits.SESSION_IDLE - MINUTE)
        assert isinstance(await store.admit(admission(once=())), int)
        stores.clock.pass_(limits.SESSION_IDLE)
        await assert_lost(store, admission(once=()), "session")


async def test_another_definition_than_the_pinned_one_is_not_admitted(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await assert_lost(store, admission(definition_digest=b"\x02" * 32), "definition")
        await assert_lost(store, admission(tool="unknown"), "definition")


async def test_a_tool_in_quarantine_is_not_admitted_until_it_is_released(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.quarantine(replace(pin(), changed={"name": "read"}, changed_digest=b"\x02" * 32), event())
        await assert_lost(store, admission(), "definition")
        await store.release("files", "read", event())
        assert isinstance(await store.admit(admission()), int)


async def test_a_proof_counts_once(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        assert isinstance(await store.admit(admission()), int)
        await assert_lost(store, admission(), "replayed")


async def test_a_call_that_shows_the_same_proof_twice_is_refused(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await assert_lost(store, admission(once=(once("a"), once("a"))), "replayed")
        assert await store.remember(once("a"))


async def test_a_refused_call_leaves_its_proofs_unused(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.remember(once("used"))
        await assert_lost(store, admission(once=(once("new"), once("used"))), "replayed")
        assert await store.remember(once("new"))


async def test_proofs_of_two_kinds_do_not_meet(stores: Stores) -> None:
    async with stores.open() as store:
        assert await store.remember(Once(kind="dpop", id="a", expires_at=START + HOUR))
        assert await store.remember(Once(kind="assertion", id="a", expires_at=START + HOUR))


async def test_a_proof_stays_used_after_it_has_expired(stores: Stores) -> None:
    async with stores.open() as store:
        used = Once(kind="proof", id="a", expires_at=START + MINUTE)
        assert await store.remember(used)
        for _ in range(3):
            stores.clock.pass_(limits.ONCE_KEPT)
            await store.append(event())  # what is old may be forgotten now
            assert not await store.remember(used)


async def test_an_approved_hold_is_claimed_by_the_call_that_runs(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await open_hold(store)
        await assert_lost(store, admission(claim=HoldId("h_1")), "claimed")  # nobody has approved it yet
        await approve(store)
        assert isinstance(await store.admit(admission(claim=HoldId("h_1"))), int)
        assert await state_of(store) is HoldState.CLAIMED
        await assert_lost(store, admission("c_2", claim=HoldId("h_1")), "claimed")


async def test_an_approval_is_not_claimed_after_its_time(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await open_hold(store)
        await approve(store)
        stores.clock.pass_(15 * MINUTE)
        await store.append(event())
        await assert_lost(store, admission(claim=HoldId("h_1"), once=()), "claimed")
        assert await state_of(store) is HoldState.EXPIRED


@pytest.mark.parametrize(
    "other",
    [{"session": SessionId("s_2")}, {"actor": PLANNER}, {"subject": PersonName("bob")}, {"server": "mail"}],
)
async def test_an_approval_of_another_call_is_not_claimed(stores: Stores, other: dict[str, Any]) -> None:
    async with stores.open() as store:
        await settle(store)
        await open_hold(store, held(**other))
        await approve(store)
        await assert_lost(store, admission(claim=HoldId("h_1")), "claimed")
        assert await state_of(store) is HoldState.APPROVED


async def test_fifty_concurrent_claims_of_one_approval_give_one_call(stores: Stores) -> None:
    async with stores.open() as store, stores.open() as other:
        await settle(store)
        await open_hold(store)
        await approve(store)
        asked = [admission(f"c_{n}", claim=HoldId("h_1")) for n in range(50)]
        answers = await asyncio.gather(*((store, other)[n % 2].admit(one) for n, one in enumerate(asked)))

        assert sum(isinstance(answer, int) for answer in answers) == 1
        assert [answer for answer in answers if not isinstance(answer, int)] == [Lost(reason="claimed")] * 49
        assert await calls_made(store) == (1, 1, 1)
        assert len(await store.records(kind="decision")) == 1


@pytest.mark.parametrize("budget", [{"session_calls": 1}, {"link_calls": 1}])
async def test_a_budget_that_is_used_up_admits_nothing(stores: Stores, budget: dict[str, int]) -> None:
    async with stores.open() as store:
        await settle(store, **budget)
        assert isinstance(await store.admit(admission()), int)
        await assert_lost(store, admission("c_2"), "budget")
        assert await store.remember(once("proof of c_2"))


async def test_a_call_without_budget_leaves_its_approval_to_others(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store, link_calls=1)
        assert isinstance(await store.admit(admission()), int)
        await open_hold(store)
        await approve(store)
        await assert_lost(store, admission("c_2", claim=HoldId("h_1")), "budget")
        assert await state_of(store) is HoldState.APPROVED


async def test_calls_of_a_descendant_are_taken_from_every_ancestor(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store, link_calls=2)
        await store.add_link(link("l_sub", LEAF, depth=2), event())
        below = admission(links=(ROOT, LEAF, LinkId("l_sub")))
        assert isinstance(await store.admit(below), int)
        assert await calls_made(store) == (1, 1, 1, 1)
        assert isinstance(await store.admit(admission("c_2")), int)
        await assert_lost(store, replace(below, once=()), "budget")


async def test_what_was_taken_away_is_told_before_what_ran_out(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store, link_calls=1)
        assert isinstance(await store.admit(admission()), int)
        await assert_lost(store, admission(), "replayed")  # also without budget
        await store.quarantine(replace(pin(), changed={"name": "read"}, changed_digest=b"\x02" * 32), event())
        await assert_lost(store, admission(), "definition")
        stores.clock.pass_(timedelta(hours=3))
        await assert_lost(store, admission(), "session")
        await store.revoke("link", ROOT, event())
        await assert_lost(store, admission(), "revoked")


async def test_an_agent_admits_with_its_own_chain_only(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        planners = admission(agent=PLANNER, key=key("agent:planner").thumbprint, links=(ROOT,))
        assert isinstance(await store.admit(planners), int)
        await assert_lost(store, replace(planners, links=(ROOT, LEAF), once=()), "revoked")
        await assert_lost(store, replace(planners, agent=AgentName("nobody"), once=()), "revoked")
