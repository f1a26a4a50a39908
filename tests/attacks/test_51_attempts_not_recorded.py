"""Row 51: attempts are recorded, denials or outcomes are not. Counted against traffic; every number must match."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.attacks.attacker import answer_in, handshake, spy, tool, until
from tests.world import World, world

NAMES = ("look", "drop", "complain", "refuse", "die", "far")
STRICT = {"type": "object", "properties": {"n": {"type": "integer"}}, "additionalProperties": False}
CALLS: dict[str, tuple[str, Any]] = {
    "permitted": ("spy__look", {"n": 1}),
    "a tool error": ("spy__complain", {}),
    "a JSON-RPC error": ("spy__refuse", {}),
    "held": ("spy__drop", {"n": 1}),
    "bad arguments": ("spy__look", {"n": "x"}),
    "arguments that are none": ("spy__look", [1]),
    "an unknown tool": ("spy__nothing", {}),
    "a tool beyond the ceiling": ("spy__far", {}),
    "no name": ("", {}),
}
DECISIONS = {
    "permitted": "permit",
    "a tool error": "permit",
    "a JSON-RPC error": "permit",
    "held": "hold",
    "bad arguments": "arguments",
    "arguments that are none": "arguments",
    "an unknown tool": "unknown_tool",
    "a tool beyond the ceiling": "unknown_tool",
    "no name": "unknown_tool",
}
ROUNDS = 4


def servers(directory: Path) -> dict[str, Any]:
    server = spy(directory / "spy", *(tool(name, inputSchema=STRICT) for name in NAMES))
    tools = {name: {"hazard": "destructive" if name == "drop" else "read"} for name in NAMES}
    return {"spy": server.config(tools=tools)}


async def counted(w: World) -> tuple[Counter[str], Counter[str], set[str]]:
    """Decisions, outcomes, and the calls that both are about."""
    decisions: Counter[str] = Counter()
    calls = []
    for record in await w.records("decision"):
        fields = record.event.fields
        decisions[fields["reason"] if fields["decision"] == "deny" else fields["decision"]] += 1
        calls.append(record.event.call)
        assert fields["actor"] and fields["key"] and fields["proof"]
    outcomes = Counter(record.event.fields["outcome"] for record in await w.records("outcome"))
    assert len(calls) == len(set(calls))
    assert {record.event.call for record in await w.records("outcome")} <= set(calls)
    return decisions, outcomes, {str(call) for call in calls}


SCOPES = " ".join(f"spy:{name}" for name in NAMES if name != "far")


@pytest.mark.parametrize("era", ["modern", "handshake"])
async def test_every_call_has_one_decision_and_every_permitted_one_one_outcome(tmp_path: Path, era: str) -> None:
    async with world(tmp_path, servers=servers(tmp_path)) as w:
        token = await w.token(await w.ready("coder", SCOPES))
        told: list[dict[str, Any]] = []
        async with handshake(w, token) as session:

            async def make(name: str, arguments: Any) -> None:
                if era == "modern":
                    told.append(answer_in(await w.raw_call(token, name, arguments)))
                else:
                    told.append(await session.call(name, arguments))

            async with anyio.create_task_group() as group:
                for name, arguments in list(CALLS.values()) * ROUNDS:
                    group.start_soon(make, name, arguments)
        decisions, outcomes, _ = await counted(w)
        assert len(told) == len(CALLS) * ROUNDS
        assert decisions == Counter([*DECISIONS.values()] * ROUNDS)
        assert outcomes == Counter(["done", "tool-error", "error"] * ROUNDS)


async def test_a_call_outside_the_token_is_recorded_with_what_it_lacked(tmp_path: Path) -> None:
    async with world(tmp_path, servers=servers(tmp_path)) as w:
        coder = await w.ready("coder", SCOPES)
        token = await w.token(coder, scope="mcp:connect spy:drop")
        answered = await w.raw_call(token, "spy__look", {"n": 1})
        assert answered.status_code == 403
        ((fields),) = await w.decisions()
        assert fields["decision"] == "deny" and "spy:look" in fields["missing"]


async def test_a_tool_server_that_dies_in_a_call_leaves_an_outcome_that_says_so(tmp_path: Path) -> None:
    async with world(tmp_path, servers=servers(tmp_path)) as w:
        token = await w.token(await w.ready("coder", SCOPES))
        assert "error" in answer_in(await w.raw_call(token, "spy__die", {}))
        assert "error" in answer_in(await w.raw_call(token, "spy__die", {}))  # it may be down, or die again
        decisions, outcomes, _ = await counted(w)
        assert decisions == {"permit": 2}
        assert outcomes.total() == 2 and outcomes["unknown"] >= 1 and set(outcomes) <= {"unknown", "error"}


async def test_a_caller_that_leaves_does_not_take_the_outcome_with_it(tmp_path: Path) -> None:
    server = spy(tmp_path / "spy", tool("wait"))
    async with world(tmp_path, servers={"spy": server.config(tools={"wait": {"hazard": "read"}})}) as w:
        token = await w.token(await w.ready("coder", "spy:wait"))

        async def has_arrived() -> bool:
            return b'"tools/call"' in server.heard

        async with anyio.create_task_group() as group:
            group.start_soon(w.raw_call, token, "spy__wait", {})
            await until(has_arrived)
            group.cancel_scope.cancel()
        await until(lambda: w.records("outcome"))
        _, outcomes, _ = await counted(w)
        assert outcomes == {"unknown": 1}


async def test_what_is_refused_before_identity_is_counted_by_reason_and_source(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        for _ in range(3):
            await w.post({"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
        for _ in range(2):
            await w.post({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, "no token")
        await w.post(b"{", None)
        await w.post({}, None, origin="http://evil.example")
        await w.app._write_refusals()
        said = {(r.event.fields["reason"], r.event.fields["count"]) for r in await w.records("refusals")}
        assert {("no credentials", 3), ("token not valid", 2), ("unreadable", 1), ("host-or-origin", 1)} == said
        assert {r.event.fields["source"] for r in await w.records("refusals")} == {"127.0.0.1"}
        assert await w.records("decision") == ()


async def test_listing_and_introductions_forward_nothing_and_fill_no_log(tmp_path: Path) -> None:
    async with world(tmp_path, servers=servers(tmp_path)) as w:
        token = await w.token(await w.ready("coder", SCOPES))
        before = len(await w.records())
        async with handshake(w, token) as session:
            for _ in range(5):
                await session.request("tools/list")
                await session.request("ping")
        assert len(await w.records()) == before
