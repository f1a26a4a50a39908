"""A tool server that runs in this process: for embedding, and for tests."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any

from mcp.server import Server
from mcp.server.mcpserver import MCPServer

from mcp_authz.limits import CALL_TIMEOUT, START_TIMEOUT
from tool_adapters.connection import ConnectedDownstream
from tool_adapters.sdk import Streams, memory_streams


class InProcessDownstream(ConnectedDownstream):
    """A server object of the MCP SDK, spoken to as if it were another process."""

    def __init__(
        self,
        name: str,
        server: Server[Any] | MCPServer,
        *,
        start_timeout: timedelta = START_TIMEOUT,
        call_timeout: timedelta = CALL_TIMEOUT,
    ) -> None:
        super().__init__(name, start_timeout=start_timeout, call_timeout=call_timeout)
        self._server = server

    def _open(self) -> AbstractAsyncContextManager[Streams]:
        return memory_streams(self._server)
