"""Row 25: one call is approved, another one is made. Every bound member is changed, through the running gateway."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mcp_authz.delegating import Asked, Source
from mcp_authz.model import HoldState
from mcp_authz.principals import AgentName, Chain, PersonName
from mcp_authz.store.ports import Event
from tests.attacks.attacker import Spy, answer_in, spy, tool
from tests.world import OPERATOR, Actor, World, world

SCOPES = "spy:drop spy:burn"
APPROVED: dict[str, Any] = {"where": "here", "list": [1, {"deep": {"deeper": "x"}}], "n": 1, "none": None}

OTHERS = {
    "a value": {**APPROVED, "where": "there"},
    "a value's case": {**APPROVED, "where": "Here"},
    "a composed character": {**APPROVED, "where": "he\u0301re"},
    "a space": {**APPROVED, "where": "here "},
    "something deep": {**APPROVED, "list": [1, {"deep": {"deeper": "y"}}]},
    "something deeper": {**APPROVED, "list": [1, {"deep": {"deeper": {"x": 1}}}]},
    "the order of a list": {**APPROVED, "list": [{"deep": {"deeper": "x"}}, 1]},
    "one more in a list": {**APPROVED, "list": [*APPROVED["list"], 1]},
    "a number as text": {**APPROVED, "n": "1"},
    "a number as truth": {**APPROVED, "n": True},
    "a number that is almost the same": {**APPROVED, "n": 1.0000000000000002},
    "nothing as false": {**APPROVED, "none": False},
    "nothing left out": {name: value for name, value in APPROVED.items() if name != "none"},
    "one more": {**APPROVED, "more": 1},
    "one renamed": {**{name: value for name, value in APPROVED.items() if name != "n"}, "N": 1},
    "nothing at all": {},
}


def destroyer(directory: Path) -> tuple[Spy, dict[str, Any]]:
    server = spy(directory / "spy", tool("drop"), tool("burn"))
    entry = server.config(tools={name: {"scopes": [f"spy:{name}"]} for name in ("drop", "burn")})
    return server, {"spy": entry, "spy2": {**entry, "command": [*entry["command"], "again"]}}


async def said(w: World, who: Actor, name: str, arguments: Any, token: str | None = None) -> dict[str, Any]:
    """The result of one raw call."""
    result: dict[str, Any] = answer_in(await w.raw_call(token or await w.token(who), name, arguments))["result"]
    return result


def outcome(result: dict[str, Any]) -> str:
    envelope = (result.get("_meta") or {}).get("dev.mcp-authz/outcome", {})
    return str(envelope.get("outcome", "done"))


async def approved(w: World, who: Actor, token: str) -> str:
    """A hold over `APPROVED`, approved by alice."""
    held = await said(w, who, "spy__drop", APPROVED, token)
    hold = held["_meta"]["dev.mcp-authz/outcome"]["hold"]
    await w.answer(hold, by="alice")
    return str(hold)


async def test_only_the_approved_arguments_run(tmp_path: Path) -> None:
    server, servers = destroyer(tmp_path)
    async with world(tmp_path, servers=servers) as w:
        coder = await w.ready("coder", SCOPES)
        token = await w.token(coder)
        hold = await approved(w, coder, token)
        for what, arguments in OTHERS.items():
            assert outcome(await said(w, coder, "spy__drop", arguments, token)) == "held", what
        assert server.ran == []
        assert (await w.store.hold(hold)).state is HoldState.APPROVED  # none of them used it up
        assert outcome(await said(w, coder, "spy__drop", APPROVED, token)) == "done"
        assert server.ran == [["drop", APPROVED]]


async def test_another_tool_or_another_server_is_another_call(tmp_path: Path) -> None:
    server, servers = destroyer(tmp_path)
    servers["spy2"]["tools"] = {"drop": {"scopes": ["spy:drop"]}}
    async with world(tmp_path, servers=servers) as w:
        coder = await w.ready("coder", SCOPES)
        token = await w.token(coder)
        await approved(w, coder, token)
        assert outcome(await said(w, coder, "spy__burn", APPROVED, token)) == "held"
        assert outcome(await said(w, coder, "spy2__drop", APPROVED, token)) == "held"
        assert server.ran == []


@pytest.mark.parametrize("written", ['{"n":1.0,"a":0}', '{"n":1e0,"a":-0.0}', '{"a":0,"n":1}'])
async def test_what_runs_is_what_was_captured_however_the_same_value_is_written(tmp_path: Path, written: str) -> None:
    # RFC 8785 says that these are one value; a tool server may see a difference that nobody was shown.
    server, servers = destroyer(tmp_path)
    async with world(tmp_path, servers=servers) as w:
        coder = await w.ready("coder", SCOPES)
        token = await w.token(coder)
        held = await said(w, coder, "spy__drop", {"n": 1, "a": 0}, token)
        await w.answer(held["_meta"]["dev.mcp-authz/outcome"]["hold"], by="alice")
        assert outcome(await said(w, coder, "spy__drop", json.loads(written), token)) == "done"
        ((_, arguments),) = server.ran
        assert json.dumps(arguments) == '{"n": 1, "a": 0}'


async def test_another_session_of_the_same_agent_and_person_has_no_approval(tmp_path: Path) -> None:
    server, servers = destroyer(tmp_path)
    async with world(tmp_path, servers=servers) as w:
        coder = await w.ready("coder", SCOPES)
        await approved(w, coder, await w.token(coder))
        other, _ = await w.start(await w.running.sessions.only_grant("alice", "coder"))
        token = await w.token(coder, client_assertion=w.assertion(coder, session=other.id))
        assert outcome(await said(w, coder, "spy__drop", APPROVED, token)) == "held"
        assert server.ran == []


async def test_the_same_call_for_another_person_has_no_approval(tmp_path: Path) -> None:
    server, servers = destroyer(tmp_path)
    async with world(tmp_path, servers=servers) as w:
        coder = await w.ready("coder", SCOPES)
        await approved(w, coder, await w.token(coder))
        await w.person("bob")
        session, _ = await w.start(await w.grant("bob", "coder", SCOPES))
        token = await w.token(coder, client_assertion=w.assertion(coder, session=session.id))
        assert outcome(await said(w, coder, "spy__drop", APPROVED, token)) == "held"
        assert server.ran == []


async def test_the_same_call_of_another_agent_has_no_approval(tmp_path: Path) -> None:
    server, servers = destroyer(tmp_path)
    async with world(tmp_path, servers=servers) as w:
        coder = await w.ready("coder", SCOPES)
        hold = await approved(w, coder, await w.token(coder))
        rival = await w.ready("rival", SCOPES)
        held = await said(w, rival, "spy__drop", APPROVED)
        assert outcome(held) == "held"
        assert held["_meta"]["dev.mcp-authz/outcome"]["hold"] != hold
        assert server.ran == []


async def test_the_same_call_through_another_chain_of_the_same_session_has_no_approval(tmp_path: Path) -> None:
    server, servers = destroyer(tmp_path)
    async with world(tmp_path, servers=servers) as w:
        await w.person("alice")
        coder = await w.agent("coder", ceiling=SCOPES)
        await w.agent("middle", ceiling=SCOPES, depth=1, delegates_to=["coder"])
        await w.agent("planner", ceiling=SCOPES, depth=2, delegates_to=["coder", "middle"])
        session, root = await w.start(await w.grant("alice", "planner", SCOPES))
        direct = Source(chain=Chain(links=(root,)), session=session, person=await w.store.person(PersonName("alice")))
        middle = await w.running.delegations.delegate(direct, Asked(to=AgentName("middle")))
        through = replace(direct, chain=Chain(links=(root, middle)))
        tokens = []
        for source in (direct, through):
            link = await w.running.delegations.delegate(source, Asked(to=AgentName("coder")))
            tokens.append(await w.token(coder, client_assertion=w.assertion(coder, delegation=link.id)))
        await approved(w, coder, tokens[0])
        assert outcome(await said(w, coder, "spy__drop", APPROVED, tokens[1])) == "held"
        assert server.ran == []
        assert outcome(await said(w, coder, "spy__drop", APPROVED, tokens[0])) == "done"


async def test_the_same_call_of_a_tool_that_was_accepted_anew_has_no_approval(tmp_path: Path) -> None:
    server, servers = destroyer(tmp_path)
    async with world(tmp_path, servers=servers) as w:
        coder = await w.ready("coder", SCOPES)
        token = await w.token(coder)
        await approved(w, coder, token)
        server.lists(tool("drop", description="drops everything"), tool("burn"))
        await w.running.catalog.refresh(w.running.parts.downstreams["spy"])
        (waiting,) = [pin for pin in await w.store.pins() if pin.changed_digest is not None and pin.server == "spy"]
        event = Event(kind="pin", at=w.clock(), fields={"by": OPERATOR})
        await w.store.accept("spy", "drop", waiting.changed_digest, event)
        await w.running.catalog.refresh(w.running.parts.downstreams["spy"])
        assert outcome(await said(w, coder, "spy__drop", APPROVED, token)) == "held"
        assert server.ran == []


async def test_an_approval_under_a_weaker_rule_is_none_under_a_stricter_one_of_the_same_name(tmp_path: Path) -> None:
    server, servers = destroyer(tmp_path)
    async with world(tmp_path, servers=servers) as w:
        coder = await w.ready("coder", SCOPES)
        hold = await approved(w, coder, await w.token(coder))
    stricter = {"destructive": {"by": ["group:release"]}}
    async with world(tmp_path, servers=servers, approval=stricter) as w:
        assert (await w.store.hold(hold)).state is HoldState.APPROVED
        assert outcome(await said(w, coder, "spy__drop", APPROVED)) == "held"
        assert server.ran == []
