"""The SQLite store and its files: who may read them, what is sealed in them, and which files it refuses."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path

import pytest

from mcp_authz import limits
from mcp_authz.errors import StoreError, StoreUpgraded
from mcp_authz.model import HoldId, HoldState
from mcp_authz.rules.keys import Sealer
from mcp_authz.rules.log import GENESIS, first_break
from mcp_authz.store.offline import stored_head, stored_records
from mcp_authz.store.schema import MIGRATIONS
from mcp_authz.store.sqlite import SqliteStore
from tests.store.conftest import SEALER
from tests.store.permissions import permissions_count
from tests.store.world import HOUR, Time, admission, approve, event, held, once, open_hold, settle


@asynccontextmanager
async def opened(path: Path, sealer: Sealer = SEALER) -> AsyncIterator[SqliteStore]:
    store = SqliteStore.open(path, sealer=sealer, clock=Time())
    try:
        yield store
    finally:
        await store.aclose()


def refusal(path: Path, sealer: Sealer = SEALER) -> str:
    with pytest.raises(StoreError) as refused:
        SqliteStore.open(path, sealer=sealer, clock=Time())
    return str(refused.value)


def names(directory: Path) -> set[str]:
    return {file.name for file in directory.iterdir()}


def contents(directory: Path) -> bytes:
    return b"".join(file.read_bytes() for file in directory.iterdir())


async def test_only_this_user_can_read_the_files(tmp_path: Path) -> None:
    path = tmp_path / "made" / "store.db"
    mask = os.umask(0)
    try:
        async with opened(path) as store:
            await store.append(event())
            files = list(path.parent.iterdir())
            assert len(files) == 6  # database, write-ahead log, shared memory, write lock, instance, witness
            assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    finally:
        os.umask(mask)


async def test_a_file_that_others_could_read_is_closed_to_them(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.touch(0o644)
    async with opened(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_closed_store_leaves_the_database_and_its_lock(tmp_path: Path) -> None:
    async with opened(tmp_path / "store.db"):
        pass
    assert names(tmp_path) == {"store.db", "store.db.lock", "store.db.witness"}


async def test_lock_files_of_dead_processes_are_swept_away(tmp_path: Path) -> None:
    left = tmp_path / "store.db.i_dead.lock"
    left.touch(0o600)
    async with opened(tmp_path / "store.db"), opened(tmp_path / "store.db"):
        assert not left.exists()
        assert len([name for name in names(tmp_path) if name.startswith("store.db.i_")]) == 2


async def test_it_is_durable_and_strict(tmp_path: Path) -> None:
    async with opened(tmp_path / "store.db") as store:
        ask = store._reader.ask
        assert ask(lambda tx: tx.db.execute("PRAGMA journal_mode").fetchone()) == ("wal",)
        assert ask(lambda tx: tx.db.execute("PRAGMA synchronous").fetchone()) == (2,)
        assert ask(lambda tx: tx.db.execute("PRAGMA foreign_keys").fetchone()) == (1,)
        tables = ask(
            lambda tx: tx.db.execute(
                "SELECT name FROM pragma_table_list WHERE type = 'table' AND NOT strict AND name NOT LIKE 'sqlite_%'"
            ).fetchall()
        )
        assert tables == []


async def test_no_argument_result_or_secret_can_be_read_in_the_files(tmp_path: Path) -> None:
    async with opened(tmp_path / "store.db") as store:
        await settle(store)
        await open_hold(store, held(arguments={"content": "canary-argument"}))
        await approve(store)
        await store.admit(admission(claim=HoldId("h_1")))
        await store.move_hold(
            HoldId("h_1"),
            come_from=HoldState.CLAIMED,
            to=HoldState.DONE,
            event=None,
            result={"content": "canary-result"},
        )
        await store.secret("issuer", lambda: b"canary-secret")
        everything = contents(tmp_path)  # also the write-ahead log
    assert b"canary" not in everything + contents(tmp_path)
    assert b"h_1" in everything


async def test_sealed_arguments_do_not_open_in_another_row(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as store:
        await open_hold(store, held("h_1"))
        await open_hold(store, held("h_2", b"\x02" * 32))
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE holds SET arguments = (SELECT arguments FROM holds WHERE id = 'h_2') WHERE id = 'h_1'")
    async with opened(path) as store:
        with pytest.raises(StoreError, match="holds:h_1:arguments"):
            await store.hold(HoldId("h_1"))
        assert await store.hold(HoldId("h_2")) is not None


async def test_another_sealing_key_is_refused_at_the_start(tmp_path: Path) -> None:
    async with opened(tmp_path / "store.db"):
        pass
    assert "not the key the store was made with" in refusal(tmp_path / "store.db", Sealer(b"x" * 32))


async def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path):
        pass
    with closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    assert "written by a newer version" in refusal(path)


def test_the_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE cookies (name)")
    assert "another program" in refusal(path)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT name FROM sqlite_schema").fetchall() == [("cookies",)]


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"the quick brown fox " * 1000)
    assert "no database" in refusal(path)
    assert path.read_bytes() == b"the quick brown fox " * 1000


async def test_a_damaged_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as store:
        await settle(store)
    good = path.read_bytes()
    path.write_bytes(good[:100] + b"\xff" * (len(good) - 100))
    assert "damaged" in refusal(path)


def test_a_directory_is_refused_and_keeps_its_mode(tmp_path: Path) -> None:
    directory = tmp_path / "store.db"
    directory.mkdir(0o755)
    assert "no file" in refusal(directory)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o755


async def test_a_migration_that_fails_leaves_the_database_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.db"
    broken = (*MIGRATIONS, ("CREATE TABLE half (name TEXT) STRICT", "CREATE TABLE half (name TEXT) STRICT"))
    async with opened(path) as store:
        await store.append(event())
    with monkeypatch.context() as patch:
        patch.setattr("mcp_authz.store.schema.MIGRATIONS", broken)
        assert "half" in refusal(path)
    async with opened(path) as store:
        assert (await store.head())[0] == 1


async def test_an_older_store_gets_the_migrations_that_it_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as store:
        await settle(store)
    longer = (*MIGRATIONS, ("CREATE TABLE later (name TEXT) STRICT",))
    monkeypatch.setattr("mcp_authz.store.schema.MIGRATIONS", longer)
    async with opened(path) as store:
        assert (await store.head())[0] == 7
        assert store._reader.ask(lambda tx: tx.db.execute("SELECT count(*) FROM later").fetchone()) == (0,)
        assert store._reader.ask(lambda tx: tx.db.execute("PRAGMA user_version").fetchone()) == (len(longer),)


async def test_a_store_that_a_newer_version_upgrades_is_not_used_by_the_older_one_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as older, opened(path) as reading:
        await settle(older)
        seen = await reading.changed(0)
        monkeypatch.setattr("mcp_authz.store.schema.MIGRATIONS", (*MIGRATIONS, ("CREATE TABLE later (name TEXT)",)))
        async with opened(path) as newer:
            with pytest.raises(StoreUpgraded, match="restart this process"):
                await older.admit(admission())
            with pytest.raises(StoreUpgraded):
                await older.head()  # what nobody writes to is not read either
            with pytest.raises(StoreUpgraded):  # and so does who only waits for what others write
                await reading.changed(seen)
            with pytest.raises(StoreUpgraded):
                await reading.agents()
            assert (await newer.head())[0] == 7 and isinstance(await newer.admit(admission()), int)
        with closing(sqlite3.connect(path)) as db:
            db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        with pytest.raises(StoreUpgraded):  # until it is opened anew, whatever the file says by then
            await older.append(event())


async def test_the_log_can_be_read_from_a_copy_that_cannot_be_written(tmp_path: Path) -> None:
    async with opened(tmp_path / "store.db") as store:
        await settle(store)
        head = await store.head()
        assert stored_head(tmp_path / "store.db") == head  # also while it is in use
    copy = tmp_path / "copy" / "store.db"
    copy.parent.mkdir()
    copy.write_bytes((tmp_path / "store.db").read_bytes())
    copy.chmod(0o400)
    copy.parent.chmod(0o500)

    with permissions_count():
        assert first_break(stored_records(copy), head=stored_head(copy)) is None
        assert [row.sequence for row in stored_records(copy, after=2, limit=2)] == [3, 4]
        assert first_break(stored_records(copy, after=2), start=(0, GENESIS), head=head) is not None
    copy.parent.chmod(0o700)


async def test_a_copy_whose_newest_records_cannot_be_read_is_refused_instead_of_read_short(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    async with opened(tmp_path / "store.db") as store:
        await settle(store)
        for name in ("store.db", "store.db-wal"):
            (copy / name).write_bytes((tmp_path / name).read_bytes())
    copy.chmod(0o500)
    with permissions_count(), pytest.raises(StoreError):
        stored_records(copy / "store.db")
    copy.chmod(0o700)
    assert len(stored_records(copy / "store.db")) == 7


async def test_used_ids_are_forgotten_long_after_they_could_be_used(tmp_path: Path) -> None:
    clock = Time()
    store = SqliteStore.open(tmp_path / "store.db", sealer=SEALER, clock=clock)
    try:
        for number in range(250):
            await store.remember(once(f"id {number}"))
        count = partial(store._reader.ask, lambda tx: tx.db.execute("SELECT count(*) FROM once").fetchone()[0])
        clock.pass_(HOUR)
        await store.append(event())
        assert count() == 250
        clock.pass_(limits.ONCE_KEPT)
        for _ in range(3):
            await store.append(event())
        assert count() == 0
    finally:
        await store.aclose()


def test_a_log_that_is_not_there_is_an_error_and_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        stored_records(tmp_path / "store.db")
    (tmp_path / "garbage").write_bytes(b"garbage" * 1000)
    with pytest.raises(StoreError):
        stored_head(tmp_path / "garbage")
    assert [file.name for file in tmp_path.iterdir()] == ["garbage"]
