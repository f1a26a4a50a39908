"""Row 39: headers say one thing, the body another; whoever routes by the one would be led around the other."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.attacks.attacker import Spy, answer_in, handshake, spy, tool
from tests.world import MODERN, World, modern_call, world

HEADER_MISMATCH = -32020
SCHEMA = {
    "type": "object",
    "properties": {
        "region": {"type": "string", "x-mcp-header": "Region"},
        "count": {"type": "integer", "x-mcp-header": "Count"},
        "deep": {"type": "object", "properties": {"er": {"type": "boolean", "x-mcp-header": "Deeper"}}},
    },
}
ARGUMENTS = {"region": "eu", "count": 3, "deep": {"er": True}}
PARAMETERS = {"mcp-param-region": "eu", "mcp-param-count": "3", "mcp-param-deeper": "true"}


def sentinel(text: str) -> str:
    return f"=?base64?{base64.b64encode(text.encode()).decode()}?="


@asynccontextmanager
async def routed(directory: Path) -> AsyncIterator[tuple[World, str, Spy]]:
    """A gateway in front of a tool whose arguments are repeated in headers."""
    server = spy(directory / "spy", tool("look", inputSchema=SCHEMA), tool("burn"))
    tools = {"look": {"hazard": "read"}, "burn": {"hazard": "read"}}
    async with world(directory, servers={"spy": server.config(tools=tools)}) as w:
        yield w, await w.token(await w.ready("coder", "spy:look spy:burn")), server


async def post(w: World, token: str, body: Any, lines: dict[str, str | None]) -> httpx2.Response:
    """A call with its right headers, except for `lines`."""
    right = {"mcp-protocol-version": MODERN, "mcp-method": "tools/call", "mcp-name": "spy__look", **PARAMETERS}
    headers = {name: value for name, value in {**right, **lines}.items() if value is not None}
    return await w.post(body, token, **headers)


WRONG: dict[str, dict[str, str | None]] = {
    "another method": {"mcp-method": "tools/list"},
    "a method in capitals": {"mcp-method": "TOOLS/CALL"},
    "no method": {"mcp-method": None},
    "an empty method": {"mcp-method": ""},
    "another name": {"mcp-name": "spy__burn"},
    "a name without its server": {"mcp-name": "look"},
    "a name in capitals": {"mcp-name": "SPY__LOOK"},
    "no name": {"mcp-name": None},
    "another name, encoded": {"mcp-name": sentinel("spy__burn")},
    "a name with something behind it, encoded": {"mcp-name": sentinel("spy__look\n")},
    "a name in bad base64": {"mcp-name": "=?base64?c3B5X19sb29r!?="},
    "a name in base64 of another writing": {"mcp-name": "=?base64?c3B5X19sb29r=?="},
    "another parameter": {"mcp-param-region": "us"},
    "another number": {"mcp-param-count": "4"},
    "another truth": {"mcp-param-deeper": "false"},
    "no parameter": {"mcp-param-region": None},
    "no deep parameter": {"mcp-param-deeper": None},
    "another parameter, encoded": {"mcp-param-region": sentinel("us")},
}


@pytest.mark.parametrize("what", WRONG)
async def test_a_header_that_disagrees_with_the_body_stops_the_call(tmp_path: Path, what: str) -> None:
    async with routed(tmp_path) as (w, token, server):
        answered = await post(w, token, modern_call("spy__look", ARGUMENTS), WRONG[what])
        assert answered.status_code == 400
        assert answered.json()["error"]["code"] == HEADER_MISMATCH
        assert server.ran == []


BODIES: dict[str, dict[str, Any]] = {
    "another tool": modern_call("spy__burn", ARGUMENTS),
    "another argument": modern_call("spy__look", {**ARGUMENTS, "region": "us"}),
    "an argument left out": modern_call("spy__look", {"region": "eu", "count": 3}),
    "another method": {**modern_call("spy__look", ARGUMENTS), "method": "tools/list"},
}


@pytest.mark.parametrize("what", BODIES)
async def test_a_body_that_disagrees_with_its_headers_does_not_run(tmp_path: Path, what: str) -> None:
    async with routed(tmp_path) as (w, token, server):
        answered = await post(w, token, BODIES[what], {})
        assert answered.status_code == 400
        assert answered.json()["error"]["code"] == HEADER_MISMATCH
        assert server.ran == []


async def test_headers_that_agree_in_any_spelling_pass(tmp_path: Path) -> None:
    async with routed(tmp_path) as (w, token, server):
        for lines in ({}, {"mcp-name": sentinel("spy__look")}, {"mcp-param-region": sentinel("eu")}):
            assert (await post(w, token, modern_call("spy__look", ARGUMENTS), dict(lines))).status_code == 200
        assert len(server.ran) == 3


@pytest.mark.parametrize("version", ["2025-11-25", "2024-11-05", "2099-01-01", ""])
async def test_a_version_in_the_header_that_the_body_does_not_have_runs_nothing(tmp_path: Path, version: str) -> None:
    async with routed(tmp_path) as (w, token, server):
        answered = await post(w, token, modern_call("spy__look", ARGUMENTS), {"mcp-protocol-version": version})
        assert 400 <= answered.status_code < 500
        assert server.ran == []


async def test_a_version_in_the_body_that_the_header_does_not_have_runs_nothing(tmp_path: Path) -> None:
    async with routed(tmp_path) as (w, token, server):
        meta = {"io.modelcontextprotocol/protocolVersion": "2025-11-25"}
        answered = await post(w, token, modern_call("spy__look", ARGUMENTS, meta=meta), {})
        assert answered.status_code == 400 and answered.json()["error"]["code"] == HEADER_MISMATCH
        assert server.ran == []


async def test_a_handshake_session_is_not_led_around_by_headers_of_the_other_era(tmp_path: Path) -> None:
    async with routed(tmp_path) as (w, token, server), handshake(w, token) as session:
        call = {"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": {"name": "spy__look", "arguments": {}}}
        answered = await session.send(call, mcp_protocol_version=MODERN, mcp_method="tools/call", mcp_name="spy__look")
        assert answered.status_code == 400  # the era of the header has an envelope, and this body has none
        assert server.ran == []
        answer = answer_in(await session.send(call, mcp_name="spy__burn"))  # a header this era does not know
        assert "result" in answer
        assert [name for name, _ in server.ran] == ["look"]
