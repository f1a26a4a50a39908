"""What `tool_adapters.sdk` relies on although the SDK does not promise it: an upgrade that breaks it breaks here."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from contextvars import Context, ContextVar
from importlib.metadata import version
from typing import Any

import httpx2
import mcp.client.streamable_http
import mcp.shared.jsonrpc_dispatcher
import pytest
from mcp.server.mcpserver import Context as ToolContext
from mcp.server.mcpserver import MCPServer
from mcp_types import JSONRPCError, JSONRPCNotification, JSONRPCRequest, JSONRPCResponse

from mcp_authz.errors import DownstreamRefusal
from tests.servers.start import Caller, admitted
from tool_adapters import sdk
from tool_adapters.http import _REQUEST
from tool_adapters.in_process import InProcessDownstream
from tool_adapters.sdk import Broken, _broken, broken_answer, connect, memory_streams

ORIGIN: ContextVar[str] = ContextVar("origin", default="nobody")


class Notes:
    """A listener that keeps what it hears and from whose request it came."""

    def __init__(self) -> None:
        self.heard_from: list[tuple[str, str]] = []

    def heard(self, method: str, params: Mapping[str, Any], origin: Context | None) -> None:
        self.heard_from.append((method, origin.get(ORIGIN, "nobody") if origin is not None else "nobody"))

    async def asked(self, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        return {"action": "accept", "content": {"from": ORIGIN.get()}}


def test_the_sdk_is_the_one_whose_source_was_read() -> None:
    assert version("mcp").startswith("2.3.")


@pytest.mark.parametrize("text", [text for _, text, _ in sdk._MADE_UP])
def test_the_errors_that_the_transport_makes_up_have_the_known_texts(text: str) -> None:
    sources = inspect.getsource(mcp.client.streamable_http) + inspect.getsource(mcp.shared.jsonrpc_dispatcher)
    assert f'"{text}' in sources


def test_an_error_of_the_server_is_not_taken_for_one_that_the_transport_made_up() -> None:
    assert _broken(JSONRPCError(jsonrpc="2.0", id=1, error={"code": -32000, "message": "x", "data": {}}).error) is None  # type: ignore[arg-type]
    mark = broken_answer("gone", sent=True)
    assert isinstance(_broken(mark), Broken)
    forged = mark.model_copy(update={"data": {"broken-": dict(mark.data.popitem()[1])}, "message": "x"})
    assert _broken(forged) is None


@pytest.mark.parametrize(
    ("message", "expects_answer"),
    [
        (JSONRPCRequest(jsonrpc="2.0", id=1, method="tools/call", params={}), True),
        (JSONRPCRequest(jsonrpc="2.0", id="listen-1", method="subscriptions/listen"), True),
        (JSONRPCNotification(jsonrpc="2.0", method="notifications/cancelled", params={"id": 1, "method": "x"}), False),
        (JSONRPCResponse(jsonrpc="2.0", id=1, result={"method": "x"}), False),
    ],
)
def test_a_request_is_told_from_other_messages_by_its_first_bytes(message: Any, expects_answer: bool) -> None:
    assert 'json=message.model_dump(by_alias=True, mode="json", exclude_unset=True)' in inspect.getsource(
        mcp.client.streamable_http
    )
    body = message.model_dump(by_alias=True, mode="json", exclude_unset=True)
    content = httpx2.Request("POST", "http://localhost", json=body).content
    assert (_REQUEST.match(content) is not None) is expects_answer


async def test_what_a_server_says_during_a_request_carries_the_context_of_that_request() -> None:
    tools, notes = MCPServer("tools"), Notes()

    @tools.tool()
    async def talk(context: ToolContext[Any, Any]) -> str:
        await context.report_progress(1)
        return "done"

    async with memory_streams(tools) as streams, connect(streams, notes) as session:
        for name in ("alice", "bob"):
            ORIGIN.set(name)
            await session.send("tools/call", {"name": "talk", "arguments": {}, "_meta": {"progressToken": 1}})
    assert notes.heard_from == [("notifications/progress", "alice"), ("notifications/progress", "bob")]


async def test_a_newer_server_is_told_of_form_and_url_elicitation_and_of_nothing_else() -> None:
    tools = MCPServer("tools")

    @tools.tool()
    async def declared(context: ToolContext[Any, Any]) -> dict[str, Any]:
        meta: Any = context.request_context.meta
        return {"capabilities": meta["io.modelcontextprotocol/clientCapabilities"]}

    downstream = InProcessDownstream("tools", tools)
    async with downstream.run():
        result = await downstream.forward(admitted("declared"), Caller())
    assert result["structuredContent"]["capabilities"] == {"elicitation": {"form": {}, "url": {}}}


async def test_a_refusal_and_an_ended_connection_are_told_apart() -> None:
    async with memory_streams(MCPServer("tools")) as streams:
        async with connect(streams, Notes()) as session:
            with pytest.raises(DownstreamRefusal):
                await session.send("no/such/method", {})
        with pytest.raises(Broken) as broken:
            await session.send("tools/list", {})
    assert not broken.value.sent
