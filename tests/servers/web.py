"""A tool server over Streamable HTTP, on the MCP SDK: `web.py` speaks both eras, `web.py legacy` only 2025-11-25.

Prints its port once it listens; `web.py 8123` listens there. `/faulty` is a server that answers wrongly in many ways.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import warnings
from typing import Any

import anyio
import mcp_types as types
import uvicorn
from mcp.server import NotificationOptions, Server
from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler
from mcp.shared.exceptions import MCPDeprecationWarning, MCPError
from mcp.shared.subscriptions import ToolsListChanged
from starlette.types import Receive, Scope, Send

LEGACY = "legacy" in sys.argv[1:]
PORT = next((int(word) for word in sys.argv[1:] if word.isdecimal()), 0)
SCHEMA = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
NAMES = ("say", "fail", "received", "talk", "wait", "cancelled", "ask", "change")
TOOLS = [{"name": name, "inputSchema": SCHEMA, "x-unknown": {"kept": True}} for name in NAMES]

bus = InMemorySubscriptionBus()
cancelled: set[str] = set()
cancellation = asyncio.Condition()

Context = ServerRequestContext[Any, Any]


def text(value: object) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": json.dumps(value)}], "structuredContent": {"value": value}}


async def call(context: Context, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    match name:
        case "say":
            said: dict[str, Any] = arguments["result"]
            return said
        case "fail":
            raise MCPError(**arguments["error"])
        case "received":
            return text({"params": context.params, "headers": dict(context.request.headers)})
        case "talk":
            await context.session.report_progress(1, 2, arguments["tag"])
            await context.session.send_log_message("warning", arguments["tag"], related_request_id=context.request_id)
            return text("done")
        case "wait":
            try:
                await context.session.report_progress(1)
                await anyio.sleep_forever()
            except asyncio.CancelledError:
                cancelled.add(arguments["tag"])
                with anyio.CancelScope(shield=True):
                    async with cancellation:
                        cancellation.notify_all()
                raise
        case "cancelled":
            async with cancellation, asyncio.timeout(20):
                await cancellation.wait_for(lambda: arguments["tag"] in cancelled)
            return text(arguments["tag"])
        case "ask":
            answer = await context.session.elicit_form(
                arguments["message"], {"type": "object", "properties": {}}, related_request_id=context.request_id
            )
            return text(answer.model_dump(mode="json", exclude_none=True))
        case "change":
            await bus.publish(ToolsListChanged())
            if LEGACY:
                await context.session.send_tool_list_changed()
            return text("done")
    raise LookupError(name)


async def verbatim(context: Context, call_next: CallNext) -> HandlerResult:
    """Answer below the SDK's types: they would drop what they do not know."""
    match context.method:
        case "server/discover" if LEGACY:
            raise MCPError(types.METHOD_NOT_FOUND, "Method not found")
        case "tools/list":
            return {"tools": TOOLS}
        case "tools/call":
            params = context.params or {}
            return await call(context, params["name"], params.get("arguments", {}))
    return await call_next(context)


async def never(*_: Any) -> Any:
    raise AssertionError("`verbatim` answers this")


async def faulty(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: PLR0912
    message = json.loads((await receive()).get("body") or b"{}")
    number, method = message.get("id"), message.get("method")

    async def reply(status: int, kind: str, body: bytes, **headers: str) -> None:
        named = [(key.replace("_", "-").encode(), value.encode()) for key, value in headers.items()]
        start = {"type": "http.response.start", "status": status, "headers": [(b"content-type", kind.encode()), *named]}
        await send(start)
        await send({"type": "http.response.body", "body": body})

    async def result(value: dict[str, Any]) -> None:
        body = {"jsonrpc": "2.0", "id": number, "result": {"resultType": "complete", **value}}
        await reply(200, "application/json", json.dumps(body).encode())

    big = json.dumps({"jsonrpc": "2.0", "id": number, "result": {"content": ["x" * 17 * 1024 * 1024]}}).encode()
    match message.get("params", {}).get("name", method):
        case "server/discover":
            await result({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "ttlMs": 0})
        case "fine":
            await result({"content": []})
        case "garbage":
            await reply(200, "application/json", b"{not json")
        case "html":
            await reply(200, "text/html", b"<h1>welcome</h1>")
        case "silence":
            await receive()
        case "http-500":
            await reply(500, "text/plain", b"SECRET stack trace")
        case "http-401":
            await reply(401, "text/plain", b"who are you")
        case "accepted":
            await reply(202, "text/plain", b"")
        case "elsewhere":
            await reply(307, "text/plain", b"", location="http://127.0.0.2:1/")
        case "huge":
            await reply(200, "application/json", big)
        case "huge event":
            await reply(200, "text/event-stream", b"event: message\ndata: " + big + b"\n\n")
        case "zipped":
            await reply(200, "application/json", b"\x1f\x8b", content_encoding="gzip")
        case "cut":
            await send(
                {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]}
            )
            await send({"type": "http.response.body", "body": b'{"jsonrpc"', "more_body": True})
            raise ConnectionAbortedError
        case "cut event":
            await reply(200, "text/event-stream", b"event: message\n")
        case _:
            error = {"code": -32601, "message": "Method not found"}
            await reply(404, "application/json", json.dumps({"jsonrpc": "2.0", "id": number, "error": error}).encode())


def main() -> None:
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    server = Server(
        "web",
        on_list_tools=never,
        on_call_tool=never,
        on_subscriptions_listen=ListenHandler(bus),
        get_tool_input_schema=lambda _: SCHEMA,
    )
    server.middleware.append(verbatim)
    options = server.create_initialization_options(NotificationOptions(tools_changed=True))
    server.create_initialization_options = lambda *_, **__: options  # type: ignore[method-assign]
    app = server.streamable_http_app()

    async def both(scope: Scope, receive: Receive, send: Send) -> None:
        await (faulty if scope.get("path") == "/faulty" else app)(scope, receive, send)

    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind(("127.0.0.1", PORT))
    listening.listen(256)
    sys.stdout.write(f"{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    config = uvicorn.Config(both, log_level="critical", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main()
