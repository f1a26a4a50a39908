"""F: a forwarder that only copies bytes: raw ASGI in front, aiohttp behind."""

from __future__ import annotations

import os
from typing import Any

import aiohttp

from bench.listen import listen

BEHIND = os.environ.get("BEHIND", "")
_HOP = frozenset({b"host", b"content-length", b"connection", b"transfer-encoding"})
_client: list[aiohttp.ClientSession] = []


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Copy one request on, and its answer back."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    body, more = b"", True
    while more:
        part = await receive()
        if part["type"] == "http.disconnect":
            return
        body, more = body + part.get("body", b""), part.get("more_body", False)
    headers = {name.decode(): value.decode() for name, value in scope["headers"] if name not in _HOP}
    async with _client[0].post(BEHIND, data=body, headers=headers) as answer:
        said = await answer.read()
        kept = [(b"content-type", answer.headers["content-type"].encode()), (b"content-length", b"%d" % len(said))]
        await send({"type": "http.response.start", "status": answer.status, "headers": kept})
        await send({"type": "http.response.body", "body": said})


async def _live(receive: Any, send: Any) -> None:
    await receive()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as client:
        _client.append(client)
        await send({"type": "lifespan.startup.complete"})
        await receive()
    await send({"type": "lifespan.shutdown.complete"})


if __name__ == "__main__":
    listen(app)
