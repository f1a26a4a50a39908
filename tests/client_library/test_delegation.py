"""What agents hand on with their own keys: person, planner, coder, tester, and children that live in memory only."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from mcp.shared.exceptions import MCPError

from mcp_authz.client import AgentIdentity, DelegationError, SignInRefused
from mcp_authz.client.agent_identity import leaf
from mcp_authz.revocation import Revocation
from mcp_authz.rules import link_id
from tests.client_library.parties import LIST, OPEN, READ, identity, sign_ins, stock_client
from tests.world import OPERATOR, World, called, world

SCOPE = "pr:read:acme pr:write:acme"
PULL = {**READ, "title": "t", "branch": "fix"}


async def team(w: World) -> tuple[AgentIdentity, AgentIdentity, AgentIdentity]:
    """A planner with a session for alice, and a coder and a tester below it."""
    planner = await w.ready("planner", SCOPE, depth=3, delegates_to=("coder",))
    coder = await w.agent("coder", ceiling=SCOPE, depth=1, delegates_to=("tester",))
    tester = await w.agent("tester", ceiling=SCOPE)
    return identity(planner), identity(coder), identity(tester)


async def schemas(w: World, agent: AgentIdentity) -> dict[str, dict[str, object]]:
    """The input schema of each tool, as the gateway shows it."""
    async with stock_client(w, agent.auth(w.url, clock=w.clock)) as client:
        return {tool.name: tool.input_schema for tool in (await client.list_tools()).tools}


async def test_four_hops_each_narrower_than_the_one_before(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        planner, coder, tester = await team(w)
        known = await schemas(w, planner)
        root = await planner.chain(w.url, clock=w.clock)
        both = {LIST: known[LIST], OPEN: known[OPEN]}
        to_coder = planner.delegate(root, to=coder.jwk, tools=both, where={"owner": "acme"}, minutes=30, depth=1)
        to_tester = coder.delegate(to_coder, to=tester, scope="pr:read:acme", tools=[LIST], where={"repo": "api"})

        async with stock_client(w, tester.auth(w.url, chain=to_tester, clock=w.clock)) as client:
            assert [tool.name for tool in (await client.list_tools()).tools if tool.name.startswith("acme")] == [LIST]
            assert not (await called(client, LIST, READ)).is_error
            other = await called(client, LIST, {"owner": "acme", "repo": "web"})
        assert other.envelope["reason"] == "constraint"
        decided = [one for one in await w.decisions() if one["actor"] == "agent:tester"]
        assert [one["decision"] for one in decided] == ["permit", "deny"]
        assert {one["proof"] for one in decided} == {"signed"}
        assert {tuple(one["chain"]) for one in decided} == {("agent:planner", "agent:coder", "agent:tester")}


async def test_a_chain_is_redeemed_again_when_its_token_ends_and_not_once_it_has_ended(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        planner, coder, _ = await team(w)
        root = await planner.chain(w.url, clock=w.clock)
        chain = planner.delegate(root, to=coder, minutes=30)
        auth = coder.auth(w.url, chain=chain, clock=w.clock)
        before = await sign_ins(w)
        async with stock_client(w, auth) as client:
            for _ in range(2):
                await client.list_tools()
                w.clock.advance(timedelta(minutes=12))
            assert auth.link == link_id.link_id(leaf(chain).id)
            assert await sign_ins(w) == before + 2
            w.clock.advance(timedelta(minutes=12))
            with pytest.raises(
                MCPError, match=r"chain of agent `coder` ended at .*; ask who delegated it for a new one"
            ):
                await client.list_tools()


async def test_a_child_works_under_its_parents_name_with_a_key_in_memory(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        planner, _, _ = await team(w)
        root = await planner.chain(w.url, clock=w.clock)
        worker, chain = planner.child("worker-7", root, scope="pr:read:acme", minutes=10, calls=1)
        assert worker.name == "planner/worker-7"
        async with stock_client(w, worker.auth(w.url, chain=chain, clock=w.clock)) as client:
            assert not (await called(client, LIST, READ)).is_error
            assert (await called(client, LIST, READ)).is_error  # its one call is made
        assert "agent:planner/worker-7" in {one["actor"] for one in await w.decisions()}
        with pytest.raises(Exception, match="cannot have a child"):
            worker.child("worker-8", chain)


async def test_a_chain_whose_root_was_revoked_says_so(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        planner, coder, _ = await team(w)
        chain = planner.delegate(await planner.chain(w.url, clock=w.clock), to=coder)
        auth = coder.auth(w.url, chain=chain, clock=w.clock)
        async with stock_client(w, auth) as client:
            await client.list_tools()
            await Revocation(w.store, w.clock).revoke("agent", "planner", reason="test", by=OPERATOR)
            with pytest.raises(MCPError, match=r"chain of agent `coder` .*; ask who delegated it for a new one"):
                await client.list_tools()


async def test_more_than_was_given_cannot_even_be_signed(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        planner, coder, tester = await team(w)
        chain = planner.delegate(await planner.chain(w.url, clock=w.clock), to=coder, scope="pr:read:acme")
        with pytest.raises(DelegationError, match="is not in the chain"):
            coder.delegate(chain, to=tester, scope="pr:write:acme")
        with pytest.raises(DelegationError, match="may not be delegated further"):
            coder.delegate(chain, to=tester)


async def test_an_agent_without_a_session_is_told_how_to_get_one(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        await w.person("alice")
        loner = identity(await w.agent("loner", ceiling=SCOPE))
        with pytest.raises(DelegationError, match=r"no open session .* `mcp-authz session start`"):
            await loner.chain(w.url, clock=w.clock)
        with pytest.raises(SignInRefused, match="mcp-authz agent show ghost"):
            await AgentIdentity.generate("ghost").chain(w.url, clock=w.clock)
