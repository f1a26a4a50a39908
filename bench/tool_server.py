"""The tool server behind everybody: raw ASGI, one trivial tool, no library that could cost anything.

With the word `stdio` it speaks on standard input and output instead.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

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


def answer(message: dict[str, Any]) -> dict[str, Any]:
    """The JSON-RPC answer to a message."""
    said = result(message.get("method", ""))
    if "id" not in message or said is None:
        error = {"code": -32601, "message": "Method not found"}
        return {"jsonrpc": "2.0", "id": message.get("id"), "error": error}
    return {"jsonrpc": "2.0", "id": message["id"], "result": said}


def on_stdio() -> None:
    """Every request was answered that came as a line."""
    for line in sys.stdin:
        if "id" in (message := json.loads(line)):
            print(json.dumps(answer(message)), flush=True)


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
    said = answer(message)
    status = 200 if "result" in said else 404 if "id" in message else 202
    await _answer(send, status, json.dumps(said).encode())


async def _answer(send: Any, status: int, body: bytes) -> None:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


if __name__ == "__main__":
    if "stdio" in sys.argv[1:]:
        on_stdio()
    else:
        from bench.listen import listen  # here: a server on stdio starts without it

        listen(app)
