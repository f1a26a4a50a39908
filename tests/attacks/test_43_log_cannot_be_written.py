"""Attack 43: the audit cannot be written. Then nothing is admitted, so that nothing can be forwarded."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from datetime import timedelta
from pathlib import Path

import pytest

from mcp_authz.errors import StoreError
from mcp_authz.model import HoldId, HoldState
from mcp_authz.store.sqlite import SqliteStore
from tests.store.conftest import SEALER
from tests.store.world import SESSION, Time, admission, approve, event, open_hold, settle, state_of


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteStore]:
    """A store in which one hold is approved."""
    store = SqliteStore.open(path, sealer=SEALER, clock=Time(), patience=timedelta(milliseconds=50))
    try:
        await settle(store)
        await open_hold(store)
        await approve(store)
        yield store
    finally:
        await store.aclose()


async def assert_untouched(store: SqliteStore) -> None:
    """No budget was taken, no approval claimed, and nothing recorded."""
    session = await store.session(SESSION)
    assert session is not None and session.calls_made == 0
    assert await state_of(store) is HoldState.APPROVED
    assert await store.records(kind="decision") == ()


CALL = admission(claim=HoldId("h_1"))


async def test_a_full_disk_admits_no_call_and_takes_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path / "store.db") as store:
        await store._write(lambda tx: tx.db.execute("PRAGMA max_page_count = 1").fetchone())
        big = admission(claim=HoldId("h_1"), event=event("decision", "c_1", text="x" * 50_000))
        with pytest.raises(StoreError, match="disk is full"):
            await store.admit(big)
        await assert_untouched(store)
        assert isinstance(await store.admit(CALL), int)  # there is room again


async def test_a_locked_database_admits_no_call_and_takes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as store:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            with pytest.raises(StoreError, match="keeps it locked"):
                await store.admit(CALL)
            other.execute("ROLLBACK")
        await assert_untouched(store)
        assert isinstance(await store.admit(CALL), int)


async def test_a_log_that_refuses_its_record_admits_no_call_and_takes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as store:
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("CREATE TRIGGER full BEFORE INSERT ON log BEGIN SELECT RAISE(ABORT, 'no more'); END")
        with pytest.raises(StoreError):
            await store.admit(CALL)
        await assert_untouched(store)


async def test_a_database_that_is_gone_admits_no_call(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as store:
        path.rename(tmp_path / "away")
        with pytest.raises(StoreError, match="gone"):
            await store.admit(CALL)
        (tmp_path / "away").rename(path)
        await assert_untouched(store)


async def test_a_log_that_was_destroyed_under_the_gateway_admits_no_call(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as store:
        with closing(sqlite3.connect(path)) as other, other:
            other.execute("DROP TABLE log")
        with pytest.raises(StoreError):
            await store.admit(CALL)
        session = await store.session(SESSION)
        assert session is not None and session.calls_made == 0
