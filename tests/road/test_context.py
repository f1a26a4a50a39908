"""A tool server that asks the gateway's context token who is served, and by whom: over stdio, over HTTP, in both eras."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from mcp_authz.rules import jose
from mcp_authz.rules.context_token import HEADER, META
from mcp_authz.verify import Assurance, CallContext, Mode, NotAuthorized, Verifier
from tests.attacks.attacker import serving, spy, tool
from tests.world import LEGACY, MODERN, ROOT, World, world

TOOLS = {
    "list_notes": {"hazard": "read", "scopes": ["notes:read"]},
    "add_note": {"hazard": "write", "scopes": ["notes:write"]},
}
SCOPES = "notes:read notes:write"


def command(url: str, *more: str) -> list[str]:
    return [sys.executable, "-m", "examples.context.server", "--gateway", url, "--writer", "coder", *more]


def over_stdio(url: str) -> dict[str, Any]:
    return {"notes": {"command": command(url), "cwd": str(ROOT), "context": True, "tools": TOOLS}}


@contextmanager
def over_http() -> Iterator[Callable[[str], dict[str, Any]]]:
    """What starts the example over HTTP once the gateway's URL is known; it ends with the body."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(url: str) -> dict[str, Any]:
        process = subprocess.Popen(command(url, "--http", "0"), cwd=ROOT, stdout=subprocess.PIPE)
        processes.append(process)
        assert process.stdout is not None
        port = int(process.stdout.readline())
        return {"notes": {"url": f"http://127.0.0.1:{port}/mcp", "context": True, "tools": TOOLS}}

    try:
        yield start
    finally:
        for process in processes:
            process.kill()
            process.communicate()


async def everybody_sees_their_own_notes(w: World) -> None:
    coder, bobs = await w.ready("coder", SCOPES), await w.ready("helper", SCOPES, subject="bob")
    for mode in (MODERN, LEGACY):
        added = await w.call(coder, "notes__add_note", mode, text="buy milk")
        assert not added.is_error, added.text
    assert (await w.call(coder, "notes__list_notes")).text == "buy milk\nbuy milk"
    assert (await w.call(bobs, "notes__list_notes")).text == ""
    refused = await w.call(bobs, "notes__add_note", text="x")
    assert refused.is_error and "agent:helper may not write notes" in refused.text


async def test_behind_the_gateway_everybody_sees_their_own_notes_over_stdio(tmp_path: Path) -> None:
    async with world(tmp_path, servers=over_stdio) as w:
        await everybody_sees_their_own_notes(w)


async def test_over_http_too_and_nobody_gets_round_the_gateway(tmp_path: Path) -> None:
    with over_http() as start:
        async with world(tmp_path, servers=start) as w:
            await everybody_sees_their_own_notes(w)
            url = w.config.servers["notes"].url
            assert url is not None
            assert "carries no context token" in await directly(url, "list_notes")


async def directly(url: str, name: str, token: str | None = None, **arguments: Any) -> str:
    """What the tool server itself says to a client that goes round the gateway."""
    async with httpx2.AsyncClient() as http:
        async with Client(streamable_http_client(url, http_client=http)) as client:
            meta: Any = {} if token is None else {META: token}
            result = await client.call_tool(name, arguments, meta=meta)
            return "\n".join(part.text for part in result.content if part.type == "text")
