"""Row 43, against a gateway that runs and callers that do not stop: the disk is full, fails, is slow; the store is
locked, read-only, gone, or another one. Nothing is forwarded, callers read why, and when it is over calls go on
without a restart.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from mcp_authz.installation import open_installation
from tests.journals import assert_accounted_for, assert_verifies, keeping, ran
from tests.site import PROGRAM, Site, site, until

CALLERS, CALLS = 16, 4
FEW = 8  # lines of the log that a trouble may make in all parts of the gateway, however many callers meet it


@dataclass
class Under:
    """A gateway that runs, whose store is about to be in trouble."""

    here: Site
    http: httpx2.AsyncClient
    process: subprocess.Popen[bytes]
    token: str
    log: Path
    made: dict[int, Any] = field(default_factory=dict)
    numbers: Any = field(default_factory=count)

    @property
    def data(self) -> Path:
        return self.here.config.data

    @property
    def store(self) -> Path:
        return self.data / "store.db"

    async def call(self, **more: Any) -> dict[str, Any]:
        n = next(self.numbers)
        self.made[n] = {"n": n, **more}
        return await self.here.answer(self.http, "it__look", self.made[n], token=self.token)

    async def is_ready(self) -> bool:
        return (await self.http.get("/readyz")).status_code == 200

    async def is_not_ready(self) -> bool:
        return not await self.is_ready()

    def ran(self) -> int:
        return len(ran(self.data.parent))

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines()

    def memory(self) -> int:
        """Megabytes that the gateway's process has."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) // 1024 for line in status.splitlines() if line.startswith("VmRSS"))


@contextmanager
def failing(it: Under) -> Iterator[None]:
    """The disk takes no byte more of the gateway."""
    _, most = resource.prlimit(it.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(it.process.pid, resource.RLIMIT_FSIZE, (0, most))
    try:
        yield
    finally:
        resource.prlimit(it.process.pid, resource.RLIMIT_FSIZE, (most, most))


@contextmanager
def full(it: Under) -> Iterator[None]:
    filler = it.data / "filler"
    with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while file.write(bytes(4096)):
            pass
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def locked(it: Under) -> Iterator[None]:
    with closing(sqlite3.connect(it.store, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def gone(it: Under) -> Iterator[None]:
    it.store.rename(it.data / "away")
    yield
    assert not it.store.exists(), "another one was begun in its place"
    (it.data / "away").rename(it.store)


@contextmanager
def directory_gone(it: Under) -> Iterator[None]:
    it.data.rename(it.data.with_name("elsewhere"))
    yield
    assert not it.data.exists()
    it.data.with_name("elsewhere").rename(it.data)


@contextmanager
def another(it: Under) -> Iterator[None]:
    it.store.rename(it.data / "away")
    shutil.copyfile(it.data / "away", it.store)
    copied = it.store.read_bytes()
    yield
    assert it.store.read_bytes() == copied, "something was written into it"
    it.store.unlink()
    (it.data / "away").rename(it.store)


@contextmanager
def read_only(it: Under) -> Iterator[None]:
    """The file was away, and comes back on a mount that nobody may write."""
    behind = it.data.with_name("behind")
    behind.mkdir(exist_ok=True)
    with mounted("--bind", it.data, behind), gone(it):
        while httpx2.get(f"{it.http.base_url}/readyz", headers=it.http.headers).status_code == 200:
            pass
        mounting = mounted("--bind", it.data, it.data)
        mounting.__enter__()
        subprocess.run(["mount", "-o", "remount,bind,ro", str(it.data)], check=True, capture_output=True)
        (behind / "away").rename(behind / "store.db")
        yield
        mounting.__exit__(None, None, None)
        it.store.rename(it.data / "away")


@contextmanager
def mounted(*words: object) -> Iterator[bool]:
    """Whether something is mounted, on the last of these."""
    done = subprocess.run(["mount", *map(str, words)], check=False, capture_output=True)
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "-l", str(words[-1])], check=True, capture_output=True)


@contextmanager
def serving(here: Site, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [str(PROGRAM), "--config", str(here.file), "serve"]
    with (
        log.open("wb") as said,
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process,
        subprocess.Popen(["cat"], stdin=process.stderr, stdout=said),  # so that no bound of the gateway's is the log's
    ):
        try:
            yield process
        finally:
            process.kill()


async def assert_refused_and_back(it: Under, fault: Callable[[Under], AbstractContextManager[None]]) -> None:
    """While the fault lasts nothing reaches the tool server; afterwards everything does, and what ran is on record."""
    before, lines, memory = it.ran(), len(it.lines()), it.memory()
    told: list[dict[str, Any]] = []
    running: list[dict[str, Any]] = []

    async def run_meanwhile() -> None:
        running.append(await it.call(**{"for": 400}))

    async def hammer() -> None:
        for _ in range(CALLS):
            told.append(await it.call(text="x" * 10_000))

    async def has_begun() -> bool:
        return it.ran() == before + 1

    async with anyio.create_task_group() as group:
        group.start_soon(run_meanwhile)
        await until(has_begun)
        with fault(it):
            async with anyio.create_task_group() as callers:
                for _ in range(CALLERS):
                    callers.start_soon(hammer)
            await until(it.is_not_ready)
            assert it.ran() == before + 1
            while not running:  # noqa: ASYNC110
                await anyio.sleep(0.02)
    for said in told:
        assert said["error"]["message"] == "the gateway cannot record this now, nothing was done; try again", said
    (error,) = [said["error"] for said in running]
    assert error["message"].startswith("the call was passed to its tool server, but what came of it cannot be recorded")
    assert "look before you call again" in error["message"] and "store.db" not in json.dumps(told + running)
    await until(it.is_ready)
    assert "result" in await it.call()
    assert it.ran() == before + 2
    new = it.lines()[lines:]
    assert 1 <= len(new) <= FEW, new
    assert it.memory() - memory < 64


async def try_faults(directory: Path, *faults: Callable[[Under], AbstractContextManager[None]]) -> None:
    async with site(directory, keeping(directory), "use") as here, here.at() as http:
        with serving(here, directory / "said") as process:
            await here.up(http)
            it = Under(here, http, process, await here.token(http), directory / "said")
            assert "result" in await it.call()
            for fault in faults:
                await assert_refused_and_back(it, fault)
        async with open_installation(here.config) as installation:
            ends = await assert_accounted_for(here, installation, it.made)
        assert set(ends) == {"done"} and ends["done"] == it.ran()
        assert_verifies(here, directory)


async def test_a_store_that_cannot_be_written_for_a_while_stops_calls_for_that_while(tmp_path: Path) -> None:
    await try_faults(tmp_path, failing, gone, another, directory_gone)


async def test_a_disk_that_is_full_or_read_only_stops_calls_for_that_while(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    with mounted("-t", "tmpfs", "-o", "size=8m,mode=0700", "tmpfs", tmp_path / "data") as is_small:
        if not is_small:
            pytest.skip("nothing can be mounted here")
        await try_faults(tmp_path, full, read_only)


@pytest.mark.thorough
async def test_a_store_that_another_process_keeps_locked_stops_calls_for_that_while(tmp_path: Path) -> None:
    await try_faults(tmp_path, locked)


async def test_a_slow_disk_makes_calls_wait_and_refuses_none(tmp_path: Path) -> None:
    async with site(tmp_path, keeping(tmp_path), "use") as here, here.at() as http:
        with serving(here, tmp_path / "said") as process:
            await here.up(http)
            it = Under(here, http, process, await here.token(http), tmp_path / "said")
            await it.call()
            answers: list[dict[str, Any]] = []

            async def call() -> None:
                answers.append(await it.call())

            lock = os.open(it.data / "store.db.lock", os.O_RDWR)
            fcntl.flock(lock, fcntl.LOCK_EX)
            async with anyio.create_task_group() as group:
                for _ in range(CALLERS):
                    group.start_soon(call)
                await anyio.sleep(1)
                assert not answers and it.ran() == 1
                os.close(lock)
            assert all("result" in answer for answer in answers) and it.ran() == CALLERS + 1
            assert it.lines() == []
