"""A tool server in this process, over the same connection as the others."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from mcp.server.mcpserver import Context, MCPServer

from mcp_authz.errors import DownstreamError
from tests.servers.start import Caller, Changes, admitted
from tool_adapters.in_process import InProcessDownstream


def server() -> MCPServer:
    tools = MCPServer("tools")

    @tools.tool()
    def add(a: int, b: int) -> int:
        return a + b

    @tools.tool()
    async def slow(steps: int, context: Context[Any, Any]) -> str:
        for step in range(steps):
            await context.report_progress(step, steps)
        return "done"

    return tools


async def test_a_tool_of_a_server_object_is_called() -> None:
    downstream = InProcessDownstream("tools", server())
    async with downstream.run():
        assert downstream.reachable
        assert [tool["name"] for tool in await downstream.list_tools()] == ["add", "slow"]
        result = await downstream.forward(admitted("add", {"a": 1, "b": 2}), Caller())
    assert result["structuredContent"] == {"result": 3}
    assert not downstream.reachable


async def test_progress_reaches_the_caller_of_its_own_call() -> None:
    downstream, callers = InProcessDownstream("tools", server()), [Caller() for _ in range(5)]
    async with downstream.run(), anyio.create_task_group() as tasks:
        for steps, caller in enumerate(callers):
            tasks.start_soon(downstream.forward, admitted("slow", {"steps": steps}), caller)
    for steps, caller in enumerate(callers):
        assert caller.heard == [("notifications/progress", {"progress": step, "total": steps}) for step in range(steps)]


async def test_an_unknown_tool_is_the_servers_own_answer() -> None:
    downstream = InProcessDownstream("tools", server())
    async with downstream.run():
        result = await downstream.forward(admitted("no-such-tool"), Caller())
    assert result["isError"] and "no-such-tool" in result["content"][0]["text"]


async def test_a_server_that_was_stopped_can_be_run_again() -> None:
    downstream, changes = InProcessDownstream("tools", server()), Changes()
    downstream.on_tools_changed(changes)
    for run in range(2):
        async with downstream.run():
            assert changes.count == run + 1
            await downstream.forward(admitted("add", {"a": 1, "b": 2}), Caller())
    with pytest.raises(DownstreamError, match="not running"):
        await downstream.list_tools()


async def test_a_server_is_taken_at_its_word_for_what_it_has_and_while_it_is_away_for_having_it() -> None:
    downstream = InProcessDownstream("tools", server())
    assert downstream.declares("resources")
    async with downstream.run():
        assert downstream.declares("tools") and not downstream.declares("completions")


async def test_what_the_body_raises_leaves_run_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        async with InProcessDownstream("tools", server()).run():
            raise ZeroDivisionError
