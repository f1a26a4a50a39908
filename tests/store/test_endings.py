"""What ends a call always has room, goes first, and is written as soon as the store can be, once."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from mcp_authz import limits
from mcp_authz.errors import StoreError
from mcp_authz.model import HoldId, HoldState
from mcp_authz.rules.log import first_break
from mcp_authz.store.calls_port import Begun, Ending
from mcp_authz.store.offline import stored_head, stored_records
from mcp_authz.store.ports import Event
from mcp_authz.store.sqlite import SqliteStore
from tests.store.conftest import SEALER
from tests.store.test_sqlite_faults import SOON, break_the_connection, busy, opened, soon
from tests.store.world import Time, admission, approve, event, held, open_hold, settle, state_of


def ending(call: str = "c_1", hold: str | None = None, size: int = 2) -> Ending:
    return Ending(
        call=call,
        event=event("outcome", call, outcome="done"),
        hold=None if hold is None else HoldId(hold),
        to=None if hold is None else HoldState.DONE,
        result=None if hold is None else {"content": "x" * size},
    )


async def ends(store: SqliteStore) -> list[str | None]:
    return [it.event.call for it in await store.records(kind="outcome", limit=10_000)]


async def begun_calls(store: SqliteStore) -> int:
    return int(store._reader.ask(lambda tx: tx.db.execute("SELECT count(*) FROM begun").fetchone()[0]))


async def admitted_under_a_hold(store: SqliteStore, call: str = "c_1") -> None:
    await settle(store)
    await open_hold(store)
    await approve(store)
    await store.admit(admission(call, claim=HoldId("h_1")))


async def test_an_outcome_has_room_where_nothing_else_has(tmp_path: Path) -> None:
    async with opened(tmp_path / "store.db") as store:
        await admitted_under_a_hold(store)
        async with busy(store):
            waiting = [soon(store.append(event(n=n))) for n in range(limits.STORE_QUEUE)]
            await asyncio.sleep(0)
            with pytest.raises(StoreError, match="try again in a moment"):
                await store.admit(admission("c_2"))
            end = soon(store.end_call(ending(hold="h_1")))
            await asyncio.sleep(0)
        await asyncio.gather(end, *waiting)
        (outcome,) = await store.records(kind="outcome")
        assert outcome.sequence < (await store.head())[0] - limits.STORE_QUEUE + 2  # before all that waited
        assert await state_of(store) is HoldState.DONE


async def test_an_outcome_that_cannot_be_written_is_written_as_soon_as_it_can_be_and_once(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path, patience=SOON) as store:
        await admitted_under_a_hold(store)
        await store.admit(admission("c_2"))
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            for _ in range(2):  # whoever asks again asks for the same
                with pytest.raises(StoreError, match="keeps it locked"):
                    await store.end_call(ending(hold="h_1"))
            with pytest.raises(StoreError):
                await store.end_call(ending("c_2"))
            with pytest.raises(StoreError):
                await store.admit(admission("c_3"))
            assert store.queued == 2
            other.execute("ROLLBACK")
        async with asyncio.timeout(10):
            while store.queued:  # noqa: ASYNC110 - nobody asks for it
                await asyncio.sleep(0.02)
        assert await ends(store) == ["c_1", "c_2"]
        assert await state_of(store) is HoldState.DONE
        assert await begun_calls(store) == 0
        await store.end_call(ending("c_2"))
        assert await ends(store) == ["c_1", "c_2"]
    assert first_break(stored_records(path), head=stored_head(path)) is None


def with_little_room(store: SqliteStore) -> Callable[[], None]:
    """The store's file grows by ten pages at most each time that it is opened, until what is returned is called."""
    transactions = store._pen._transactions
    connect = transactions._connect

    def small() -> sqlite3.Connection:
        db = connect()
        db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0] + 10}")
        return db

    transactions._connect = small
    return lambda: setattr(transactions, "_connect", connect)


async def test_nothing_is_admitted_before_the_outcomes_that_wait(tmp_path: Path) -> None:
    """A disk with little room left has some for an admission, and none for a large outcome."""
    async with opened(tmp_path / "store.db") as store:
        await settle(store)
        await store.admit(admission("c_1"))
        large = Ending(call="c_1", event=event("outcome", "c_1", text="x" * 200_000))
        free = with_little_room(store)
        with pytest.raises(StoreError):
            await store._write(break_the_connection)  # the next write opens the file again
        await store.append(event(n=1))  # there is room for that
        with pytest.raises(StoreError, match="disk is full"):
            await store.end_call(large)
        for number in range(5):
            with pytest.raises(StoreError, match="disk is full"):
                await store.admit(admission(f"c_more_{number}"))
        free()
        assert isinstance(await store.admit(admission("c_2")), int)
        assert [it.event.call for it in await store.records() if it.event.call] == ["c_1", "c_1", "c_2"]


async def test_an_outcome_is_written_where_what_comes_after_it_has_no_room(tmp_path: Path) -> None:
    async with opened(tmp_path / "store.db") as store:
        await settle(store)
        await store.admit(admission("c_1"))
        with_little_room(store)
        with pytest.raises(StoreError):
            await asyncio.gather(store.end_call(ending()), store._write(break_the_connection))
        with pytest.raises(StoreError, match="disk is full"):
            await store.append(event(text="x" * 200_000))
        assert await ends(store) == ["c_1"]


async def test_so_many_calls_may_have_begun_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CALLS_BEGUN", 3)
    async with opened(tmp_path / "store.db") as store:
        await settle(store)
        for number in range(3):
            await store.admit(admission(f"c_{number}"))
        with pytest.raises(StoreError, match="3 calls run already"):
            await store.admit(admission("c_3"))
        await store.end_call(ending("c_1"))
        assert isinstance(await store.admit(admission("c_4")), int)


async def test_large_results_that_would_wait_for_the_disk_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.db"
    monkeypatch.setattr("mcp_authz.store.writer._BYTES", 10_000)
    async with opened(path) as store:
        await admitted_under_a_hold(store)
        async with busy(store):
            opening = [
                soon(open_hold(store, held(f"h_{n}", bytes([n]) * 32, arguments={"content": "x" * 4_000})))
                for n in range(2, 5)
            ]
            await asyncio.sleep(0)
            end = soon(store.end_call(ending(hold="h_1", size=8_000)))
            await asyncio.sleep(0)
        answers = await asyncio.gather(*opening, return_exceptions=True)
        assert [isinstance(it, StoreError) for it in answers] == [False, False, True]  # the third had no room
        await end
        assert await ends(store) == ["c_1"]  # that it ran is on record; what it said nobody is given
        assert await state_of(store) is HoldState.UNKNOWN


def unknown(left: object) -> Event:
    assert isinstance(left, Begun)
    return event("outcome", left.call, hold=left.hold, tool=left.tool, actor=left.actor)


async def test_calls_of_a_store_that_is_gone_end_once_with_their_holds_and_others_go_on(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as alive:
        async with opened(path) as gone:
            await admitted_under_a_hold(gone)
            await gone.admit(admission("c_2"))
            await alive.admit(admission("c_3"))
            assert await alive.recover(unknown) == ()
        assert await alive.recover(unknown) == (HoldId("h_1"),)
        assert sorted(str(call) for call in await ends(alive)) == ["c_1", "c_2"]
        assert [it.event.fields["hold"] for it in await alive.records(call="c_1", kind="outcome")] == ["h_1"]
        assert await state_of(alive) is HoldState.UNKNOWN
        assert await alive.recover(unknown) == ()
        await alive.end_call(ending("c_3"))
        assert len(await ends(alive)) == 3


async def test_a_store_that_closes_while_it_cannot_be_written_leaves_its_calls_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        async with opened(path, patience=timedelta(milliseconds=20)) as store:
            await settle(store)
            await store.admit(admission("c_1"))
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError):
                await store.end_call(ending("c_1"))
        other.execute("ROLLBACK")
    async with opened(path) as store:
        await store.recover(unknown)
        assert await ends(store) == ["c_1"]


async def test_a_log_that_is_taken_away_is_noticed_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as store:
        for number in range(5):
            await store.append(event(n=number))
        await store.head()  # both connections are open
        (tmp_path / "store.db-wal").unlink()
        with pytest.raises(StoreError, match="was removed while it was in use"):
            await store.append(event())
        with pytest.raises(StoreError, match="was removed while it was in use"):
            await store.head()
        await store.append(event(n=5))
        assert (await store.head())[0] == 6
    assert first_break(stored_records(path), head=stored_head(path)) is None


@pytest.mark.parametrize("kind", ["unlinked", "replaced"])
async def test_what_was_written_into_a_file_that_is_gone_is_not_answered(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "store.db"
    async with opened(tmp_path / "other.db"), opened(path) as store:
        await settle(store)

        def job(tx: object) -> None:  # in the middle of a batch
            if kind == "unlinked":
                path.unlink()
            else:
                (tmp_path / "other.db").rename(path)

        answers = await asyncio.gather(store._write(job), store.admit(admission()), return_exceptions=True)
        assert [isinstance(it, StoreError) for it in answers] == [True, True]
        assert "is gone" in str(answers[1]) or "in its place" in str(answers[1])


async def test_a_store_that_is_gone_is_not_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as store:
        await store.append(event())
    path.rename(tmp_path / "away")
    with pytest.raises(StoreError, match=r"gone, and `store.db.lock` says that there was one; put it back"):
        SqliteStore.open(path, sealer=SEALER, clock=Time())
    assert not path.exists()
    (tmp_path / "away").rename(path)
    async with opened(path) as store:
        assert (await store.head())[0] == 1


async def test_calls_are_under_way_until_they_end_whoever_runs_them_and_not_where_their_process_is_gone(
    tmp_path: Path,
) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as store, opened(path) as other:
        await admitted_under_a_hold(store)
        await other.admit(admission("c_2"))
        assert await store.under_way() == await other.under_way() == ("c_1", "c_2")
        await store.end_call(ending(hold="h_1"))
        assert await other.under_way() == ("c_2",)
        await other.aclose()
        assert await begun_calls(store) == 1 and await store.under_way() == ()
