"""Row 26, with two gateway processes on one store: one approval runs once, whoever collects it wherever."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import httpx2

from mcp_authz import limits
from mcp_authz.installation import open_installation
from mcp_authz.model import HoldId, HoldState
from tests.ports import free_port
from tests.site import Site, outcome_of, site, until
from tests.world import incident_server

AT_ONCE = 50
SCOPE = "deploy:staging"


def deploy(version: str) -> tuple[str, dict[str, str]]:
    """One of several calls that are not the same."""
    return "acme__deploy", {"owner": "acme", "repo": "api", "environment": "staging", "version": version}


def deployed(directory: Path) -> list[str]:
    """The versions that were really deployed, as the tool server wrote it down."""
    file = directory / "state" / "deployments.jsonl"
    return [json.loads(line)["version"] for line in file.read_text().splitlines()] if file.exists() else []


def said(result: dict[str, Any]) -> str:
    """How one answer reads: an outcome, a round of waiting, or the tool's own result."""
    if result.get("resultType") == "input_required":
        return "wait"
    return str(outcome_of(result).get("outcome", "done"))


async def collect(here: Site, clients: list[httpx2.AsyncClient], version: str, got: Counter[str]) -> None:
    """As many identical calls at once, spread over the processes; a round of waiting is followed by the next."""
    token = await here.token(clients[0])

    async def one(number: int) -> None:
        state: dict[str, Any] = {}
        while True:
            answer = await here.call(clients[number % len(clients)], *deploy(version), token=token, **state)
            if said(answer) != "wait":
                break
            state = {"requestState": answer["requestState"]}
        got[said(answer)] += 1

    async with anyio.create_task_group() as group:
        for number in range(AT_ONCE):
            group.start_soon(one, number)


async def test_what_was_approved_runs_once_for_whoever_waits_and_whoever_collects_in_either(tmp_path: Path) -> None:
    port = free_port()
    async with (
        site(tmp_path, {"acme": incident_server(tmp_path)}, SCOPE, waiting=60) as here,
        open_installation(here.config) as installation,
        here.at() as one,
        here.at(port) as other,
    ):
        store = installation.store

        async def pending() -> tuple[Any, ...]:
            return await store.holds(states=[HoldState.PENDING])

        with here.serving(), here.serving(beside=port):
            await here.up(one)
            await here.up(other)

            # Whoever waits when the verdict comes, in either process; for more than fit there is no place to wait.
            got: Counter[str] = Counter()
            waiting = 2 * limits.WAITING_PER_HOLD
            async with anyio.create_task_group() as group:
                group.start_soon(collect, here, [one, other], "waited for", got)

                async def others_are_told() -> bool:
                    return got["held"] == AT_ONCE - waiting

                await until(others_are_told)
                (held,) = await pending()
                with anyio.fail_after(30):  # of the minute that they would wait
                    await here.approve(installation, held.id)
                    while got.total() < AT_ONCE:  # noqa: ASYNC110 - counted by others
                        await anyio.sleep(0.01)
            assert got == {"held": AT_ONCE - waiting, "done": 1, "replayed": waiting - 1}
            assert deployed(tmp_path) == ["waited for"]

            # Whoever collects what was approved while nobody waited: its client had gone away.
            with anyio.move_on_after(0.5):
                await here.call(one, *deploy("collected"))
            (held,) = await pending()
            await here.approve(installation, held.id)
            assert deployed(tmp_path) == ["waited for"]
            got.clear()
            await collect(here, [one, other], "collected", got)
            assert got["done"] == 1 and set(got) <= {"done", "replayed", "held", "denied"}, got
            assert deployed(tmp_path) == ["waited for", "collected"]

        permits = [r for r in await store.records(kind="decision") if r.event.fields["decision"] == "permit"]
        assert len(permits) == 2
        assert (await store.hold(HoldId(held.id))).state is HoldState.DONE  # type: ignore[union-attr]
