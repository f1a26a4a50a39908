"""The SQLite store when the disk, a lock or a caller lets it down: a sentence, nothing half-written, and recovery."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import pytest

from mcp_authz import limits
from mcp_authz.errors import StoreError
from mcp_authz.rules.log import first_break
from mcp_authz.store.offline import stored_head, stored_records
from mcp_authz.store.sqlite import SqliteStore
from mcp_authz.store.transaction import Transaction
from tests.store.conftest import SEALER
from tests.store.permissions import permissions_count
from tests.store.world import SESSION, Time, admission, event, settle

T = TypeVar("T")

SOON = timedelta(milliseconds=50)


@asynccontextmanager
async def opened(path: Path, patience: timedelta = limits.STORE_LOCKED) -> AsyncIterator[SqliteStore]:
    store = SqliteStore.open(path, sealer=SEALER, clock=Time(), patience=patience)
    try:
        yield store
    finally:
        await store.aclose()


def assert_whole(path: Path, records: int) -> None:
    """The log has these many records and hangs together."""
    rows = stored_records(path, limit=10_000)
    assert len(rows) == records
    assert first_break(rows, head=stored_head(path)) is None


@asynccontextmanager
async def busy(store: SqliteStore, statement: str = "SELECT 1") -> AsyncIterator[None]:
    """The store's writer is in the middle of a job, so that whatever comes now waits for the next batch."""
    started, end = threading.Event(), threading.Event()

    def job(tx: Transaction) -> bool:
        tx.db.execute(statement).fetchone()
        started.set()
        return end.wait(30)

    task = soon(store._write(job))
    assert await asyncio.to_thread(started.wait, 30)
    try:
        yield
    finally:
        end.set()
        assert await task


def soon(work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    return asyncio.get_running_loop().create_task(work)


async def test_a_full_disk_refuses_writes_until_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as store:
        await store.append(event())
        async with busy(store, "PRAGMA max_page_count = 1"):
            appends = [soon(store.append(event(text="x" * 20_000))) for _ in range(5)]
            await asyncio.sleep(0)
        answers = await asyncio.gather(*appends, return_exceptions=True)
        assert all(isinstance(answer, StoreError) and "disk is full" in str(answer) for answer in answers)
        assert (await store.head())[0] == 1

        await store.append(event(text="x" * 20_000))  # the next batch connects anew, without the bound
        assert (await store.head())[0] == 2
    assert_whole(path, 2)


async def test_a_file_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path):
        pass
    path.chmod(0o400)
    with permissions_count(), pytest.raises(StoreError, match="make the file and its directory writable"):
        SqliteStore.open(path, sealer=SEALER, clock=Time())


def test_a_directory_that_cannot_be_written_is_refused_at_the_start(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with permissions_count(), pytest.raises(StoreError, match="Permission denied"):
        SqliteStore.open(tmp_path / "store.db", sealer=SEALER, clock=Time())
    tmp_path.chmod(0o700)


async def test_a_file_that_became_read_only_refuses_writes_until_it_is_writable_again(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with permissions_count():
        async with opened(path) as store:
            await store.append(event())
            path.chmod(0o400)
            with pytest.raises(StoreError):
                await store._write(break_the_connection)  # the next write opens the file again
            with pytest.raises(StoreError, match="writable"):
                await store.append(event())
            path.chmod(0o600)
            await store.append(event())
            assert (await store.head())[0] == 2
    assert_whole(path, 2)


def break_the_connection(tx: Transaction) -> None:
    raise sqlite3.OperationalError("a fault of the disk")


async def test_a_database_that_is_gone_refuses_everything_until_it_is_back(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as store:
        await settle(store)
        path.rename(tmp_path / "away")
        with pytest.raises(StoreError, match="the file is gone"):
            await store.admit(admission())
        with pytest.raises(StoreError, match="the file is gone"):
            await store.head()
        assert not path.exists()
        (tmp_path / "away").rename(path)
        assert isinstance(await store.admit(admission()), int)


async def test_another_database_in_its_place_is_not_used(tmp_path: Path) -> None:
    async with opened(tmp_path / "other.db"), opened(tmp_path / "store.db") as store:
        await settle(store)
        (tmp_path / "other.db").rename(tmp_path / "store.db")
        with pytest.raises(StoreError, match="another file is in its place"):
            await store.admit(admission())
        with pytest.raises(StoreError, match="another file is in its place"):
            await store.head()


async def test_a_lock_that_another_program_keeps_is_waited_for_only_so_long(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path, patience=SOON) as store:
        await store.append(event())
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(StoreError, match="keeps it locked"):
                await store.append(event())
            assert (await store.head())[0] == 1  # readers do not wait
            other.execute("ROLLBACK")
        await store.append(event())
    assert_whole(path, 2)


async def test_a_writer_that_never_ends_is_waited_for_only_so_long(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path, patience=SOON) as store, opened(path) as other:
        async with busy(other):
            with pytest.raises(StoreError, match="has kept it locked"):
                await store.append(event())
        await store.append(event())
    assert_whole(path, 1)


async def test_a_write_that_finds_the_queue_full_is_refused_at_once(tmp_path: Path) -> None:
    async with opened(tmp_path / "store.db") as store:
        async with busy(store):
            waiting = [soon(store.append(event(n=n))) for n in range(limits.STORE_QUEUE)]
            await asyncio.sleep(0)
            with pytest.raises(StoreError, match="try again in a moment"):
                await store.append(event())
        await asyncio.gather(*waiting)
        assert (await store.head())[0] == limits.STORE_QUEUE


async def test_what_waits_together_is_written_together_and_one_refusal_stays_one(tmp_path: Path) -> None:
    async with opened(tmp_path / "store.db") as store:
        await settle(store)
        async with busy(store):
            calls = [soon(store.admit(admission(f"c_{n}", once=()))) for n in range(20)]
            bad = soon(store._write(lambda tx: tx.db.execute("INSERT INTO people VALUES (?, ?, ?)", (object(), 1, 1))))
            await asyncio.sleep(0)
        assert all(isinstance(answer, int) for answer in await asyncio.gather(*calls))
        with pytest.raises(StoreError, match="refuses the value"):
            await bad
    assert_whole(tmp_path / "store.db", 27)


async def test_an_unexpected_error_in_a_job_reaches_its_caller_and_undoes_what_it_wrote(tmp_path: Path) -> None:
    def job(tx: Transaction) -> None:
        tx.db.execute("INSERT INTO secrets VALUES ('half', x'00')")
        raise ZeroDivisionError

    async with opened(tmp_path / "store.db") as store:
        with pytest.raises(ZeroDivisionError):
            await store._write(job)
        found = store._reader.ask(lambda tx: tx.db.execute("SELECT 1 FROM secrets WHERE name = 'half'").fetchone())
        assert found is None


async def test_callers_that_stop_waiting_leave_the_store_consistent(tmp_path: Path) -> None:
    async with opened(tmp_path / "store.db") as store:
        await settle(store)
        for number in range(20):
            calls = [soon(store.admit(admission(f"c_{number}_{n}", once=()))) for n in range(10)]
            await asyncio.sleep(0)
            for call in calls[number % 3 :: 2]:
                call.cancel()
            await asyncio.gather(*calls, return_exceptions=True)
        made = await store.session(SESSION)
        assert made is not None and made.calls_made == len(await store.records(kind="decision"))
    assert_whole(tmp_path / "store.db", 7 + made.calls_made)


async def test_a_job_whose_caller_left_before_it_began_does_not_run(tmp_path: Path) -> None:
    async with opened(tmp_path / "store.db") as store:
        async with busy(store):
            call = soon(store.append(event()))
            await asyncio.sleep(0)
            call.cancel()
            await asyncio.sleep(0)
        await store.append(event())
        assert (await store.head())[0] == 1


async def test_closing_writes_what_waits_and_refuses_what_comes_later(tmp_path: Path) -> None:
    async with opened(tmp_path / "store.db") as store:
        waiting = [soon(store.append(event(n=n))) for n in range(50)]
        await asyncio.sleep(0)
        await store.aclose()
        await asyncio.gather(*waiting)
        with pytest.raises(StoreError, match="closed"):
            await store.append(event())
        with pytest.raises(StoreError, match="closed"):
            await store.head()
    assert_whole(tmp_path / "store.db", 50)


async def test_a_log_whose_head_was_tampered_with_takes_no_more_records(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as store:
        await settle(store)
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("UPDATE log_head SET sequence = 3")
        with pytest.raises(StoreError, match="does not fit its records"):
            await store.append(event())
        answer = await asyncio.gather(store.admit(admission()), return_exceptions=True)
        assert isinstance(answer[0], StoreError)
