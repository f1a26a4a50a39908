"""Streams end with their caller's authority, and whoever goes on listening hears that their tools may have changed."""

from __future__ import annotations

from pathlib import Path

import anyio
import httpx2

from mcp_authz.revocation import Revocation
from tests.road.tasks import listening
from tests.world import OPERATOR, World, world

SOON = 10


async def revoke_session(w: World, agent: str) -> None:
    (session,) = [one for one in await w.store.sessions() if one.agent == agent]
    await Revocation(w.store, w.clock).revoke("session", session.id, reason="over", by=OPERATOR)


async def test_a_stream_ends_with_its_session_and_others_hear_that_their_tools_may_have_changed(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder, tester = await w.ready("coder", "deploy:staging"), await w.ready("tester", "deploy:staging")
        async with (
            listening(w, await w.token(coder), toolsListChanged=True) as one,
            listening(w, await w.token(tester), toolsListChanged=True) as other,
        ):
            acknowledged = "notifications/subscriptions/acknowledged"
            assert [(await anext(it))["method"] for it in (one, other)] == [acknowledged, acknowledged]
            await revoke_session(w, "coder")
            rest = [message async for message in one]
            assert "result" in rest[-1]  # the stream is over, in order
            assert (await anext(other))["method"] == "notifications/tools/list_changed"
            assert w.running.parts.underway.count == 1


async def test_the_stream_of_an_older_client_ends_with_its_session_and_it_can_open_another(tmp_path: Path) -> None:
    async with world(tmp_path) as w, httpx2.AsyncClient(timeout=SOON) as http:
        coder = await w.ready("coder", "deploy:staging")
        headers = {
            "authorization": f"Bearer {await w.token(coder)}",
            "accept": "application/json, text/event-stream",
            "content-type": "application/json",
        }
        hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
        began = await http.post(w.url, json=body, headers=headers)
        headers["mcp-session-id"] = began.headers["mcp-session-id"]
        del headers["content-type"]
        async with http.stream("GET", w.url, headers=headers) as stream:
            assert stream.status_code == 200
            await revoke_session(w, "coder")
            with anyio.fail_after(SOON):
                assert [line async for line in stream.aiter_lines()] == []  # it ends as a whole response does
        await w.start(await w.grant("alice", "coder", "deploy:staging"))
        headers["authorization"] = f"Bearer {await w.token(coder)}"
        async with http.stream("GET", w.url, headers=headers) as stream:
            assert stream.status_code == 200
