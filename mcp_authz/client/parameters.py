"""`Mcp-Param-*`: which arguments of which tool a 2026-07-28 call repeats in its headers, as its schema says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import anyio.to_thread

from mcp_authz.client.messages import Message, dump

_ANNOTATION: Final = b'"x-mcp-header"'


class Parameters:
    """What the last list of tools said; most tools say nothing, and then nothing is loaded for it."""

    def __init__(self) -> None:
        self._of: Mapping[str, Mapping[tuple[str, ...], str]] = {}

    async def learn(self, tools: Any) -> None:
        """The list counts from now on."""
        annotated = [
            tool
            for tool in (tools if isinstance(tools, list) else [])
            if isinstance(tool, dict) and _ANNOTATION in dump(tool.get("inputSchema"))
        ]
        self._of = await anyio.to_thread.run_sync(_read, annotated) if annotated else {}

    def headers(self, message: Message) -> Mapping[str, str]:
        """The headers of a call beside those that every message has."""
        name, arguments = message.params.get("name"), message.params.get("arguments")
        if message.method != "tools/call" or not self._of or not isinstance(arguments, dict):
            return {}
        from mcp.shared.inbound import mcp_param_headers

        return mcp_param_headers(self._of.get(name, {}) if isinstance(name, str) else {}, arguments)


def _read(tools: list[dict[str, Any]]) -> Mapping[str, Mapping[tuple[str, ...], str]]:
    from mcp.shared.inbound import find_invalid_x_mcp_header, x_mcp_header_map  # here: loading it takes long

    return {
        str(tool.get("name")): x_mcp_header_map(tool["inputSchema"])
        for tool in tools
        if find_invalid_x_mcp_header(tool["inputSchema"]) is None
    }
