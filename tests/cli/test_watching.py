"""Held calls in an open terminal: each as it comes, each as it goes, and an end without an error."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from typing import Any

import pytest

from mcp_authz.installation import utc_now
from mcp_authz.model import HoldId, HoldState
from mcp_authz.rules.display import displayed
from mcp_authz.store.ports import Event
from tests.cli.desk import COMMAND, SOON, Cast, Desk, held_call, hold, settle


@pytest.fixture
async def cast(desk: Desk) -> Cast:
    async with desk.open() as here:
        return await settle(here)


@contextmanager
def watching(desk: Desk, *options: str) -> Iterator[subprocess.Popen[str]]:
    """An open terminal, ended by Ctrl-C or when it is silent for too long; it says nothing after that, and no error."""
    command = [*COMMAND, "--config", str(desk.config), "holds", "watch", *options]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd=desk.directory) as process:
        patience = threading.Timer(SOON, process.kill)  # who reads a line of it then reads its end
        patience.start()
        try:
            yield process
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=SOON)
            assert (process.returncode, out) == (0, ""), err
            assert "Traceback" not in err
        finally:
            patience.cancel()
            process.kill()


def lines(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline().rstrip("\n") for _ in range(count)]


async def deny(here: Any, held: HoldId) -> None:
    event = Event(kind="approval", at=utc_now(), call=held, fields={"hold": held, "state": "cancelled"})
    await here.store.move_hold(held, come_from=HoldState.PENDING, to=HoldState.CANCELLED, event=event)


def end(desk: Desk, held: HoldId, at: datetime) -> None:
    """The held call waits until then and no longer."""
    with closing(sqlite3.connect(desk.directory / "data" / "store.db")) as store:
        store.execute("UPDATE holds SET expires_at = ? WHERE id = ?", (int(at.timestamp() * 1_000_000), held))
        store.commit()


async def test_a_held_call_is_shown_when_it_comes_and_when_it_goes(desk: Desk, cast: Cast) -> None:
    with watching(desk) as terminal:
        assert terminal.stderr is not None
        assert "no call waits" in terminal.stderr.readline()
        async with desk.open() as here:
            held = await hold(here, held_call(cast))
            text = displayed(held).splitlines()
            assert lines(terminal, len(text)) == text
            page, command, blank = lines(terminal, 3)
            await deny(here, held.id)
            (gone, _) = lines(terminal, 2)

    assert page == f"page: http://localhost:8642/holds/{held.id}"
    assert f"holds approve {held.id} --as PERSON --key FILE" in command and blank == ""
    assert gone.endswith(f"{held.id} is cancelled")


async def test_what_waits_already_is_shown_first_and_what_runs_out_of_time_is_said(desk: Desk, cast: Cast) -> None:
    async with desk.open() as here:
        held = await hold(here, held_call(cast))
    with watching(desk, "--json") as terminal:
        [first] = (json.loads(line) for line in lines(terminal, 1))
        end(desk, held.id, utc_now() + timedelta(seconds=1))
        [last] = (json.loads(line) for line in lines(terminal, 1))

    assert (first["id"], first["state"], first["displayed"]) == (held.id, "pending", displayed(held))
    assert first["page"] == f"http://localhost:8642/holds/{held.id}"
    assert (last["id"], last["state"]) == (held.id, "expired")


async def test_the_group_by_itself_lists_what_waits(desk: Desk, cast: Cast) -> None:
    assert "no call waits" in desk.ok("holds")
    async with desk.open() as here:
        await hold(here, held_call(cast))

    assert desk.ok("holds") == desk.ok("holds", "list") != ""
