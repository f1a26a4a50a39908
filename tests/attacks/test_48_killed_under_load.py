"""Row 48, at any moment: gateways are killed under load, again and again, and nothing is lost, doubled or left open."""

from __future__ import annotations

import random
import signal
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from mcp_authz.installation import Installation, open_installation
from mcp_authz.model import HoldId
from tests.journals import assert_accounted_for, assert_verifies, keeping, ran
from tests.site import Site, outcome_of, site, until

LOOKING, DROPPING = 4, 3  # callers at once


@dataclass
class Load:
    """Callers that call as fast as they are answered, until their gateway is dead."""

    here: Site
    installation: Installation
    http: httpx2.AsyncClient
    token: str
    chance: random.Random
    made: dict[int, Any] = field(default_factory=dict)
    numbers: Any = field(default_factory=count)
    answered: int = 0

    def new(self) -> dict[str, Any]:
        """The arguments of one more call, which no other has."""
        n = next(self.numbers)
        self.made[n] = {"n": n, "for": self.chance.choice((0, 0, 5, 40)), "size": self.chance.choice((0, 0, 3_000))}
        return dict(self.made[n])

    async def call(self, tool: str, arguments: Any) -> dict[str, Any]:
        answer = await self.here.answer(self.http, tool, arguments, token=self.token)
        self.answered += 1
        return answer

    async def look(self) -> None:
        await self.call("it__look", self.new())

    async def drop(self) -> None:
        """A call that is held, approved, made again, and once more: it must not run twice."""
        arguments = self.new()
        held = outcome_of((await self.call("it__drop", arguments))["result"])
        await self.here.approve(self.installation, HoldId(held["hold"]))
        for _ in range(2):
            await self.call("it__drop", arguments)

    async def until_dead(self, turn: Callable[[], Awaitable[None]]) -> None:
        try:
            while True:
                await turn()
        except httpx2.TransportError:
            pass


async def kill_again_and_again(directory: Path, kills: int, seed: int) -> None:
    print(f"seed {seed}")
    chance = random.Random(seed)  # noqa: S311 - moments, not keys
    async with site(directory, keeping(directory), "use") as here, open_installation(here.config) as installation:
        load: Load | None = None
        for _ in range(kills):
            async with here.at() as http:
                with here.serving() as gateway:
                    await here.up(http)
                    if load is None:
                        token = await here.token(http)
                        load = Load(here=here, installation=installation, http=http, token=token, chance=chance)
                    load.http, before = http, load.answered
                    again = chance.sample(sorted(load.made), min(3, len(load.made)))
                    async with anyio.create_task_group() as group:
                        for turn in [load.look] * LOOKING + [load.drop] * DROPPING:
                            group.start_soon(load.until_dead, turn)

                        async def is_loaded(load: Load = load, before: int = before) -> bool:
                            return load.answered > before

                        await until(is_loaded)
                        for n in again:  # what came before the last kill, made once more as somebody would
                            if any(call.n == n and call.tool == "drop" for call in ran(directory)):
                                await load.call("it__drop", load.made[n])
                        await anyio.sleep(chance.uniform(0, 0.7))
                        gateway.send_signal(signal.SIGKILL)
                    gateway.wait()
        assert load is not None
        async with here.at() as http:
            with here.serving() as gateway:
                await here.up(http)
                gateway.send_signal(signal.SIGTERM)
                gateway.wait()
        ends = await assert_accounted_for(here, installation, load.made)
        print(f"{kills} kills, {len(load.made)} calls, {len(ran(directory))} ran, outcomes {dict(ends)}")
        assert ends["done"] and ends["unknown"], "calls were under way when the gateways died"
        assert_verifies(here, directory)


async def test_five_gateways_killed_under_load_lose_double_and_leave_open_nothing(tmp_path: Path) -> None:
    await kill_again_and_again(tmp_path, 5, random.randrange(2**32))  # noqa: S311


@pytest.mark.thorough
async def test_fifty_gateways_killed_under_load_lose_double_and_leave_open_nothing(tmp_path: Path) -> None:
    await kill_again_and_again(tmp_path, 50, random.randrange(2**32))  # noqa: S311
