"""Waiting for what is written: nothing is missed, in this process or from another, and nothing wakes for no reason."""

from __future__ import annotations

import asyncio
import socket
import stat
from pathlib import Path

import pytest

from mcp_authz.errors import StoreError
from mcp_authz.store import changes
from mcp_authz.store.bell import folder_of
from tests.store.conftest import Stores, sqlite
from tests.store.test_sqlite_processes import lines, process
from tests.store.world import event

SOON = 10.0  # seconds; every wait here is bounded by it


async def test_the_first_look_answers_at_once(stores: Stores) -> None:
    async with stores.open() as store:
        assert await asyncio.wait_for(store.changed(0), SOON) != 0


async def test_whoever_waits_hears_of_the_next_write(stores: Stores) -> None:
    async with stores.open() as store:
        since = await store.changed(0)
        waiting = [asyncio.create_task(store.changed(since)) for _ in range(3)]
        done, _ = await asyncio.wait(waiting, timeout=0.6)
        assert not done, "nothing was written"

        await store.append(event())
        assert {await asyncio.wait_for(one, SOON) for one in waiting} == {since + 1}


async def test_what_was_written_while_nobody_waited_is_not_missed(stores: Stores) -> None:
    async with stores.open() as store, stores.open() as other:
        for writer in (store, other):
            since = await store.changed(0)
            await writer.append(event())
            assert await asyncio.wait_for(store.changed(since), SOON) != since


@pytest.fixture
def only_when_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody who waits looks unasked."""
    monkeypatch.setattr(changes, "_TOLD", 10 * SOON)
    monkeypatch.setattr(changes, "_UNTOLD", 10 * SOON)


@pytest.mark.usefixtures("only_when_told")
@pytest.mark.parametrize("folder", ["short", "x" * 120], ids=["", "whose path is too long for a socket"])
async def test_what_another_process_writes_is_heard_at_once(tmp_path: Path, folder: str) -> None:
    async with sqlite(tmp_path / folder).open() as store:
        since = await store.changed(0)
        async with process("append", tmp_path / folder / "store.db") as other:
            waiting = asyncio.create_task(store.changed(since))
            await lines(other, 1)
            assert await asyncio.wait_for(waiting, 0.5) != since
    assert not folder_of(tmp_path / folder / "store.db").exists()


async def test_where_nobody_can_be_told_whoever_waits_looks(stores: Stores, tmp_path: Path) -> None:
    folder_of(tmp_path / "store.db").mkdir(mode=0o700)
    folder_of(tmp_path / "store.db").chmod(0o770)  # somebody else could put sockets there
    async with stores.open() as store, stores.open() as other:
        waiting = asyncio.create_task(store.changed(await store.changed(0)))
        await asyncio.sleep(0)
        await other.append(event())
        await asyncio.wait_for(waiting, SOON)
    assert not list(folder_of(tmp_path / "store.db").iterdir())


async def test_what_is_not_said_is_seen_a_little_later(stores: Stores, tmp_path: Path) -> None:
    async with stores.open() as store, stores.open() as other:
        waiting = asyncio.create_task(store.changed(await store.changed(0)))
        await asyncio.sleep(0)
        (ear,) = folder_of(tmp_path / "store.db").iterdir()
        ear.unlink()
        await other.append(event())
        await asyncio.wait_for(waiting, SOON)


async def test_whoever_rings_without_having_written_wakes_nobody(stores: Stores, tmp_path: Path) -> None:
    async with stores.open() as store:
        waiting = asyncio.create_task(store.changed(await store.changed(0)))
        await asyncio.sleep(0)
        (ear,) = folder_of(tmp_path / "store.db").iterdir()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
            for said in (b"", b"!", b"x" * 4096):
                stranger.sendto(said, str(ear))
        done, _ = await asyncio.wait([waiting], timeout=0.2)
        assert not done
        await store.append(event())
        await asyncio.wait_for(waiting, SOON)


async def test_nothing_is_left_where_stores_were_and_nothing_is_made_where_nobody_waits(
    stores: Stores, tmp_path: Path
) -> None:
    folder = folder_of(tmp_path / "store.db")
    async with stores.open() as store:
        await store.append(event())
        assert not folder.exists()
        async with process("wait", tmp_path / "store.db") as other:
            await lines(other, 1)
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert len(list(folder.iterdir())) == 1
            other.kill()
            await other.wait()
        stranger = folder / "i_stranger"
        stranger.touch()  # no socket: it stays
        await store.append(event())
        async with asyncio.timeout(SOON):  # the others are told right after the answer
            while [path.name for path in folder.iterdir()] != ["i_stranger"]:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        stranger.unlink()
        await store.changed(0)
        assert len(list(folder.iterdir())) == 1
    assert not folder.exists()


async def test_a_store_that_is_closed_keeps_nobody_waiting(stores: Stores) -> None:
    async with stores.open() as store:
        waiting = asyncio.create_task(store.changed(await store.changed(0)))
        await asyncio.sleep(0)
    with pytest.raises(StoreError, match="closed"):
        await asyncio.wait_for(waiting, SOON)
