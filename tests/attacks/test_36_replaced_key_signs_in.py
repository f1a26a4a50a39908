"""Row 36: a key that was replaced stands behind what was issued to it, for a while, and signs nothing new."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from mcp_authz.errors import TokenRefused
from mcp_authz.hosted import OVERLAP, HostedAgents
from mcp_authz.principals import AgentName
from mcp_authz.rules.key_proof import prove_key, rotation_url
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.scope import parse_scopes
from tests.oauth.elsewhere import elsewhere
from tests.oauth.house import EXCHANGE, OPERATOR, TOKEN, Actor, House, expect, house, refused

GRANT = {"grant_type": "client_credentials"}


async def by_command(h: House, coder: Actor, new: PrivateKey) -> timedelta:
    await h.agents.rotate(coder.name, new.public, timedelta(minutes=5), by=OPERATOR)
    return timedelta(minutes=5)


async def by_itself(h: House, coder: Actor, new: PrivateKey) -> timedelta:
    where = rotation_url(h.issuer, coder.name)
    proof = prove_key(new, agent=coder.name, audience=where, id="k", at=h.clock())
    expect(await h.post(coder, f"/agents/{coder.name}/key", proof=proof, overlap="300"))
    return timedelta(minutes=5)


@pytest.mark.parametrize("way", [by_command, by_itself])
async def test_a_replaced_key_gets_no_token_and_replaces_nothing(tmp_path: Path, way: object) -> None:
    async with house(tmp_path) as h:
        coder, new = await h.agent("coder"), PrivateKey.generate()
        await h.start(coder)
        token = await h.token(coder)
        overlap = await way(h, coder, new)  # type: ignore[operator]
        refused(await h.post(coder, **GRANT), "invalid_client")
        exchange = {"grant_type": EXCHANGE, "subject_token": token, "subject_token_type": TOKEN}
        refused(await h.post(coder, **exchange), "invalid_client")
        where = rotation_url(h.issuer, "coder")
        proof = prove_key(PrivateKey.generate(), agent="coder", audience=where, id="k", at=h.clock())
        refused(await h.post(coder, "/agents/coder/key", proof=proof), "invalid_client")
        assert (await h.caller(token)).agent.name == "coder"
        h.clock.advance(seconds=overlap.total_seconds())
        with pytest.raises(TokenRefused):
            await h.caller(token)
        refused(await h.post(coder, **GRANT), "invalid_client")
        await h.sign_in(Actor(coder.name, new))


async def test_a_key_that_left_its_document_gets_no_token(tmp_path: Path) -> None:
    async with elsewhere(tmp_path) as host, house(tmp_path, fetch=host.fetcher()) as h:
        coder, new = Actor(AgentName("coder"), PrivateKey.generate()), PrivateKey.generate()
        await h.person("alice")
        url = host.declare(coder.key.public)
        await h.agents.add(
            "coder", owner="alice", key=coder.key.public, ceiling=parse_scopes("pr"), metadata_url=url, by=OPERATOR
        )
        await h.start(coder)
        token = await h.token(coder)
        host.declare(new.public)
        await HostedAgents(h.store, h.clock, host.fetcher()).refresh("coder", by=OPERATOR)
        refused(await h.post(coder, **GRANT), "invalid_client")
        assert (await h.caller(token)).agent.name == "coder"
        h.clock.advance(seconds=OVERLAP.total_seconds())
        with pytest.raises(TokenRefused):
            await h.caller(token)
