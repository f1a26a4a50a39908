"""Waiting for what is written: nothing is missed, in this process or from another, and nothing wakes for no reason."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from mcp_authz.errors import StoreError
from tests.store.conftest import Stores
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


async def test_what_another_process_writes_is_heard_within_half_a_second(stores: Stores, tmp_path: Path) -> None:
    async with stores.open() as store:
        since = await store.changed(0)
        async with process("append", tmp_path / "store.db") as other:
            waiting = asyncio.create_task(store.changed(since))
            await lines(other, 1)
            assert await asyncio.wait_for(waiting, 0.5) != since


async def test_a_store_that_is_closed_keeps_nobody_waiting(stores: Stores) -> None:
    async with stores.open() as store:
        waiting = asyncio.create_task(store.changed(await store.changed(0)))
        await asyncio.sleep(0)
    with pytest.raises(StoreError, match="closed"):
        await asyncio.wait_for(waiting, SOON)
