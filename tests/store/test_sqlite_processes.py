"""Several real processes on one file, and one that is killed in the middle of its work."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from mcp_authz.model import HoldId, HoldState
from mcp_authz.rules.log import first_break
from mcp_authz.store.offline import stored_head, stored_records
from mcp_authz.store.sqlite import SqliteStore
from tests.store.conftest import SEALER
from tests.store.world import SESSION, Time, event, once, settle, state_of

BOUND = 60  # seconds that anything here may take


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[SqliteStore]:
    store = SqliteStore.open(path, sealer=SEALER, clock=Time())
    try:
        yield store
    finally:
        await store.aclose()


@asynccontextmanager
async def process(what: str, path: Path, name: str = "other", count: int = 1) -> AsyncIterator[Process]:
    """Another process that does this on the store, until it is done or the context ends."""
    program = (sys.executable, "-W", "error", "-m", "tests.store.process", what, str(path), name, str(count))
    started = await asyncio.create_subprocess_exec(*program, stdin=PIPE, stdout=PIPE)
    try:
        yield started
    finally:
        if started.returncode is None:
            started.kill()
        await started.communicate()


async def lines(started: Process, count: int) -> list[str]:
    assert started.stdout is not None
    read = [await asyncio.wait_for(started.stdout.readline(), BOUND) for _ in range(count)]
    return [line.decode().strip() for line in read]


def assert_whole(path: Path, records: int) -> None:
    rows = stored_records(path, limit=100_000)
    assert len(rows) == records
    assert first_break(rows, head=stored_head(path)) is None


async def test_two_processes_append_to_one_unbroken_chain(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as store, process("append", path, count=200) as other:
        await lines(other, 1)  # it has begun
        for number in range(200):
            await store.append(event(by="this", number=number))
        await asyncio.wait_for(other.communicate(), BOUND)
        assert other.returncode == 0

        records = await store.records()
        assert [one.event.fields["number"] for one in records if one.event.fields["by"] == "this"] == list(range(200))
        assert [one.event.fields["number"] for one in records if one.event.fields["by"] == "other"] == list(range(200))
    assert_whole(path, 400)


async def test_many_processes_open_a_new_store_at_once(tmp_path: Path) -> None:
    path = tmp_path / "store.db"

    async def run(number: int) -> int | None:
        async with process("append", path, f"p{number}", 5) as other:
            await asyncio.wait_for(other.communicate(), BOUND)
            return other.returncode

    assert await asyncio.gather(*map(run, range(4))) == [0] * 4
    assert_whole(path, 20)


@pytest.mark.parametrize("after", [1, 17, 90, 250])
async def test_a_process_killed_under_load_leaves_nothing_half_done(tmp_path: Path, after: int) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as store:
        await settle(store)
        async with process("admit", path, count=10_000) as other:
            promised = await lines(other, after)
            other.kill()
            rest, _ = await asyncio.wait_for(other.communicate(), BOUND)
        whole_lines = rest.decode().rpartition("\n")[0].split()
        promised += whole_lines

        decided = [record.event.call for record in await store.records(kind="decision", limit=100_000)]
        assert len(set(decided)) == len(decided)
        assert set(promised) <= set(decided)  # what was answered is on the disk
        used = await store.session(SESSION)
        assert used is not None and used.calls_made == len(decided)
        assert [one.calls_made for one in await store.links(SESSION)] == [len(decided)] * 2
        remembered = [await store.remember(once(f"proof of {call}")) for call in decided]
        assert not any(remembered)
        await store.append(event())  # and the store goes on
    assert_whole(path, 7 + len(decided) + 1)


async def test_what_a_killed_process_had_claimed_is_unknown_and_not_before_it_is_dead(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as store, process("claim", path) as other:
        assert await lines(other, 1) == ["claimed"]
        assert await store.recover(lambda call: event("outcome", hold=call.id)) == ()
        other.kill()
        await asyncio.wait_for(other.wait(), BOUND)

        assert await store.recover(lambda call: event("outcome", hold=call.id)) == (HoldId("h_1"),)
        assert await state_of(store) is HoldState.UNKNOWN
