"""Row 34: while calls are stopped, or a server is switched off, nothing else that reaches a tool server does either."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, MCPError
from mcp_types import PromptReference

from mcp_authz.stopping import Stopping
from tests.road.test_offers import bookshelf
from tests.world import LEGACY, MODERN, OPERATOR, World, world

SCOPES = "lib:resources lib:prompts lib:completion"


async def roads(client: Client) -> dict[str, Any]:
    """What comes of each way to have the tool server do something other than a call."""
    reference = PromptReference(type="ref/prompt", name="lib__review")
    asked: dict[str, Callable[[], Awaitable[Any]]] = {
        "resource": lambda: client.read_resource("book://one"),
        "template": lambda: client.read_resource("book://shelf/emma"),
        "prompt": lambda: client.get_prompt("lib__review", {"title": "Emma"}),
        "completion": lambda: client.complete(reference, {"name": "title", "value": "mo"}),
    }
    told: dict[str, Any] = {}
    for name, ask in asked.items():
        try:
            await ask()
            told[name] = "done"
        except MCPError as error:
            told[name] = (error.error.data or {}).get("reason", error.error.message)
    return told


async def reached(w: World) -> int:
    return len(await w.records("outcome"))


@pytest.mark.parametrize("mode", [MODERN, pytest.param(LEGACY, marks=pytest.mark.thorough)])
async def test_no_side_road_leads_to_a_tool_server_that_is_stopped(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path, servers={"lib": bookshelf()}) as w:
        reader, stopping = await w.ready("reader", SCOPES), Stopping(w.store, w.clock)
        async with w.client(reader, mode) as client:
            assert set((await roads(client)).values()) == {"done"}
            before = await reached(w)
            assert await stopping.stop_all(reason="leak", by=OPERATOR)
            assert set((await roads(client)).values()) == {"stopped"}
            assert await reached(w) == before
            assert await stopping.start_all(by=OPERATOR)
            assert await stopping.server_off("lib", reason="leak", by=OPERATOR) == ()
            assert "done" not in (await roads(client)).values()
            assert await reached(w) == before
            await stopping.server_on("lib", by=OPERATOR)
            assert set((await roads(client)).values()) == {"done"}
