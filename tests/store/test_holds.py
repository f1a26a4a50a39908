"""Held calls in every store."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from itertools import pairwise

import pytest

from mcp_authz.errors import Conflict, InputError, NotFound
from mcp_authz.model import HoldId, HoldState
from mcp_authz.principals import SessionId
from mcp_authz.rules.hold import EDGES
from mcp_authz.store.ports import Store
from tests.store.conftest import Stores
from tests.store.world import (
    ALICE,
    BOB,
    CODER,
    DIGEST,
    GRANT,
    MINUTE,
    SESSION,
    START,
    approve,
    event,
    held,
    open_hold,
    settle,
    state_of,
    verdict,
)

H1 = HoldId("h_1")


async def lead_to(store: Store, state: HoldState) -> None:
    """The pending hold goes the shortest way to this state, by the table."""
    paths = {HoldState.PENDING: [HoldState.PENDING]}
    for come_from, following in EDGES.items():
        for to in following:
            paths.setdefault(to, [*paths[come_from], to])
    for come_from, to in pairwise(paths[state]):
        assert await store.move_hold(H1, come_from=come_from, to=to, event=None)


async def test_a_hold_comes_back_as_it_was_opened(stores: Stores) -> None:
    async with stores.open() as store:
        assert await open_hold(store) == held()
        assert await store.hold(H1) == held()
        assert await store.find_hold(digest=DIGEST, session=SESSION, actor=CODER) == held()
        assert await store.hold(HoldId("h_2")) is None
        assert await store.find_hold(digest=b"\x02" * 32, session=SESSION, actor=CODER) is None


async def test_an_identical_call_joins_the_hold_that_waits(stores: Stores) -> None:
    async with stores.open() as store:
        await open_hold(store)
        head = await store.head()
        assert (await open_hold(store, held("h_2"))).id == "h_1"
        await approve(store)
        assert (await open_hold(store, held("h_3"))).id == "h_1"
        assert (await store.head())[0] == head[0] + 1  # the verdict


async def test_fifty_identical_calls_open_one_hold(stores: Stores) -> None:
    async with stores.open() as store, stores.open() as other:
        opened = await asyncio.gather(*(open_hold((store, other)[n % 2], held(f"h_{n}")) for n in range(50)))
        assert len({one.id for one in opened}) == 1
        assert len(await store.holds()) == 1


@pytest.mark.parametrize(
    "other", [{"session": SessionId("s_2")}, {"actor": BOB}, {"digest": b"\x02" * 32}], ids=["session", "actor", "call"]
)
async def test_another_call_session_or_actor_has_a_hold_of_its_own(stores: Stores, other: dict[str, object]) -> None:
    async with stores.open() as store:
        await open_hold(store)
        assert (await open_hold(store, replace(held("h_2"), **other))).id == "h_2"  # type: ignore[arg-type]


async def test_after_a_hold_has_ended_the_next_one_is_the_newest(stores: Stores) -> None:
    async with stores.open() as store:
        await open_hold(store)
        await store.move_hold(H1, come_from=HoldState.PENDING, to=HoldState.CANCELLED, event=None)
        assert (await open_hold(store, held("h_2"))).id == "h_2"
        newest = await store.find_hold(digest=DIGEST, session=SESSION, actor=CODER)
        assert newest is not None and newest.id == "h_2"


async def test_an_id_is_given_to_one_hold(stores: Stores) -> None:
    async with stores.open() as store:
        await open_hold(store)
        with pytest.raises(Conflict):
            await open_hold(store, held("h_1", b"\x02" * 32))


async def test_a_session_has_only_so_many_pending_holds(stores: Stores) -> None:
    async with stores.open() as store:
        for n in range(3):
            await store.open_hold(held(f"h_{n}", bytes([n]) * 32), event(), per_session=3, per_agent=99)
        with pytest.raises(Conflict):
            await store.open_hold(held("h_3", b"\x03" * 32), event(), per_session=3, per_agent=99)
        await store.move_hold(H1, come_from=HoldState.PENDING, to=HoldState.DENIED, event=None)
        await store.open_hold(held("h_3", b"\x03" * 32), event(), per_session=3, per_agent=99)


async def test_an_agent_has_only_so_many_pending_holds_over_all_sessions(stores: Stores) -> None:
    async with stores.open() as store:
        await store.open_hold(held("h_1"), event(), per_session=99, per_agent=1)
        with pytest.raises(Conflict):
            other = held("h_2", session=SessionId("s_2"))
            await store.open_hold(other, event(), per_session=99, per_agent=1)


async def test_fifty_calls_at_once_do_not_pass_the_bound(stores: Stores) -> None:
    async with stores.open() as store, stores.open() as other:
        calls = [held(f"h_{n}", bytes([n]) * 32) for n in range(50)]
        await asyncio.gather(
            *(open_hold((store, other)[n % 2], call, most=7) for n, call in enumerate(calls)), return_exceptions=True
        )
        assert len(await store.holds(states=[HoldState.PENDING])) == 7


@pytest.mark.parametrize(
    ("kind", "name"), [("session", SESSION), ("agent", CODER), ("person", ALICE), ("grant", GRANT)]
)
async def test_no_hold_is_opened_for_what_was_revoked(stores: Stores, kind: str, name: str) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.revoke(kind, name, event())  # type: ignore[arg-type]
        with pytest.raises(Conflict):
            await open_hold(store)


async def test_a_hold_can_be_opened_before_there_is_a_session(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        assert (await open_hold(store, held(session=SessionId("")))).state is HoldState.PENDING


async def test_a_verdict_moves_the_hold_and_is_kept(stores: Stores) -> None:
    async with stores.open() as store:
        await open_hold(store)
        first = await store.give_verdict(verdict(by=ALICE), after=0, to=HoldState.PENDING, event=event("approval"))
        assert (first.state, first.verdicts, first.ended_at) == (HoldState.PENDING, (verdict(by=ALICE),), None)
        second = await store.give_verdict(verdict(by=BOB), after=1, to=HoldState.APPROVED, event=event("approval"))
        assert second.state is HoldState.APPROVED
        assert second.verdicts == (verdict(by=ALICE), verdict(by=BOB))
        assert second == await store.hold(H1)


async def test_a_denial_ends_the_hold(stores: Stores) -> None:
    async with stores.open() as store:
        await open_hold(store)
        stores.clock.pass_(MINUTE)
        answer = verdict(approve=False)
        denied = await store.give_verdict(answer, after=0, to=HoldState.DENIED, event=event("approval"))
        assert (denied.state, denied.ended_at) == (HoldState.DENIED, START + MINUTE)


async def test_a_verdict_over_what_somebody_has_answered_meanwhile_is_refused(stores: Stores) -> None:
    async with stores.open() as store:
        await open_hold(store)
        await store.give_verdict(verdict(by=ALICE), after=0, to=HoldState.PENDING, event=event())
        with pytest.raises(Conflict):
            await store.give_verdict(verdict(by=BOB), after=0, to=HoldState.APPROVED, event=event())
        assert await state_of(store) is HoldState.PENDING


async def test_a_verdict_after_more_than_there_are_is_refused(stores: Stores) -> None:
    async with stores.open() as store:
        await open_hold(store)
        with pytest.raises(Conflict):
            await store.give_verdict(verdict(), after=1, to=HoldState.APPROVED, event=event())


async def test_a_person_answers_once(stores: Stores) -> None:
    async with stores.open() as store:
        await open_hold(store)
        await store.give_verdict(verdict(), after=0, to=HoldState.PENDING, event=event())
        with pytest.raises(Conflict):
            await store.give_verdict(verdict(), after=1, to=HoldState.APPROVED, event=event())


async def test_of_two_verdicts_at_once_one_counts(stores: Stores) -> None:
    async with stores.open() as store, stores.open() as other:
        await open_hold(store)
        answers = await asyncio.gather(
            store.give_verdict(verdict(by=ALICE), after=0, to=HoldState.APPROVED, event=event()),
            other.give_verdict(verdict(by=BOB, approve=False), after=0, to=HoldState.DENIED, event=event()),
            return_exceptions=True,
        )
        assert [type(answer) for answer in answers].count(Conflict) == 1
        found = await store.hold(H1)
        assert found is not None and len(found.verdicts) == 1


@pytest.mark.parametrize("state", [state for state in HoldState if state is not HoldState.PENDING])
async def test_only_a_pending_hold_takes_a_verdict(stores: Stores, state: HoldState) -> None:
    async with stores.open() as store:
        await open_hold(store)
        await lead_to(store, state)
        with pytest.raises(Conflict):
            await store.give_verdict(verdict(), after=0, to=HoldState.APPROVED, event=event())
        assert await state_of(store) is state


async def test_a_verdict_leads_only_where_the_table_does(stores: Stores) -> None:
    async with stores.open() as store:
        await open_hold(store)
        with pytest.raises(Conflict):
            await store.give_verdict(verdict(), after=0, to=HoldState.CLAIMED, event=event())


async def test_a_verdict_needs_a_hold(stores: Stores) -> None:
    async with stores.open() as store:
        with pytest.raises(NotFound):
            await store.give_verdict(verdict(), after=0, to=HoldState.APPROVED, event=event())


@pytest.mark.parametrize("come_from", list(HoldState))
@pytest.mark.parametrize("to", list(HoldState))
async def test_a_hold_moves_along_the_edges_of_the_table_and_no_other(
    stores: Stores, come_from: HoldState, to: HoldState
) -> None:
    async with stores.open() as store:
        await open_hold(store)
        await lead_to(store, come_from)
        if to in EDGES[come_from]:
            assert await store.move_hold(H1, come_from=come_from, to=to, event=event())
            assert await state_of(store) is to
        else:
            with pytest.raises(Conflict):
                await store.move_hold(H1, come_from=come_from, to=to, event=event())
            assert await state_of(store) is come_from


async def test_of_fifty_that_move_a_hold_one_did(stores: Stores) -> None:
    async with stores.open() as store, stores.open() as other:
        await open_hold(store)
        await approve(store)
        head, _ = await store.head()
        moved = await asyncio.gather(
            *(
                (store, other)[n % 2].move_hold(H1, come_from=HoldState.APPROVED, to=HoldState.CLAIMED, event=event())
                for n in range(50)
            )
        )
        assert moved.count(True) == 1
        assert (await store.head())[0] == head + 1


async def test_the_result_of_a_call_that_ran_is_kept(stores: Stores) -> None:
    async with stores.open() as store:
        await open_hold(store)
        await lead_to(store, HoldState.CLAIMED)
        result = {"content": [{"type": "text", "text": "done"}], "number": 2**60}
        await store.move_hold(H1, come_from=HoldState.CLAIMED, to=HoldState.DONE, event=None, result=result)
        found = await store.hold(H1)
        assert found is not None and found.result == result and found.ended_at == START


async def test_a_result_that_is_no_json_leaves_the_hold_as_it_was(stores: Stores) -> None:
    async with stores.open() as store:
        await open_hold(store)
        await lead_to(store, HoldState.CLAIMED)
        with pytest.raises(InputError):
            await store.move_hold(
                H1, come_from=HoldState.CLAIMED, to=HoldState.DONE, event=None, result={"x": float("nan")}
            )
        assert await state_of(store) is HoldState.CLAIMED


@pytest.mark.parametrize("approved", [False, True])
async def test_a_hold_whose_time_is_up_reads_as_expired_at_once(stores: Stores, approved: bool) -> None:
    async with stores.open() as store:
        await open_hold(store)
        if approved:
            await approve(store)
        stores.clock.pass_(15 * MINUTE)

        found = await store.hold(H1)
        assert found is not None
        assert (found.state, found.ended_at) == (HoldState.EXPIRED, START + 15 * MINUTE)
        assert await store.find_hold(digest=DIGEST, session=SESSION, actor=CODER) == found
        assert await store.holds() == await store.holds(states=[HoldState.EXPIRED]) == (found,)
        assert await store.holds(states=[HoldState.PENDING, HoldState.APPROVED]) == ()


async def test_the_next_write_of_any_kind_records_the_expiry_once(stores: Stores) -> None:
    async with stores.open() as store:
        await open_hold(store)
        stores.clock.pass_(16 * MINUTE)
        await store.append(event())
        await store.append(event())

        expired = [one.event for one in await store.records(kind="approval") if one.event.fields.get("state")]
        assert [(one.at, one.fields["hold"], one.fields["state"]) for one in expired] == [
            (START + 16 * MINUTE, "h_1", "expired")
        ]


async def test_an_expired_hold_takes_no_verdict_and_no_room(stores: Stores) -> None:
    async with stores.open() as store:
        await open_hold(store, most=1)
        stores.clock.pass_(15 * MINUTE)
        with pytest.raises(Conflict):
            await approve(store)
        later = held("h_2", asked_at=stores.clock.now, expires_at=stores.clock.now + MINUTE)
        assert (await open_hold(store, later, most=1)).id == "h_2"


async def test_a_claimed_hold_does_not_expire(stores: Stores) -> None:
    async with stores.open() as store:
        await open_hold(store)
        await lead_to(store, HoldState.CLAIMED)
        stores.clock.pass_(60 * MINUTE)
        await store.append(event())
        assert await state_of(store) is HoldState.CLAIMED


async def test_holds_are_listed_by_state_oldest_first(stores: Stores) -> None:
    async with stores.open() as store:
        for n in range(3):
            await open_hold(store, held(f"h_{n}", bytes([n]) * 32))
        await store.move_hold(H1, come_from=HoldState.PENDING, to=HoldState.DENIED, event=None)
        assert [one.id for one in await store.holds()] == ["h_0", "h_1", "h_2"]
        assert [one.id for one in await store.holds(states=[HoldState.PENDING])] == ["h_0", "h_2"]
        assert await store.holds(states=[]) == ()


async def test_what_a_process_that_is_gone_had_claimed_ends_as_unknown(stores: Stores) -> None:
    async with stores.open() as store:
        await open_hold(store)
        await approve(store)
        await store.move_hold(H1, come_from=HoldState.APPROVED, to=HoldState.CLAIMED, event=None)
    async with stores.open() as store:
        assert await store.recover(lambda call: event("outcome", hold=call.id)) == (H1,)
        assert await state_of(store) is HoldState.UNKNOWN
        (record,) = await store.records(kind="outcome")
        assert record.event.fields == {"hold": "h_1"}
        assert await store.recover(lambda call: event("outcome", hold=call.id)) == ()


async def test_what_a_living_process_has_claimed_stays_claimed(stores: Stores) -> None:
    async with stores.open() as gone:
        await open_hold(gone, held("h_gone", b"\x02" * 32))
        for come_from, to in pairwise((HoldState.PENDING, HoldState.APPROVED, HoldState.CLAIMED)):
            await gone.move_hold(HoldId("h_gone"), come_from=come_from, to=to, event=None)
    async with stores.open() as store, stores.open() as other:
        await open_hold(store)
        await lead_to(store, HoldState.CLAIMED)
        assert await other.recover(lambda call: event("outcome")) == ("h_gone",)
        assert await store.recover(lambda call: event("outcome")) == ()
        assert await state_of(store) is HoldState.CLAIMED
