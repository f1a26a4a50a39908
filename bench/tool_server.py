"""The tool server behind everybody: raw ASGI, one trivial tool, no library that could cost anything."""

from __future__ import annotations

import json
import os
from typing import Any

from bench.listen import listen
from bench.wire import DEFINITION, MODERN, TEXT

INFO = {"name": "bench", "version": "1"}
TOOLS = [DEFINITION, *({**DEFINITION, "name": f"other_{n}"} for n in range(1, int(os.environ.get("TOOLS", "1"))))]


def result(method: str) -> dict[str, Any] | None:
    """The result of one of the three methods that this server knows."""
    match method:
        case "tools/call":
            return {"resultType": "complete", "content": [{"type": "text", "text": TEXT}]}
        case "tools/list":
            return {"resultType": "complete", "tools": TOOLS, "ttlMs": 60_000, "cacheScope": "private"}
        case "server/discover":
            return {
                "resultType": "complete",
                "supportedVersions": [MODERN],
                "capabilities": {"tools": {}},
                "serverInfo": INFO,
                "ttlMs": 60_000,
                "cacheScope": "private",
            }
    return None


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer one message as JSON."""
    if scope["type"] == "lifespan":
        return
    body, more = b"", True
    while more:
        part = await receive()
        if part["type"] == "http.disconnect":
            return
        body, more = body + part.get("body", b""), part.get("more_body", False)
    message = json.loads(body or b"{}")
    said = result(message.get("method", ""))
    if "id" not in message or said is None:
        status = 404 if "id" in message else 202
        error = {"jsonrpc": "2.0", "id": message.get("id"), "error": {"code": -32601, "message": "Method not found"}}
        await _answer(send, status, json.dumps(error).encode())
        return
    await _answer(send, 200, json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": said}).encode())


async def _answer(send: Any, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    listen(app)
