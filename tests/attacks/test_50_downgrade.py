"""Row 50, as far as it applies yet: less proof than a tool demands, an older protocol version, links left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks.attacker import LEGACY_VERSION, answer_in, handshake, spy, tool
from tests.world import ENVELOPE, world


@pytest.mark.parametrize("proof", ["dpop", "signed"])
async def test_a_bearer_token_does_not_do_where_more_is_demanded_in_neither_era(tmp_path: Path, proof: str) -> None:
    server = spy(tmp_path / "spy", tool("look"))
    entry = server.config(tools={"look": {"hazard": "read", "proof": proof}})
    async with world(tmp_path, servers={"spy": entry}) as w:
        token = await w.token(await w.ready("coder", "spy:look"))
        claimed = {"dev.mcp-authz/invocation": "signed", "dev.mcp-authz/delegation": []}
        said = [answer_in(await w.raw_call(token, "spy__look", {}, meta=claimed, headers={"dpop": "x.y.z"}))]
        async with handshake(w, token, dpop="x.y.z") as session:
            said.append(await session.call("spy__look", {}, _meta=claimed))
        assert [message["result"]["_meta"][ENVELOPE]["reason"] for message in said] == ["proof_required"] * 2
        assert server.ran == []


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", LEGACY_VERSION])
async def test_an_older_version_takes_the_same_road(tmp_path: Path, version: str) -> None:
    server = spy(tmp_path / "spy", tool("drop"))
    async with world(tmp_path, servers={"spy": server.config(tools={"drop": {"scopes": ["spy:drop"]}})}) as w:
        token = await w.token(await w.ready("coder", "spy:drop"))
        async with handshake(w, token) as session:
            held = answer_in(
                await session.send(
                    {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "spy__drop"}},
                    mcp_protocol_version=version,
                )
            )
        assert held["result"]["_meta"][ENVELOPE]["outcome"] == "held"
        assert server.ran == []


async def test_a_token_in_the_agents_own_name_calls_nothing(tmp_path: Path) -> None:
    # Links are left out by asking for a token before there is a session: it connects and lists, and that is all.
    server = spy(tmp_path / "spy", tool("look"))
    async with world(tmp_path, servers={"spy": server.config(tools={"look": {"hazard": "read"}})}) as w:
        await w.person("alice")
        token = await w.token(await w.agent("coder", ceiling="spy:look"))
        await w.start(await w.grant("alice", "coder", "spy:look"))
        said = [answer_in(await w.raw_call(token, "spy__look", {}))]
        async with handshake(w, token) as session:
            said.append(await session.call("spy__look", {}))
        assert [message["result"]["_meta"][ENVELOPE]["reason"] for message in said] == ["no_session"] * 2
        assert server.ran == []
