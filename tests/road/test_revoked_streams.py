"""Streams end with their caller's authority, and whoever goes on listening hears that their tools may have changed."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import anyio
import httpx2

from mcp_authz import limits
from mcp_authz.revocation import Revocation
from mcp_authz.stopping import Stopping
from tests.attacks.test_34_revoked_while_held import SCOPE
from tests.attacks.test_34_revoked_while_running import permitted, plain
from tests.road.places import plain as shelf
from tests.road.tasks import listening
from tests.world import OPERATOR, World, world

SOON = 10


async def revoke_session(w: World, agent: str) -> None:
    (session,) = [one for one in await w.store.sessions() if one.agent == agent]
    await Revocation(w.store, w.clock).revoke("session", session.id, reason="over", by=OPERATOR)


async def older(w: World, http: httpx2.AsyncClient, token: str) -> dict[str, str]:
    """The headers with which a client of 2025-11-25 opens its stream, once it has introduced itself."""
    accept = "application/json, text/event-stream"
    headers = {"authorization": f"Bearer {token}", "accept": accept, "content-type": "application/json"}
    hello = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    body = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello}
    began = await http.post(w.url, json=body, headers=headers)
    headers["mcp-session-id"] = began.headers["mcp-session-id"]
    del headers["content-type"]
    return headers


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
        headers = await older(w, http, await w.token(coder))
        async with http.stream("GET", w.url, headers=headers) as stream:
            assert stream.status_code == 200
            await revoke_session(w, "coder")
            with anyio.fail_after(SOON):
                assert [line async for line in stream.aiter_lines()] == []  # it ends as a whole response does
        await w.start(await w.grant("alice", "coder", "deploy:staging"))
        headers["authorization"] = f"Bearer {await w.token(coder)}"
        async with http.stream("GET", w.url, headers=headers) as stream:
            assert stream.status_code == 200


async def test_a_stream_ends_with_the_token_that_it_was_asked_with_and_a_call_does_not(tmp_path: Path) -> None:
    async with (
        world(tmp_path, servers={"plain": plain("read")}) as w,
        anyio.create_task_group() as group,
        httpx2.AsyncClient(timeout=SOON) as http,
    ):
        token = await w.token(await w.ready("coder", SCOPE))
        w.clock.advance(limits.ACCESS_TOKEN_LIFETIME - timedelta(seconds=2))
        group.start_soon(w.raw_call, token, "plain__wait", {"tag": "x"})
        await permitted(w, 1)
        headers = await older(w, http, token)
        async with (
            listening(w, token, toolsListChanged=True) as modern,
            http.stream("GET", w.url, headers=headers) as old,
        ):
            assert (await anext(modern))["method"] == "notifications/subscriptions/acknowledged"
            with anyio.fail_after(SOON):
                rest = [message async for message in modern]
                assert [line async for line in old.aiter_lines()] == []
        assert "result" in rest[-1] and w.running.parts.underway.count == 1
        group.cancel_scope.cancel()


async def test_lists_are_as_a_revocation_left_them_at_once_and_whoever_listens_for_them_hears(tmp_path: Path) -> None:
    async with world(tmp_path, servers={"plain": shelf("book")}) as w:
        reader = await w.ready("reader", "plain:resources use")
        asked = {"toolsListChanged": True, "resourcesListChanged": True, "promptsListChanged": True}
        async with w.client(reader) as client:
            assert len((await client.list_resources()).resources) == 1
        await Stopping(w.store, w.clock).server_off("plain", reason="leaks", by=OPERATOR)  # nothing runs just now
        async with w.client(reader) as client:
            assert (await client.list_resources()).resources == []
        async with listening(w, await w.token(reader), **asked) as stream:
            await anext(stream)
            await Stopping(w.store, w.clock).server_on("plain", by=OPERATOR)
            (pin,) = [pin for pin in await w.store.pins() if pin.tool == "say"]
            await Stopping(w.store, w.clock).tool_off(pin, "plain__say", reason="leaks", by=OPERATOR)
            told = {(await anext(stream))["method"].removeprefix("notifications/") for _ in range(3)}
            assert told == {"tools/list_changed", "resources/list_changed", "prompts/list_changed"}
