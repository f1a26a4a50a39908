"""How soon a revocation counts: until the next call is refused, and until a stream that runs has ended.

A stream ends by the very thing that cancels a call that runs. The gateway is a process of its own, and the revocation
is made by this one, as the command line makes it; or both are one process. What is measured begins before the
revocation is written.
"""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

from bench.held import Caller, Desk, answer_of, enrolled, send
from bench.holds import config_of, serving, serving_here, spread
from bench.wire import MODERN
from mcp_authz.config import Config
from mcp_authz.installation import open_installation


async def revocation(directory: Path, behind: str, *, rounds: int) -> dict[str, Any]:
    """Milliseconds, in one process and between two."""
    config = config_of(directory / "one", behind, waiting=0)
    async with serving_here(config) as desk:
        one = await _measured(desk, rounds)
    config = config_of(directory / "two", behind, waiting=0)
    async with open_installation(config) as here:
        desk = await enrolled(here, config)
        with serving(directory / "two", config):
            two = await _measured(desk, rounds)
    return {"one process": one, "two processes": two}


async def _measured(desk: Desk, rounds: int) -> dict[str, dict[str, float]]:
    refused, ended = [], []
    for number in range(rounds):
        caller = await desk.caller("coder")
        reader, writer = await _listen(desk.config, caller)
        began = time.perf_counter()
        await desk.call_off(caller)
        asked, answered = await send(desk.config, caller, line=number + 1)
        body = await answer_of(asked)
        refused.append((time.perf_counter() - began) * 1e3)
        if b'"denied"' not in body:
            raise AssertionError(f"this was not refused: {body!r}")
        await reader.readuntil(b"0\r\n\r\n")
        ended.append((time.perf_counter() - began) * 1e3)
        for each in (writer, answered):
            each.close()
    return {"refused": spread(refused), "ended": spread(ended)}


async def _listen(config: Config, caller: Caller) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream that tells of changed tools, once it has begun."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"notifications": {"toolsListChanged": True}, "_meta": meta}
    body = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "subscriptions/listen", "params": params}).encode()
    lines = [
        "POST /mcp HTTP/1.1",
        f"host: localhost:{config.listen_port}",
        "content-type: application/json",
        "accept: application/json, text/event-stream",
        f"content-length: {len(body)}",
        f"mcp-protocol-version: {MODERN}",
        "mcp-method: subscriptions/listen",
        f"authorization: Bearer {caller.token}",
    ]
    reader, writer = await asyncio.open_connection("127.0.0.1", config.listen_port)
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    await reader.readuntil(b"acknowledged")
    return reader, writer
