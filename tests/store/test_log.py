"""The log in every store."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from mcp_authz.errors import InputError
from mcp_authz.rules.log import GENESIS, Stored, first_break, record_bytes, record_hash
from mcp_authz.store.ports import Event, Record
from tests.store.conftest import Stores
from tests.store.test_sqlite_faults import opened
from tests.store.world import START, event


def stored(record: Record) -> Stored:
    body = record_bytes(
        sequence=record.sequence,
        previous=record.previous,
        kind=record.event.kind,
        at=record.event.at,
        call=record.event.call,
        fields=record.event.fields,
    )
    return Stored(sequence=record.sequence, body=body, hash=record.hash)


async def test_an_empty_log_has_the_genesis_as_its_head(stores: Stores) -> None:
    async with stores.open() as store:
        assert await store.head() == (0, GENESIS)
        assert await store.records() == ()


async def test_a_record_follows_from_the_one_before(stores: Stores) -> None:
    async with stores.open() as store:
        first, second = await store.append(event("pin", n=1)), await store.append(event("policy", n=2))
        assert (first.sequence, first.previous) == (1, GENESIS)
        assert (second.sequence, second.previous) == (2, first.hash)
        assert second.hash == record_hash(stored(second).body)
        assert await store.head() == (2, second.hash)


async def test_a_record_comes_back_as_it_was_appended(stores: Stores) -> None:
    fields = {"text": 'ü \u2028 \\ " \n', "nested": {"list": [1, 2.5, None, True]}, "seq": 9, "prev": "00"}
    happened = Event(kind="outcome", at=START + timedelta(microseconds=1), call="c_1", fields=fields)
    async with stores.open() as store:
        appended = await store.append(happened)
        assert appended.event == happened
        assert await store.records() == (appended,)


async def test_records_are_found_by_call_and_by_kind(stores: Stores) -> None:
    async with stores.open() as store:
        for number in range(4):
            await store.append(event("decision", f"c_{number % 2}"))
            await store.append(event("outcome", f"c_{number % 2}"))

        assert [one.sequence for one in await store.records(call="c_1")] == [3, 4, 7, 8]
        assert [one.sequence for one in await store.records(kind="outcome")] == [2, 4, 6, 8]
        assert [one.sequence for one in await store.records(call="c_1", kind="outcome")] == [4, 8]
        assert [one.sequence for one in await store.records(after=5, limit=2)] == [6, 7]
        assert await store.records(call="c_2") == ()


async def test_an_event_without_canonical_form_is_not_appended(stores: Stores) -> None:
    async with stores.open() as store:
        with pytest.raises(InputError):
            await store.append(event(n=float("nan")))
        assert await store.head() == (0, GENESIS)


async def test_one_event_that_cannot_be_written_does_not_take_others_with_it(stores: Stores) -> None:
    async with stores.open() as store:
        events = [event(n=float("nan") if n == 3 else n) for n in range(8)]
        answers = await asyncio.gather(*map(store.append, events), return_exceptions=True)
        assert [type(answer) for answer in answers] == [Record] * 3 + [InputError] + [Record] * 4
        assert (await store.head())[0] == 7


async def test_two_processes_append_to_one_chain(stores: Stores) -> None:
    async with stores.open() as store, stores.open() as other:
        appended = await asyncio.gather(*((store, other)[n % 2].append(event(n=n)) for n in range(100)))
        assert sorted(record.sequence for record in appended) == list(range(1, 101))
        rows = map(stored, await other.records())
        assert first_break(rows, head=await store.head()) is None


async def test_writes_that_are_asked_for_in_one_turn_share_one_flush(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path / "store.db") as store:
        flushes, commit = list[None](), store._pen.commit
        monkeypatch.setattr(store._pen, "commit", lambda: flushes.append(commit()))  # type: ignore[func-returns-value]
        await asyncio.gather(*(store.append(event("pin", n=n)) for n in range(20)))
        assert len(flushes) == 1
        await store.append(event("pin", n=20))
        assert len(flushes) == 2
