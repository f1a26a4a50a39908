"""A tool server that asks the gateway's context token who is served, and by whom: over stdio and HTTP, in both eras."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from mcp_authz.config import load_config, parse_config
from mcp_authz.errors import ConfigError
from mcp_authz.rules import jose
from mcp_authz.rules.context_token import HEADER, META
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.settings import server_rules
from mcp_authz.verify import Assurance, CallContext, Mode, NotAuthorized, Verifier
from tests.attacks.attacker import serving, spy, tool
from tests.road.places import DESTRUCTIVE, asking
from tests.road.test_prompt import Person
from tests.road.test_questions import ASKED
from tests.world import LEGACY, MODERN, OPERATOR, ROOT, World, called, world

TOOLS = {
    "list_notes": {"hazard": "read", "scopes": ["notes:read"]},
    "add_note": {"hazard": "write", "scopes": ["notes:write"]},
}
SCOPES = "notes:read notes:write"


def command(url: str, *more: str) -> list[str]:
    return [sys.executable, "-m", "examples.context.server", "--gateway", url, "--writer", "coder", *more]


def over_stdio(url: str) -> dict[str, Any]:
    return {"notes": {"command": command(url), "cwd": str(ROOT), "context": True, "tools": TOOLS}}


@contextmanager
def over_http() -> Iterator[Callable[[str], dict[str, Any]]]:
    """What starts the example over HTTP once the gateway's URL is known; it ends with the body."""
    processes: list[subprocess.Popen[bytes]] = []

    def start(url: str) -> dict[str, Any]:
        process = subprocess.Popen(command(url, "--http", "0"), cwd=ROOT, stdout=subprocess.PIPE)
        processes.append(process)
        assert process.stdout is not None
        port = int(process.stdout.readline())
        return {"notes": {"url": f"http://127.0.0.1:{port}/mcp", "context": True, "tools": TOOLS}}

    try:
        yield start
    finally:
        for process in processes:
            process.kill()
            process.communicate()


async def everybody_sees_their_own_notes(w: World) -> None:
    coder, bobs = await w.ready("coder", SCOPES), await w.ready("helper", SCOPES, subject="bob")
    for mode in (MODERN, LEGACY):
        added = await w.call(coder, "notes__add_note", mode, text="buy milk")
        assert not added.is_error, added.text
    assert (await w.call(coder, "notes__list_notes")).text == "buy milk\nbuy milk"
    assert (await w.call(bobs, "notes__list_notes")).text == ""
    refused = await w.call(bobs, "notes__add_note", text="x")
    assert refused.is_error and "agent:helper may not write notes" in refused.text


async def test_behind_the_gateway_everybody_sees_their_own_notes_over_stdio(tmp_path: Path) -> None:
    async with world(tmp_path, servers=over_stdio) as w:
        await everybody_sees_their_own_notes(w)


async def test_over_http_too_and_nobody_gets_round_the_gateway(tmp_path: Path) -> None:
    with over_http() as start:
        async with world(tmp_path, servers=start) as w:
            await everybody_sees_their_own_notes(w)
            url = w.config.servers["notes"].url
            assert url is not None
            assert "carries no context token" in await directly(url, "list_notes")


async def directly(url: str, name: str, token: str | None = None, **arguments: Any) -> str:
    """What the tool server itself says to a client that goes round the gateway."""
    async with httpx2.AsyncClient() as http, Client(streamable_http_client(url, http_client=http)) as client:
        meta: Any = {} if token is None else {META: token}
        result = await client.call_tool(name, arguments, meta=meta)
        return "\n".join(part.text for part in result.content if part.type == "text")


def token_in(heard: bytes) -> str:
    """The token of the last call that a spy heard, the same in `_meta` and, over HTTP, in the header."""
    said = [json.loads(line[line.index(b"{") :]) for line in heard.splitlines() if b'"tools/call"' in line]
    token: str = said[-1]["params"]["_meta"][META]
    return token


async def test_a_captured_token_is_good_for_its_one_call_only(tmp_path: Path) -> None:
    """The spy stands for whoever reads along between gateway and server: it gets what is meant for the audience."""
    reader = spy(tmp_path / "spy", tool("add_note"))
    listening = {**reader.config(tools=TOOLS), "context": True, "context_audience": "notes"}
    with over_http() as start:
        async with world(tmp_path, servers=lambda url: {**start(url), "spy": listening}) as w:
            coder = await w.ready("coder", SCOPES)
            url = w.config.servers["notes"].url
            assert url is not None
            assert not (await w.call(coder, "spy__add_note", text="buy milk")).is_error
            token = token_in(reader.heard)
            assert "for other arguments" in await directly(url, "add_note", token, text="sell the house")
            assert "for another tool" in await directly(url, "list_notes", token)
            assert await directly(url, "add_note", token, text="buy milk") == "1 notes"
            assert "used before" in await directly(url, "add_note", token, text="buy milk")
            assert (await w.call(coder, "notes__list_notes")).text == "buy milk"


@asynccontextmanager
async def overheard(tmp_path: Path, transport: str, *, config: Any = None, **entry: Any) -> AsyncIterator[Overheard]:
    """A gateway whose two tool servers hear everything; `a` with this entry, `b` the same."""
    a, b = spy(tmp_path / "a", tool("look"), tool("drop")), spy(tmp_path / "b", tool("look"))
    tools = {"look": {"hazard": "read", "scopes": ["look"]}, "drop": {"scopes": ["drop"]}}
    with serving(a) as url:
        more = {"tools": tools, "context": True, **entry}
        first = {"url": url, **more} if transport == "http" else a.config(**more)
        async with world(tmp_path, servers={"a": first, "b": b.config(**more)}, **(config or {})) as w:
            yield Overheard(w, a, b)


@dataclass
class Overheard:
    world: World
    a: Any
    b: Any
    verifiers: dict[str, Verifier] = field(default_factory=dict)

    async def context(self, name: str, tool: str, arguments: Mapping[str, Any]) -> CallContext:
        """What the last call to this server says, as the server would find out."""
        verifier = self.verifiers.setdefault(name, Verifier(self.world.config.public_url, audience=name))
        return await verifier.check(token_in(getattr(self, name).heard), tool=tool, arguments=arguments)


@pytest.mark.parametrize("transport", ["stdio", "http"])
async def test_a_call_says_for_whom_by_whom_and_who_agreed(tmp_path: Path, transport: str) -> None:
    async with overheard(tmp_path, transport) as o:
        w = o.world
        coder = await w.ready("coder", "look drop")
        assert not (await w.call(coder, "a__look", path="x")).is_error
        said = await o.context("a", "look", {"path": "x"})
        assert (said.actors, said.mode, said.approval) == (("agent:coder",), Mode.DELEGATED, None)
        assert said.subject.startswith("pairwise:") and "alice" not in said.subject
        decided = (await w.records("decision"))[-1].event
        assert said.call == decided.call and said.session != decided.fields["session"]

        again = await w.call(coder, "a__look", path="x")
        assert not again.is_error
        later = await o.context("a", "look", {"path": "x"})
        assert (later.subject, later.session) == (said.subject, said.session)
        await w.call(coder, "b__look")
        elsewhere = await o.context("b", "look", {})
        assert elsewhere.subject.startswith("pairwise:") and elsewhere.subject != said.subject
        assert elsewhere.session.startswith("pairwise:") and elsewhere.session != said.session

        held = await w.call(coder, "a__drop", table="t")
        await w.answer(held.hold, by="alice")
        assert not (await w.call(coder, "a__drop", table="t")).is_error
        approved = (await o.context("a", "drop", {"table": "t"})).approval
        assert approved is not None
        assert (approved.hold, approved.assurance) == (held.hold, Assurance.SIGNED_IN)
        if transport == "http":
            assert o.a.heard.count(HEADER.encode()) == 3


async def test_a_person_is_named_only_where_that_is_configured(tmp_path: Path) -> None:
    async with overheard(tmp_path, "stdio", context_subject="plain") as o:
        await o.world.call(await o.world.ready("coder", "look"), "a__look")
        said, decided = await o.context("a", "look", {}), (await o.world.records("decision"))[-1].event
        assert (said.subject, said.session) == ("user:alice", decided.fields["session"])


async def test_in_a_persons_place_no_agent_is_seen_and_in_its_own_name_no_person(tmp_path: Path) -> None:
    rule = {"agent": "clerk", "person": "alice", "scopes": ["look"]}
    config = {"impersonation": [rule], "policy": ["builtin:scopes_and_hazard", "builtin:own_workflows"]}
    async with overheard(tmp_path, "stdio", config=config, context_subject="plain") as o:
        w = o.world
        await w.person("alice")
        clerk, robot = await w.agent("clerk", ceiling="look"), await w.agent("robot", ceiling="look")
        await w.start(await w.grant("alice", "clerk", "look"), mode=Mode.IMPERSONATED)
        assert not (await w.call(clerk, "a__look")).is_error
        said = await o.context("a", "look", {})
        assert (said.subject, said.actors, said.mode) == ("user:alice", (), Mode.IMPERSONATED)
        assert b"clerk" not in jose.read(token_in(o.a.heard)).signing_input

        await w.running.sessions.start_own("robot", purpose="tidy up", scope=parse_scopes("look"), by=OPERATOR)
        assert not (await w.call(robot, "a__look")).is_error
        said = await o.context("a", "look", {})
        assert (said.subject, said.actors, said.mode) == ("agent:robot", ("agent:robot",), Mode.OWN)


async def test_a_token_for_one_server_is_for_no_other_and_its_key_is_no_issuers(tmp_path: Path) -> None:
    async with overheard(tmp_path, "stdio") as o:
        w = o.world
        coder = await w.ready("coder", "look")
        await w.call(coder, "a__look")
        token = token_in(o.a.heard)
        with pytest.raises(NotAuthorized, match="audience"):
            await Verifier(w.config.public_url, audience="b").check(token, tool="look", arguments={})
        with pytest.raises(NotAuthorized, match="kid"):
            await Verifier(w.config.public_url, audience="a").check(await w.token(coder), tool="look", arguments={})
        async with httpx2.AsyncClient() as http:
            issuer = (await http.get(f"{w.config.public_url}/jwks.json")).json()
        assert jose.read(token).kid not in {key["kid"] for key in issuer["keys"]}
        assert (await w.raw_call(token, "a__look", {})).status_code == 401


async def test_a_server_that_does_not_ask_is_told_nothing(tmp_path: Path) -> None:
    async with overheard(tmp_path, "http", context=False) as o:
        assert not (await o.world.call(await o.world.ready("coder", "look"), "a__look")).is_error
        assert META.encode() not in o.a.heard and HEADER.lower().encode() not in o.a.heard.lower()


@pytest.mark.parametrize("mode", [MODERN, LEGACY])
async def test_each_round_of_questions_has_a_token_of_its_own_and_the_approval_of_the_call(
    tmp_path: Path, mode: str
) -> None:
    person, arguments = Person("accept", {"colour": "red"}), {"asked": ASKED, "rounds": 2}
    entry = asking(tmp_path / "f", tools=DESTRUCTIVE, context=True)
    async with world(tmp_path, servers={"asking": entry}) as w:
        coder = await w.ready("coder", "use")
        async with w.client(coder, mode, elicitation_callback=person) as client:
            await w.answer((await called(client, "asking__ask", arguments)).hold, by="alice")
            got = (await called(client, "asking__ask", arguments)).result["structuredContent"]["received"]
        verifier = Verifier(w.config.public_url, audience="asking")
        tokens = [*json.loads(got["requestState"])["contexts"], got["_meta"][META]]
        said = [await verifier.check(token, tool="ask", arguments=arguments) for token in tokens]
    assert len({context.id for context in said}) == 3
    assert all(context.approval is not None and context.approval == said[0].approval for context in said)


def test_the_examples_configuration_is_one() -> None:
    config = load_config(ROOT / "examples" / "context" / "gateway.toml")
    notes = config.servers["notes"]
    assert notes.context and notes.command is not None
    assert notes.command[4] == config.public_url
    assert server_rules("notes", notes).exact.keys() == TOOLS.keys()


@pytest.mark.parametrize("setting", [{"context_subject": "plain"}, {"context_audience": "b"}])
def test_how_the_context_is_said_is_no_setting_of_a_server_that_gets_none(setting: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="need `context = true`"):
        parse_config({"servers": {"a": {"command": ["a"], **setting}}})
