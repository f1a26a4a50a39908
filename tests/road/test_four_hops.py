"""Alice lets planner work, planner delegates to coder, coder to tester: each has less, over HTTP and over stdio."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from mcp_authz.agents import Agents
from mcp_authz.client import AgentIdentity
from mcp_authz.principals import AgentName
from mcp_authz.rules.scope import parse_scopes
from tests.world import LEGACY, MODERN, OPERATOR, ROOT, World, called, world

LISTS, OPENS = "acme__list_pull_requests", "acme__open_pull_request"
PURPOSE = "fix issue 41"
POLICY = """
// Whoever works for alice on issue 41 may, if planner stands in the chain; delegation is free within the rules.
@id("planners-team-on-issue-41")
permit (principal is Agent, action, resource is Tool)
when {
  context has session && context.session.purpose == "fix issue 41" && context.session.mode == "delegated" &&
  context has on_behalf_of && context.on_behalf_of.user_id == "alice" && context.chain.contains("planner")
};
"""

Way = Callable[[World, AgentIdentity, "str | None", str], AbstractAsyncContextManager[Client]]


@asynccontextmanager
async def over_http(w: World, who: AgentIdentity, chain: str | None, mode: str) -> AsyncIterator[Client]:
    """The SDK's client with our auth."""
    async with (
        httpx2.AsyncClient(auth=who.auth(w.url, chain=chain), timeout=30) as http,
        Client(streamable_http_client(w.url, http_client=http), mode="auto" if mode == MODERN else mode) as client,
    ):
        yield client


@asynccontextmanager
async def over_stdio(w: World, who: AgentIdentity, chain: str | None, mode: str) -> AsyncIterator[Client]:
    """The SDK's client with `connect` as its server: all that it knows of us is that command."""
    key, given, home = (w.directory / f"{who.name}.{kind}" for kind in ("pem", "chain", "home"))
    if not key.exists():
        who.save(key)
    words = ["-m", "mcp_authz.cli.main", "connect", w.url, "--agent", who.name, "--key", str(key)]
    if chain is not None:
        given.write_text(chain)
        words += ["--chain", str(given)]
    env = {"HOME": str(home), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    server = StdioServerParameters(command=sys.executable, args=words, env=env, cwd=w.directory)
    async with Client(stdio_client(server), mode="auto" if mode == MODERN else mode) as client:
        yield client


async def team(w: World) -> tuple[AgentIdentity, AgentIdentity, AgentIdentity]:
    """Planner with a session for alice; coder and tester, whom one after the other may be delegated to."""
    await w.person("alice")
    made = []
    for name, depth, to in (("planner", 3, "coder"), ("coder", 1, "tester"), ("tester", 0, None)):
        one = AgentIdentity.generate(name)
        await Agents(w.store, w.clock).add(
            name,
            owner="alice",
            key=one.public_key,
            ceiling=parse_scopes("pr"),
            depth=depth,
            delegates_to=frozenset() if to is None else frozenset({AgentName(to)}),
            by=OPERATOR,
        )
        made.append(one)
    await w.start(await w.grant("alice", "planner", "pr"), purpose=PURPOSE, max_calls=20)
    planner, coder, tester = made
    return planner, coder, tester


async def schemas(client: Client) -> dict[str, Any]:
    """The tools that the client sees, with their input schemas."""
    return {tool.name: tool.input_schema for tool in (await client.list_tools()).tools}


@pytest.mark.parametrize("mode", [MODERN, LEGACY])
@pytest.mark.parametrize("way", [over_http, over_stdio])
async def test_each_hop_has_less_and_every_record_names_all_of_them(tmp_path: Path, way: Way, mode: str) -> None:
    (tmp_path / "team.cedar").write_text(POLICY)
    async with world(tmp_path, policy=str(tmp_path / "team.cedar")) as w:
        planner, coder, tester = await team(w)
        async with way(w, planner, None, mode) as client:
            tools = await schemas(client)
            assert not (await called(client, LISTS, {"owner": "acme", "repo": "web"})).is_error

        # From here on nothing is asked of the gateway until somebody works.
        chain = await planner.chain(w.url)
        codes = planner.delegate(
            chain,
            to=coder.jwk,
            scope="pr:read pr:write",
            tools={name: tools[name] for name in (LISTS, OPENS)},
            where={"owner": "acme", "repo": ["api", "web"]},
            minutes=10,
            calls=5,
            depth=1,
            reason="the Python part",
        )
        tests = coder.delegate(codes, to=tester, scope="pr:read", tools=[LISTS], where={"repo": "api"}, calls=2)

        async with way(w, coder, codes, mode) as client:
            assert LISTS in (seen := await schemas(client)) and OPENS in seen and "acme__merge_pull_request" not in seen
            pull = {"owner": "acme", "repo": "api", "title": "Retry twice", "branch": "retry-2"}
            assert not (opened := await called(client, OPENS, pull)).is_error, opened.text
        async with way(w, tester, tests, mode) as client:
            assert [name for name in await schemas(client) if name.startswith("acme")] == [LISTS]
            assert "Retry twice" in (await called(client, LISTS, {"owner": "acme", "repo": "api"})).text
            elsewhere = await called(client, LISTS, {"owner": "acme", "repo": "web"})
            assert elsewhere.envelope["reason"] == "constraint"
            assert not (await called(client, LISTS, {"owner": "acme", "repo": "api"})).is_error
            spent = await called(client, LISTS, {"owner": "acme", "repo": "api"})

        assert spent.is_error and spent.envelope["reason"] in {"budget", "no_session"}
        decided = [fields for fields in await w.decisions() if fields["decision"] == "permit"]
        (session,) = await w.store.sessions()
    assert [(fields["actor"], fields["proof"], len(fields["chain"])) for fields in decided] == [
        ("agent:planner", "signed", 1),
        ("agent:coder", "signed", 2),
        ("agent:tester", "signed", 3),
        ("agent:tester", "signed", 3),
    ]
    last = decided[-1]
    assert last["chain"] == ["agent:planner", "agent:coder", "agent:tester"]
    assert (last["subject"], last["session"], last["purpose"]) == ("user:alice", session.id, PURPOSE)
    assert last["because"] == ["planners-team-on-issue-41"] and session.calls_made == 4
