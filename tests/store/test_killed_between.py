"""kill -9 in the middle of what replaces or rewrites a store: a whole one is at its path, and it can be done anew."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from mcp_authz.cli.verification import verify
from mcp_authz.errors import StoreError
from mcp_authz.model import HoldId
from mcp_authz.store.copying import copy, inspect
from mcp_authz.store.offline import stored_head
from mcp_authz.store.restoring import Asked, restore
from mcp_authz.store.schema import APPLICATION_ID, MIGRATIONS
from mcp_authz.store.sqlite import SqliteStore
from tests.store.conftest import SEALER
from tests.store.world import Time, admission, approve, event, open_hold, settle, state_of

OLDER = 11


async def backed_up(directory: Path) -> None:
    """A store that went on behind its backup `kept.db`."""
    clock = Time()
    store = SqliteStore.open(directory / "store.db", sealer=SEALER, clock=clock)
    await settle(store)
    copy(directory / "store.db", directory / "kept.db", lambda *_: None)
    await store.append(event())
    await store.aclose()


def killed(directory: Path, what: str, where: str) -> None:
    """A process that does this is killed there."""
    line = [sys.executable, "-m", "tests.store.killed", str(directory), what, where]
    done = subprocess.run(line, check=False, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2])
    assert done.returncode == -signal.SIGKILL, done


def thorough(*values: str | int) -> Any:
    return pytest.param(*values, marks=pytest.mark.thorough)


@pytest.mark.parametrize(
    ("what", "where", "epoch"),
    [
        ("restore", "rename", 0),
        ("restore", "open store.db.witness", 1),
        thorough("restore", "link", 0),
        thorough("restore", "open store.db.restoring", 0),
        thorough("backup", "open backup.db", 0),
        thorough("backup", "copied", 0),
    ],
)  # fmt: skip
async def test_a_store_is_as_before_or_restored_whole(tmp_path: Path, what: str, where: str, epoch: int) -> None:
    await backed_up(tmp_path)
    before = inspect(tmp_path / "store.db").mark
    killed(tmp_path, what, where)
    found = inspect(tmp_path / "store.db").mark
    assert found.epoch == epoch and (epoch or found == before)
    assert verify(tmp_path / "store.db", lambda *_: None).broken is None
    store = SqliteStore.open(tmp_path / "store.db", sealer=SEALER, clock=Time())
    await store.append(event())
    await store.aclose()
    again = copied(tmp_path) if what == "backup" else restored(tmp_path)
    assert again > epoch or what == "backup"
    assert verify(tmp_path / "store.db", lambda *_: None).broken is None


def copied(directory: Path) -> int:
    return copy(directory / "store.db", directory / "backup.db", lambda *_: None).epoch


def restored(directory: Path) -> int:
    clock = Time()
    clock.pass_(timedelta(hours=1))
    asked = Asked(backup=directory / "kept.db", reason="x", by="user:op")
    return restore(directory / "store.db", asked, sealer=SEALER, clock=clock, seen=(), told=lambda *_: None).number


@pytest.mark.thorough
async def test_a_restore_into_nothing_that_was_killed_before_its_witness_is_done_anew(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    await backed_up(tmp_path / "first")
    (tmp_path / "first" / "kept.db").rename(tmp_path / "kept.db")
    killed(tmp_path, "restore", "open store.db.witness")
    with pytest.raises(StoreError, match=r"`store.db.witness` is not beside it"):
        SqliteStore.open(tmp_path / "store.db", sealer=SEALER, clock=Time())
    assert restored(tmp_path) == 2
    await SqliteStore.open(tmp_path / "store.db", sealer=SEALER, clock=Time()).aclose()


async def make_older(path: Path) -> int:
    """A store of an older version is there, with a hold whose process is gone; returns how many records it has."""
    newer = path.with_name("newer.db")
    store = SqliteStore.open(newer, sealer=SEALER, clock=Time())
    await settle(store)
    await open_hold(store)
    await approve(store)
    assert isinstance(await store.admit(admission(claim=HoldId("h_1"))), int)
    await store.aclose()
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("ATTACH ? AS newer", (str(newer),))
        for statement in chain.from_iterable(MIGRATIONS[:OLDER]):
            db.execute(statement)
        for (table,) in db.execute("SELECT name FROM main.sqlite_schema WHERE type = 'table'").fetchall():
            names = ", ".join(row[1] for row in db.execute(f"PRAGMA main.table_info({table})"))
            if table == "log_head":
                db.execute("UPDATE log_head SET (sequence, hash) = (SELECT sequence, hash FROM newer.log_head)")
            else:
                db.execute(f"INSERT INTO {table} ({names}) SELECT {names} FROM newer.{table}")  # noqa: S608
        db.execute(f"PRAGMA main.application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA main.user_version = {OLDER}")
    return stored_head(path)[0]


async def test_a_store_of_before_is_migrated_with_its_rows_or_stays_as_it_was(tmp_path: Path) -> None:
    """Of the schema in which there was no begun call, no epoch, no base of the log and no count of endings."""
    path = tmp_path / "store.db"
    records = await make_older(path)
    killed(tmp_path, "migrate", "in the middle")
    assert inspect(path).schema == OLDER
    store = SqliteStore.open(path, sealer=SEALER, clock=Time())
    try:
        assert len(await store.records()) == records and (await store.log_base()).sequence == 0
        assert await state_of(store) == "claimed"
        assert await store.recover(lambda left: event("outcome", left.id)) == ("h_1",)
        await store.revoke("agent", "coder", event("revocation"))
    finally:
        await store.aclose()
    copy(path, tmp_path / "kept.db", lambda *_: None)
    assert verify(tmp_path / "kept.db", lambda *_: None).broken is None
