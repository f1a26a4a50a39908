"""What calls were decided upon, in every store: with its record or not at all, sealed, and gone after a while."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mcp_authz import limits
from mcp_authz.errors import StoreError
from mcp_authz.store.ports import Event, Store
from mcp_authz.store.sqlite import SqliteStore
from tests.store.conftest import SEALER, Stores
from tests.store.test_sqlite_processes import BOUND, assert_whole, lines, opened, process
from tests.store.world import HOUR, START, Time, admission, event, settle

DAY = 24 * HOUR
CANARY = "CANARY-77aa01"


def decision(call: str, **more: Any) -> Event:
    return replace(event("decision", call, n=1), input={"document": {"arguments": {"secret": CANARY}}}, **more)


def files_with(directory: Path, secret: str = CANARY) -> list[str]:
    return [path.name for path in directory.iterdir() if secret.encode() in path.read_bytes()]


async def kept(store: Store) -> list[str | None]:
    """The calls whose input is kept."""
    return [one.record.event.call for one in await store.decisions(limit=1000) if one.input is not None]


async def test_an_input_comes_back_with_its_record_and_is_no_part_of_it(stores: Stores) -> None:
    async with stores.open() as store, stores.open() as other:
        await store.append(decision("c_1"))
        await store.append(event("decision", "c_2"))
        await store.append(event("outcome", "c_1"))
        one, two = await other.decisions()
        assert one.input == {"document": {"arguments": {"secret": CANARY}}} and two.input is None
        assert (one.record.event.call, two.record.event.call) == ("c_1", "c_2")
        assert CANARY not in repr(one) + repr(decision("c_1"))
        assert await other.decisions(after=one.record.sequence) == (two,)
        assert await other.decision_of("c_1") == one and await other.decision_of("c_3") is None


async def test_the_input_of_an_admitted_call_is_written_with_its_record_or_not_at_all(stores: Stores) -> None:
    async with stores.open() as store:
        await settle(store)
        assert isinstance(await store.admit(admission("c_1", event=decision("c_1"))), int)
        lost = await store.admit(admission("c_2", event=decision("c_2"), definition_digest=b"\x02" * 32))
        assert not isinstance(lost, int)
        assert await kept(store) == ["c_1"]


async def test_an_input_that_is_too_large_or_no_json_is_left_out_and_its_record_is_not(stores: Stores) -> None:
    async with stores.open() as store:
        await store.append(replace(decision("c_1"), input={"x": "y" * limits.INPUT_BYTES}))
        await store.append(replace(decision("c_2"), input={"x": float("nan")}))
        assert [one.input for one in await store.decisions()] == [None, None]


async def test_inputs_are_gone_when_their_time_is_over_and_their_records_stay(stores: Stores) -> None:
    async with stores.open() as store:
        await store.append(decision("c_1"))
        stores.clock.pass_(6 * DAY)
        await store.append(decision("c_2", at=stores.clock.now))
        assert await kept(store) == ["c_1", "c_2"]
        stores.clock.pass_(2 * DAY)
        await store.append(event())
        assert await kept(store) == ["c_2"]
        assert len(await store.decisions()) == 2


async def test_of_too_many_the_oldest_are_gone(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "INPUTS_KEPT", 3)
    async with stores.open() as store:
        for number in range(6):
            await store.append(decision(f"c_{number}"))
        await store.append(event())
        assert await kept(store) == ["c_3", "c_4", "c_5"]


async def test_decisions_are_found_from_a_time_on(stores: Stores) -> None:
    async with stores.open() as store:
        assert await store.decisions_before(None) == 0
        for number in range(40):
            at = START + number * HOUR
            await store.append(event("decision", f"c_{number}") if number < 30 else decision(f"c_{number}", at=at))
            await store.append(replace(event("outcome", f"c_{number}"), at=at))
        first = await store.decisions_before(None)
        assert (await store.decisions(after=first))[0].record.event.call == "c_30"
        later = await store.decisions_before(START + timedelta(hours=35, minutes=30))
        assert (await store.decisions(after=later))[0].record.event.call == "c_36"
        assert await store.decisions(after=await store.decisions_before(START + 2 * DAY)) == ()


def open_(path: Path, **more: Any) -> SqliteStore:
    return SqliteStore.open(path / "store.db", sealer=SEALER, clock=Time(), **more)


async def test_an_input_is_sealed_and_counts_only_beside_its_own_record(tmp_path: Path) -> None:
    store = open_(tmp_path)
    await store.append(decision("c_1"))
    await store.append(decision("c_2"))
    assert files_with(tmp_path) == []  # while the write-ahead log has it
    await store.aclose()
    assert files_with(tmp_path) == []
    with sqlite3.connect(tmp_path / "store.db") as db:
        sealed = [row[0] for row in db.execute("SELECT sealed FROM inputs ORDER BY number")]
        db.execute("UPDATE inputs SET sealed = ? WHERE number = 1", (sealed[1],))
    db.close()
    store = open_(tmp_path)
    with pytest.raises(StoreError, match="does not open"):
        await store.decisions()
    await store.aclose()


async def test_what_was_kept_goes_when_nothing_is_to_be_kept_any_more(tmp_path: Path) -> None:
    store = open_(tmp_path)
    await store.append(decision("c_1"))
    await store.aclose()
    store = open_(tmp_path, inputs_kept=timedelta(0))
    await store.append(event())
    assert await kept(store) == []
    await store.aclose()


async def test_each_of_two_processes_keeps_its_inputs_with_its_own_records(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as store, process("keep", path, count=100) as other:
        await lines(other, 1)  # it has begun
        for number in range(100):
            await store.append(replace(event("decision", f"this-{number}"), input={"call": f"this-{number}"}))
        await asyncio.wait_for(other.communicate(), BOUND)
        decided = await store.decisions(limit=1000)
        assert len(decided) == 200
        assert all(one.input == {"call": one.record.event.call} for one in decided)
    assert_whole(path, 200)
