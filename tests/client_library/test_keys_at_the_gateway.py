"""How an agent's key comes to the gateway, and is replaced there, by the agent itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_authz.agents import Agents
from mcp_authz.client import AgentIdentity, KeyRefused, SignInRefused
from mcp_authz.enrolment import Codes
from mcp_authz.principals import AgentName
from mcp_authz.rules.scope import parse_scopes
from tests.client_library.parties import identity, stock_client
from tests.world import OPERATOR, World, world


async def code_for(w: World, name: str) -> str:
    """A one-time code for an agent that was announced."""
    await w.person("alice")
    await Agents(w.store, w.clock).add(name, owner="alice", key=None, ceiling=parse_scopes("pr"), by=OPERATOR)
    code = await Codes(w.store, w.clock).make(AgentName(name), by=OPERATOR)
    return str(getattr(code, "text", code))


async def test_an_agent_registers_its_own_key_by_a_code_that_counts_once(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        code = await code_for(w, "coder")
        coder = AgentIdentity.generate("coder")
        with pytest.raises(SignInRefused, match="the code is wrong, used or expired"):
            await coder.enrol(w.url, "wrong-code", clock=w.clock)
        await coder.enrol(w.url, code, clock=w.clock)
        async with stock_client(w, coder.auth(w.url, clock=w.clock)) as client:
            assert (await client.list_tools()).tools
        with pytest.raises(SignInRefused, match="was not enrolled"):
            await AgentIdentity.generate("coder").enrol(w.url, code, clock=w.clock)


async def test_an_agent_replaces_its_key_and_goes_on_with_the_new_one(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        old, path = identity(await w.ready("coder", "pr:read")), tmp_path / "coder.pem"
        old.save(path)
        new = await old.rotate(w.url, path)
        assert new.thumbprint != old.thumbprint
        assert AgentIdentity.load(path, name="coder").thumbprint == new.thumbprint
        async with stock_client(w, new.auth(w.url, clock=w.clock)) as client:
            assert (await client.list_tools()).tools
        with pytest.raises(SignInRefused):
            await old.chain(w.url, clock=w.clock)
        with pytest.raises(KeyRefused, match="holds another key"):
            await old.rotate(w.url, path)
