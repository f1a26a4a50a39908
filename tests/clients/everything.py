"""The everything server that comes with the SDK's source, on a port; `older` makes it one of 2025-11-25 alone.

The folder of its package is the first argument, the port the second.
"""

from __future__ import annotations

import sys
from typing import Any

import uvicorn
from starlette.responses import JSONResponse

VERSION = b"mcp-protocol-version"


def main(folder: str, port: str, *words: str) -> None:
    sys.path.insert(0, folder)
    from mcp_everything_server.server import event_store, mcp  # type: ignore[import-not-found]

    both = mcp.streamable_http_app(event_store=event_store, retry_interval=100)

    async def older(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and dict(scope["headers"]).get(VERSION) == b"2026-07-28":
            error = {"code": -32600, "message": "Bad Request: Unsupported protocol version"}
            await JSONResponse({"jsonrpc": "2.0", "id": None, "error": error}, 400)(scope, receive, send)
        else:
            await both(scope, receive, send)

    uvicorn.run(older if "older" in words else both, host="127.0.0.1", port=int(port), log_level="error")


if __name__ == "__main__":
    main(*sys.argv[1:])
