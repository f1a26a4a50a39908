"""Row 48: the gateway dies between claim and outcome. Then nobody can say whether the call ran, and it never runs again
by itself: after the next start, or within seconds where another process is left, the hold is `unknown`, also when the
tool server had not been reached at all.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from mcp_authz.installation import Installation, open_installation, utc_now
from mcp_authz.model import HoldId, HoldState
from mcp_authz.rules.log import first_break
from mcp_authz.store.offline import stored_head, stored_records
from tests.ports import free_port
from tests.road.places import DESTRUCTIVE, asking
from tests.site import Site, outcome_of, site, until

CALL = ("asking__block", {"what": "everything"})


@asynccontextmanager
async def blocking(directory: Path, *, waiting: int = 0) -> AsyncIterator[Site]:
    """An installation with a tool server that never answers."""
    servers = {"asking": asking(directory / "reached", tools=DESTRUCTIVE)}
    async with site(directory, servers, "use", waiting=waiting) as here:
        yield here


def reached(directory: Path) -> list[Any]:
    """The calls that reached the tool server."""
    file = directory / "reached"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


async def call_and_hear_nothing(here: Site, http: httpx2.AsyncClient) -> None:
    """The call whose process dies."""
    with pytest.raises(httpx2.TransportError):
        await here.call(http, *CALL)


async def state_of(installation: Installation, hold: HoldId) -> HoldState:
    held = await installation.store.hold(hold)
    assert held is not None
    return held.state


async def test_another_process_notices_within_seconds_and_tells_who_waits_there(tmp_path: Path) -> None:
    port, told = free_port(), {}
    async with (
        blocking(tmp_path, waiting=60) as here,
        open_installation(here.config) as installation,
        here.at() as one,
        here.at(port) as other,
    ):
        with here.serving() as gateway, here.serving(beside=port):
            await here.up(one)
            await here.up(other)

            async def claimed() -> bool:
                held = await installation.store.holds()
                if held and held[0].state is HoldState.PENDING:
                    await here.approve(installation, held[0].id)
                return bool(reached(tmp_path))

            async def wait() -> None:
                told.update(await here.call(other, *CALL))

            async with anyio.create_task_group() as group:
                group.start_soon(call_and_hear_nothing, here, one)
                await until(claimed)
                group.start_soon(wait)
                await anyio.sleep(0.3)  # it waits by then; if it did not, it would be told all the same
                assert not told
                gateway.send_signal(signal.SIGKILL)
                with anyio.fail_after(8):  # of the 25 seconds that it would wait
                    while not told:  # noqa: ASYNC110
                        await anyio.sleep(0.05)
            hold = outcome_of(told)["hold"]
            assert outcome_of(told) | {"call": ""} == {
                "outcome": "replayed",
                "call": "",
                "hold": hold,
                "state": "unknown",
            }
            assert outcome_of(await here.call(other, *CALL))["state"] == "unknown"
            assert await state_of(installation, hold) is HoldState.UNKNOWN
        assert len(reached(tmp_path)) == 1
        outcomes = await installation.store.records(kind="outcome")
        assert [record.event.fields["outcome"] for record in outcomes] == ["unknown"]


def stop_reading(site: Site, gateway: int) -> None:
    """The tool server is there, but what it is sent stays unread."""
    children = Path(f"/proc/{gateway}/task/{gateway}/children").read_text().split()
    (child,) = [int(pid) for pid in children if "asking.py" in Path(f"/proc/{pid}/cmdline").read_text()]
    os.kill(child, signal.SIGSTOP)


@pytest.mark.parametrize("tool_runs", [True, False], ids=["while the tool runs", "before the tool server reads it"])
async def test_a_call_whose_gateway_died_is_unknown_and_never_runs_again(tmp_path: Path, tool_runs: bool) -> None:
    async def claimed() -> bool:
        running = await state_of(installation, hold) is HoldState.CLAIMED
        return running and (not tool_runs or bool(reached(tmp_path)))

    async with (
        blocking(tmp_path) as here,
        open_installation(here.config) as installation,
        here.at() as http,
    ):
        with here.serving() as gateway:
            await here.up(http)
            hold = HoldId(outcome_of(await here.call(http, *CALL))["hold"])
            await here.approve(installation, hold)
            if not tool_runs:
                stop_reading(here, gateway.pid)
            async with anyio.create_task_group() as group:
                group.start_soon(call_and_hear_nothing, here, http)
                await until(claimed)
                gateway.send_signal(signal.SIGKILL)

        with here.serving():
            await here.up(http)
            assert await state_of(installation, hold) is HoldState.UNKNOWN
            ran = len(reached(tmp_path))
            again = await here.call(http, *CALL)
            assert outcome_of(again) | {"call": ""} == {
                "outcome": "replayed",
                "call": "",
                "hold": hold,
                "state": "unknown",
            }
            assert "nobody can say whether it ran" in again["content"][0]["text"]
            assert len(reached(tmp_path)) == ran <= 1

        kinds = [(r.event.kind, r.event.fields) for r in await installation.store.records(limit=1_000)]
        assert [f["outcome"] for kind, f in kinds if kind == "outcome"] == ["unknown"]
        assert [f["decision"] for kind, f in kinds if kind == "decision"] == ["hold", "permit", "replay"]
    path = here.config.data / "store.db"
    assert first_break(stored_records(path), head=stored_head(path)) is None


async def test_after_the_time_of_the_replay_an_interrupted_call_is_held_anew(tmp_path: Path) -> None:
    ahead = timedelta()
    async with blocking(tmp_path) as here, here.at() as http:
        async with open_installation(here.config, clock=lambda: utc_now() + ahead) as installation:
            with here.serving():
                await here.up(http)
                hold = HoldId(outcome_of(await here.call(http, *CALL))["hold"])
                await here.approve(installation, hold)
                ahead = -timedelta(minutes=3)  # as if all of this had been a while ago
                await installation.store.move_hold(hold, come_from=HoldState.APPROVED, to=HoldState.CLAIMED, event=None)
                await installation.store.move_hold(hold, come_from=HoldState.CLAIMED, to=HoldState.UNKNOWN, event=None)
                ahead = timedelta()
                anew = outcome_of(await here.call(http, *CALL))
        assert anew["outcome"] == "held" and anew["hold"] != hold
        assert reached(tmp_path) == []
