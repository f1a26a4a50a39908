"""S: a proxy of the SDK's two halves: its server in front, its client behind."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import mcp_types as types
from mcp import Client
from mcp.server import Server
from mcp.server.context import ServerRequestContext

from bench.listen import listen
from bench.wire import DEFINITION

BEHIND = os.environ.get("BEHIND", "")
Context = ServerRequestContext[Client]


@asynccontextmanager
async def lifespan(_: Server[Client]) -> AsyncIterator[Client]:
    """One client for all that happens meanwhile."""
    async with Client(BEHIND, cache=None) as client:
        await client.list_tools()
        yield client


async def list_tools(ctx: Context, params: Any) -> types.ListToolsResult:
    """Hand on the list."""
    return await ctx.lifespan_context.list_tools()


async def call_tool(ctx: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
    """Hand on one call."""
    return await ctx.lifespan_context.call_tool(params.name, params.arguments)


if __name__ == "__main__":
    server = Server(
        "sdk-proxy",
        lifespan=lifespan,
        on_list_tools=list_tools,
        on_call_tool=call_tool,
        get_tool_input_schema=lambda _: DEFINITION["inputSchema"],  # type: ignore[arg-type,return-value]
    )
    listen(server.streamable_http_app())
