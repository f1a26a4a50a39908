"""Who asks: nobody without a token is answered, and an agent without an open session is told what to do."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest

from mcp_authz.store.ports import Event
from tests.road.places import BOTH
from tests.road.wire import wire
from tests.world import MODERN, World, modern_call, world

PULL = {"owner": "acme", "repo": "api"}
BODIES: dict[str, dict[str, Any]] = {
    "a call of a tool": modern_call("acme__deploy", {}),
    "a call of an unknown tool": modern_call("nobody__knows", {}),
    "a handshake": {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}},
    "a listing": {"jsonrpc": "2.0", "id": 1, "method": "tools/list"},
    "an unknown method": {"jsonrpc": "2.0", "id": 1, "method": "admin/everything"},
    "a notification": {"jsonrpc": "2.0", "method": "notifications/initialized"},
    "an answer": {"jsonrpc": "2.0", "id": 1, "result": {}},
}


def headers_for(body: dict[str, Any]) -> dict[str, str]:
    """The headers that belong to a body of the newer era."""
    if "_meta" not in body.get("params", {}):
        return {}
    return {"mcp_protocol_version": MODERN, "mcp_method": body["method"], "mcp_name": body["params"]["name"]}


async def test_without_credentials_every_message_gets_the_same_challenge(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        answers = {kind: await w.post(body, **headers_for(body)) for kind, body in BODIES.items()}
        for kind, answer in answers.items():
            assert answer.status_code == 401, kind
            where = f"{w.config.public_url}/.well-known/oauth-protected-resource/mcp"
            where = f'resource_metadata="{where}", scope="mcp:connect"'
            challenge = f'Bearer {where}, DPoP algs="EdDSA Ed25519 ES256", {where}'
            assert answer.headers["www-authenticate"] == challenge, kind
            assert answer.json()["error"]["code"] == 40100, kind
        assert await w.decisions() == []


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_streams_and_sessions_are_not_given_without_credentials(tmp_path: Path, method: str) -> None:
    async with world(tmp_path) as w, httpx2.AsyncClient() as http:
        answer = await http.request(method, w.url, headers={"accept": "text/event-stream", "mcp-session-id": "x"})
        assert answer.status_code == 401
        assert 'scope="mcp:connect"' in answer.headers["www-authenticate"]


@pytest.mark.parametrize("token", ["nonsense", "a.b.c", "a b"])
async def test_a_token_that_is_not_ours_is_refused_as_invalid(tmp_path: Path, token: str) -> None:
    async with world(tmp_path) as w:
        answer = await w.raw_call(token, "acme__deploy", {})
        assert answer.status_code == 401
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]
        assert 'scope="mcp:connect"' in answer.headers["www-authenticate"]


async def test_where_to_get_a_token_can_be_read_without_one(tmp_path: Path) -> None:
    async with world(tmp_path) as w, httpx2.AsyncClient() as http:
        metadata = (await http.get(f"{w.config.public_url}/.well-known/oauth-protected-resource/mcp")).json()
        assert metadata["resource"] == w.url
        assert metadata["authorization_servers"] == [w.config.public_url]


@BOTH
async def test_an_agent_without_a_session_is_told_to_ask_a_person(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path) as w:
        await w.person("alice")
        coder = await w.agent("coder", ceiling="pr")
        denied = await w.call(coder, "acme__list_pull_requests", mode, **PULL)
        assert [f["reason"] for f in await w.decisions()] == ["no_session"]
    assert denied.is_error and denied.envelope["reason"] == "no_session"
    assert "authz__request_session" in denied.text


async def end_session(w: World) -> None:
    """The operator ends the only session there is."""
    (session,) = await w.store.sessions()
    await w.store.revoke("session", session.id, Event(kind="revocation", at=w.clock(), fields={}))


@BOTH
async def test_a_session_that_was_ended_stops_the_next_call(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr")
        async with wire(w, coder, mode, "pr") as client:
            assert not (await (await client.call("acme__list_pull_requests", PULL)).result()).get("isError")
            await end_session(w)
            over = await client.call("acme__list_pull_requests", PULL)
            result = await over.result()
    assert over.status == 200
    assert result["_meta"]["dev.mcp-authz/outcome"]["reason"] == "session_over"
    assert "authz__request_session" in result["content"][0]["text"]


@BOTH
async def test_a_session_that_was_idle_for_too_long_is_over(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr")
        w.clock.advance(timedelta(hours=1, minutes=55))
        async with wire(w, coder, mode, "pr") as client:
            w.clock.advance(timedelta(minutes=6))
            result = await (await client.call("acme__list_pull_requests", PULL)).result()
    assert result["_meta"]["dev.mcp-authz/outcome"]["reason"] == "session_over"


@BOTH
async def test_a_token_whose_agent_was_revoked_is_refused_at_the_next_call(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr")
        async with wire(w, coder, mode, "pr") as client:
            await w.store.revoke("agent", "coder", Event(kind="revocation", at=w.clock(), fields={}))
            refused = await client.call("acme__list_pull_requests", PULL)
            await refused.end()
    assert refused.status == 401 and 'error="invalid_token"' in refused.challenge
