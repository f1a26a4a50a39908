"""Row 50: less proof than a tool demands, an older protocol version, links left out: the same answer in all eras."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_authz.rules.call_proof import DELEGATION, INVOCATION
from tests.attacks.attacker import LEGACY_VERSION, answer_in, handshake, reason, spy, tool
from tests.signing import signing
from tests.world import ENVELOPE, world

VERSIONS = ["2024-11-05", "2025-03-26", "2025-06-18", LEGACY_VERSION]


async def test_a_signed_tool_takes_nothing_less_in_any_era(tmp_path: Path) -> None:
    server = spy(tmp_path / "spy", tool("look"))
    entry = server.config(tools={"look": {"hazard": "read", "proof": "signed"}})
    async with world(tmp_path, servers={"spy": entry}) as w:
        coder = await w.ready("coder", "spy:look")
        token, good = await w.token(coder), (await signing(w, coder)).proof("spy__look", at=w.clock())
        left_out: list[tuple[dict[str, object], str]] = [
            ({}, "proof_required"),
            ({INVOCATION: None}, "proof_invalid"),
            ({INVOCATION: "signed"}, "proof_invalid"),
            ({INVOCATION: [good]}, "proof_invalid"),
            ({INVOCATION.upper(): good}, "proof_required"),  # another member altogether
            ({DELEGATION: []}, "links_invalid"),
        ]
        async with handshake(w, token) as session:
            for meta, expected in left_out:
                answer = answer_in(await w.raw_call(token, "spy__look", {}, meta=meta))
                assert reason(answer) == expected, meta
                for version in VERSIONS:
                    params = {"name": "spy__look", "arguments": {}, "_meta": meta}
                    answer = await session.request("tools/call", params, mcp_protocol_version=version)
                    assert reason(answer) == expected, (version, meta)
        assert server.ran == []


async def test_a_tool_for_bound_tokens_takes_no_bearer_token_in_any_era(tmp_path: Path) -> None:
    server = spy(tmp_path / "spy", tool("look"))
    entry = server.config(tools={"look": {"hazard": "read", "proof": "dpop"}})
    async with world(tmp_path, servers={"spy": entry}) as w:
        token = await w.token(await w.ready("coder", "spy:look"))
        said = [await w.raw_call(token, "spy__look", {})]
        async with handshake(w, token) as session:
            body = {"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {"name": "spy__look"}}
            said += [await session.send(body, mcp_protocol_version=version) for version in VERSIONS]
        for response in said:
            assert response.status_code == 401 and response.headers["www-authenticate"].startswith("DPoP ")
            assert reason(answer_in(response)) == "proof_required"
        assert server.ran == []


async def test_observe_mode_lets_no_weaker_proof_pass(tmp_path: Path) -> None:
    server = spy(tmp_path / "spy", tool("look"))
    entry = server.config(mode="observe", tools={"look": {"hazard": "read", "proof": "signed"}})
    async with world(tmp_path, servers={"spy": entry}) as w:
        token = await w.token(await w.ready("coder", "spy:look"))
        assert reason(answer_in(await w.raw_call(token, "spy__look", {}))) == "proof_required"
        assert server.ran == []


@pytest.mark.parametrize("version", VERSIONS)
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
        coder = await w.agent("coder", ceiling="spy:look")
        token = await w.token(coder)
        await w.start(await w.grant("alice", "coder", "spy:look"))
        said = [answer_in(await w.raw_call(token, "spy__look", {}))]
        meta = (await signing(w, coder)).meta("spy__look", at=w.clock())  # of a link that the token does not name
        said.append(answer_in(await w.raw_call(token, "spy__look", {}, meta=meta)))
        async with handshake(w, token) as session:
            said.append(await session.call("spy__look", {}))
        assert [message["result"]["_meta"][ENVELOPE]["reason"] for message in said] == [
            *("no_session", "proof_invalid", "no_session")
        ]
        assert server.ran == []
