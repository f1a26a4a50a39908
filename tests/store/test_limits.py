"""Rate limits and budgets in step 14: what has room is taken with the call, and nothing is taken beyond."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mcp_authz.model import HoldState
from mcp_authz.store.ports import Lost, Rate, Spending, Store
from mcp_authz.store.sqlite import SqliteStore
from tests.store.conftest import SEALER, Stores
from tests.store.world import HOUR, MINUTE, START, Time, admission, approve, open_hold, settle, state_of

SECOND = timedelta(seconds=1)


def rate(count: int, per: timedelta = MINUTE, key: str = "k") -> Rate:
    return Rate(key=key, count=count, per=per)


def spending(
    amount: int, limit: int = 100, *, account: str = "session s_1", budget: str = "money", **more: Any
) -> Spending:
    asked = Spending(budget=budget, account=account, amount=amount, limit=limit, expires_at=START + HOUR)
    return replace(asked, **more)


async def counted(store: Store, table: str) -> int:
    assert isinstance(store, SqliteStore)
    found: int = store._reader.ask(lambda tx: tx.db.execute(f"SELECT count(*) FROM {table}").fetchone())[0]  # noqa: S608
    return found


async def test_a_limit_slides_no_minute_has_more_calls_wherever_it_begins(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        admitted = []
        for number in range(40):  # every ten seconds, three in a minute
            answer = await store.admit(admission(f"c_{number}", rates=(rate(3),)))
            if isinstance(answer, int):
                admitted.append(stores.clock.now)
            stores.clock.pass_(10 * SECOND)
    assert all(later - earlier >= MINUTE for earlier, later in zip(admitted, admitted[3:], strict=False))
    assert len(admitted) == 21


async def test_a_limit_says_when_it_has_room_again_and_then_it_has(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        assert isinstance(await store.admit(admission("c_1", rates=(rate(2),))), int)
        stores.clock.pass_(20 * SECOND)
        assert isinstance(await store.admit(admission("c_2", rates=(rate(2),))), int)
        assert await store.admit(admission("c_3", rates=(rate(2),))) == Lost(reason="rate", wait=40 * SECOND)
        stores.clock.pass_(40 * SECOND - timedelta(microseconds=1))
        assert await store.admit(admission("c_4", rates=(rate(2),))) == Lost(
            reason="rate", wait=timedelta(microseconds=1)
        )
        stores.clock.pass_(timedelta(microseconds=1))
        assert isinstance(await store.admit(admission("c_5", rates=(rate(2),))), int)


async def test_what_one_limit_refuses_counts_towards_no_other_and_takes_nothing(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        await store.admit(admission("c_1", rates=(rate(1, HOUR, "narrow"),)))
        both = (rate(1, key="wide"), rate(1, HOUR, "narrow"))
        before = await store.head()
        lost = await store.admit(admission("c_2", rates=both, budgets=(spending(100),)))
        assert isinstance(lost, Lost) and lost.reason == "rate" and await store.head() == before
        assert isinstance(await store.admit(admission("c_3", rates=both[:1], budgets=(spending(100),))), int)


async def test_a_budget_is_spent_exactly_and_not_by_calls_that_it_has_no_room_for(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        assert isinstance(await store.admit(admission("c_1", budgets=(spending(99),))), int)
        assert await store.admit(admission("c_2", budgets=(spending(2),))) == Lost(reason="spent", budget="money")
        assert isinstance(await store.admit(admission("c_3", budgets=(spending(0), spending(1)))), int)
        assert await store.admit(admission("c_4", budgets=(spending(1),))) == Lost(reason="spent", budget="money")
        other = (spending(100, account="session s_2"), spending(100, budget="time"))
        assert isinstance(await store.admit(admission("c_5", budgets=other)), int)


async def test_a_call_of_two_budgets_takes_from_both_or_from_none(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        asked = (spending(60), spending(60, 50, account="day"))
        assert await store.admit(admission("c_1", budgets=asked)) == Lost(reason="spent", budget="money")
        assert isinstance(await store.admit(admission("c_2", budgets=(spending(100),))), int)


async def test_the_largest_amounts_are_counted_exactly(stores: Stores) -> None:
    most = 10**18
    async with stores.open() as store:
        await settle(store)
        assert isinstance(await store.admit(admission("c_1", budgets=(spending(most - 1, most),))), int)
        assert isinstance(await store.admit(admission("c_2", budgets=(spending(most, most),))), Lost)
        assert isinstance(await store.admit(admission("c_3", budgets=(spending(1, most),))), int)


@pytest.mark.parametrize("limit", [{"rates": (rate(10),)}, {"budgets": (spending(10),)}])
async def test_fifty_calls_at_once_in_two_stores_get_the_ten_that_there_are(stores: Stores, limit: Any) -> None:
    async with stores.open() as one, stores.open() as other:
        await settle(one)
        answers = await asyncio.gather(*((one, other)[n % 2].admit(admission(f"c_{n}", **limit)) for n in range(50)))
        assert sum(isinstance(answer, int) for answer in answers) == 10
        assert len(await one.records(kind="decision")) == 10


async def test_two_processes_share_one_limit_and_one_budget(tmp_path: Path) -> None:
    path, clock = tmp_path / "store.db", Time()
    store = SqliteStore.open(path, sealer=SEALER, clock=clock)
    await settle(store)
    command = (sys.executable, "-m", "tests.store.process", "spend", str(path))
    started = [await asyncio.create_subprocess_exec(*command, name, "2", stdout=PIPE) for name in ("a", "b")]
    said = [
        line.decode() for one in started for line in (await asyncio.wait_for(one.communicate(), 60))[0].splitlines()
    ]
    assert sorted(said) == sorted(["admitted"] * 20 + ["rate"] * 17 + ["spent"] * 27)
    await store.aclose()


async def test_an_approved_call_that_finds_no_room_stays_approved(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        held = await open_hold(store)
        await approve(store)
        await store.admit(admission("c_1", rates=(rate(1),)))
        assert isinstance(await store.admit(admission("c_2", claim=held.id, rates=(rate(1),))), Lost)
        assert await state_of(store) is HoldState.APPROVED
        stores.clock.pass_(MINUTE)
        assert isinstance(await store.admit(admission("c_3", claim=held.id, rates=(rate(1),))), int)


async def test_what_counts_for_nothing_any_more_is_forgotten(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        for number in range(5):
            await store.admit(
                admission(f"c_{number}", rates=(rate(9), rate(9, key=f"k_{number}")), budgets=(spending(1),))
            )
        assert (await counted(store, "counted"), await counted(store, "spent")) == (10, 1)
        stores.clock.pass_(MINUTE)
        await store.admit(admission("c_6", rates=(rate(9),)))
        assert await counted(store, "counted") == 1
        stores.clock.pass_(3 * HOUR)
        await store.admit(admission("c_7"))
        assert (await counted(store, "counted"), await counted(store, "spent")) == (0, 0)
