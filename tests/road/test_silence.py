"""A stream that stays silent for long is kept alive, and a client that goes away ends its call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from mcp_authz.protocol import modern
from tests.road.places import plain
from tests.world import MODERN, World, modern_call, world


async def waiting(w: World) -> tuple[dict[str, str], dict[str, Any]]:
    """Headers and body of a call that its tool server does not answer."""
    token = await w.token(await w.ready("coder", "use"), "use")
    headers = {
        "authorization": f"Bearer {token}",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": MODERN,
        "mcp-method": "tools/call",
        "mcp-name": "tools__wait",
    }
    return headers, modern_call("tools__wait", {"tag": "x"})


async def test_a_client_that_waits_hears_something_now_and_then_and_its_call_ends_when_it_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modern, "PING_SECONDS", 0.05)
    async with world(tmp_path, servers={"tools": plain("modern")}) as w:
        headers, body = await waiting(w)
        async with httpx2.AsyncClient(timeout=20) as http, http.stream("POST", w.url, json=body, headers=headers) as r:
            pings = 0
            async for line in r.aiter_lines():
                pings += line == ": ping"
                if pings == 3:
                    break
        with anyio.fail_after(20):
            while not (ended := await w.records("outcome")):  # noqa: ASYNC110 - the log has no event
                await anyio.sleep(0.01)
        assert [(it.event.fields["outcome"], it.event.fields["ended_by"]) for it in ended] == [("unknown", "caller")]


async def test_a_client_that_can_be_told_nothing_any_more_has_gone_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modern, "PING_SECONDS", 0.05)

    async def broken(self: modern.Exchange) -> None:
        raise OSError("the connection is gone")

    monkeypatch.setattr(modern.Exchange, "ping", broken)
    async with world(tmp_path, servers={"tools": plain("modern")}) as w:
        headers, body = await waiting(w)
        async with httpx2.AsyncClient(timeout=20) as http, http.stream("POST", w.url, json=body, headers=headers):
            with anyio.fail_after(20):
                while not (ended := await w.records("outcome")):  # noqa: ASYNC110 - the log has no event
                    await anyio.sleep(0.01)
        assert [(it.event.fields["outcome"], it.event.fields["ended_by"]) for it in ended] == [("unknown", "caller")]
