"""More scope, when the person's grant has it: the client is sent for another token, and only when one would help."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from mcp_authz.store.ports import Event
from tests.road.places import BOTH
from tests.road.wire import wire
from tests.world import world

PULL = {"owner": "acme", "repo": "api"}
NEEDED = "pr:read:acme:api"


@BOTH
async def test_a_stock_client_gets_a_wider_token_by_itself_and_the_call_is_done(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr")
        done = await w.call(coder, "acme__list_pull_requests", mode, **PULL)
        decided = [(f["decision"], f.get("missing")) for f in await w.decisions()]
    assert not done.is_error and "Retry the payment call" in done.text
    assert decided == [("deny", ["mcp:connect", NEEDED]), ("permit", None)]


@BOTH
async def test_a_token_that_lacks_scope_is_challenged_with_http_403(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr")
        async with wire(w, coder, mode, "mcp:connect") as client:
            refused = await client.call("acme__list_pull_requests", PULL)
            error = (await refused.end())["error"]
    assert refused.status == 403
    assert refused.response.headers["content-type"] == "application/json"
    assert 'error="insufficient_scope"' in refused.challenge
    assert f'scope="mcp:connect {NEEDED}"' in refused.challenge
    assert f'resource_metadata="{w.config.public_url}/.well-known/oauth-protected-resource/mcp"' in refused.challenge
    assert error["code"] == 40300 and NEEDED in error["message"]


@BOTH
async def test_a_session_stays_usable_after_a_challenge(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr")
        async with wire(w, coder, mode, "mcp:connect") as client:
            assert (await client.call("acme__list_pull_requests", PULL)).status == 403
            client.headers["authorization"] = f"Bearer {await w.token(coder, f'mcp:connect {NEEDED}')}"
            assert not (await (await client.call("acme__list_pull_requests", PULL)).result()).get("isError")


@BOTH
async def test_scope_beyond_the_persons_grant_is_denied_and_not_challenged(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path) as w:
        await w.person("alice")
        coder = await w.agent("coder", ceiling="pr secret")
        await w.start(await w.grant("alice", "coder", "pr:read:acme:web pr:write"))
        async with wire(w, coder, mode, "mcp:connect") as client:
            refused = await client.call("acme__list_pull_requests", PULL)
            result = await refused.result()
    assert refused.status == 200 and not refused.challenge
    assert result["isError"] and "Do not retry" in result["content"][0]["text"]
    assert result["_meta"]["dev.mcp-authz/outcome"]["reason"] == "insufficient_scope"


@BOTH
async def test_scope_beyond_the_agents_ceiling_is_denied_and_not_challenged(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr")
        agent, lowered = await w.store.agent("coder"), frozenset({"pr:read:acme:web"})
        event = Event(kind="administration", at=w.clock(), fields={"agent": "coder"})
        await w.store.update_agent(replace(agent, ceiling=lowered), event)
        async with wire(w, coder, mode, "mcp:connect") as client:
            refused = await client.call("acme__list_pull_requests", PULL)
            result = await refused.result()
    assert refused.status == 200 and not refused.challenge
    assert result["_meta"]["dev.mcp-authz/outcome"]["reason"] == "insufficient_scope"
