"""The story of a call, told from its records."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from mcp_authz.audit_story import story, times_again, told_once
from mcp_authz.store.ports import Event, EventKind

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
ASKED = {
    "actor": "agent:coder",
    "subject": "user:alice",
    "chain": ["agent:planner", "agent:coder"],
    "action": "deploy.create",
    "resource": {"repo": "acme/api", "deploy_environment": "production"},
}
BEGINNING = (
    "coder, delegated by planner, for alice, asked for deploy.create (deploy_environment production, repo acme/api)"
)


def event(kind: EventKind, **fields: Any) -> Event:
    return Event(kind=kind, at=AT, call="c_1", fields=fields)


@pytest.mark.parametrize(
    ("events", "ending"),
    [
        ([event("decision", **ASKED, decision="deny", reason="policy")], "denied (policy does not permit it)"),
        (
            [
                event("decision", **ASKED, decision="permit"),
                event("outcome", outcome="done", milliseconds=87),
            ],
            "permitted, done in 87 ms",
        ),
        (
            [
                event("decision", **ASKED, decision="hold"),
                event("decision", **ASKED, decision="hold"),
                event("approval", verdict="approve", person="user:bob", assurance="passkey", state="approved"),
                event("decision", **ASKED, decision="permit", approval={"hold": "h_1"}),
                event("outcome", outcome="done", milliseconds=1240),
                event("decision", **ASKED, decision="replay"),
            ],
            "held, approved by bob with a passkey, done in 1.2 s, its outcome was given again",
        ),
        (
            [
                event("decision", **ASKED, decision="permit"),
                event("outcome", outcome="unknown", milliseconds=9, ended_by="revocation"),
            ],
            "permitted, cancelled while it ran because what it stood on was revoked, nobody can say how far it came",
        ),
        (
            [event("decision", **ASKED, decision="permit"), event("outcome", outcome="unknown", ended_by="crash")],
            "permitted, interrupted while it ran because the gateway stopped, nobody can say how far it came",
        ),
        (
            [
                event("decision", **ASKED, decision="permit"),
                event("outcome", outcome="unknown", milliseconds=4100, ended_by="caller"),
            ],
            "permitted, its caller cancelled it after 4.1 s, nobody can say how far it came",
        ),
        (
            [
                event("decision", **ASKED, decision="permit"),
                event("outcome", outcome="unknown", milliseconds=9, ended_by="shutdown"),
            ],
            "permitted, the gateway was told to stop, and ended it after 9 ms, nobody can say how far it came",
        ),
        (
            [event("decision", **ASKED, decision="permit", observed={"would": "hold"})],
            "permitted in observe mode (it would have been held), no outcome is on record yet",
        ),
        (
            [
                event("decision", **ASKED, decision="hold"),
                event("approval", verdict="approve", person="user:bob", assurance="passkey", standing="a_1"),
                event("outcome", outcome="done", milliseconds=5),
            ],
            "held, approved by bob with a passkey (standing approval a_1), done in 5 ms",
        ),
        (
            [
                event("decision", **ASKED, decision="hold"),
                event("approval", verdict="send-back", person="user:bob", assurance="signed-in", state="denied"),
                event("decision", **ASKED, decision="deny", reason="sent_back"),
            ],
            "held, sent back by bob while signed in",
        ),
        (
            [event("decision", **ASKED, decision="hold"), event("approval", hold="h_1", state="expired")],
            "held, nobody answered in time",
        ),
        (
            [event("decision", **ASKED, decision="permit"), event("outcome", outcome="unknown", milliseconds=5)],
            "permitted, interrupted, nobody can say whether it ran",
        ),
    ],
    ids=[
        "denied",
        "permitted",
        "approved",
        "revoked",
        "crashed",
        "called off",
        "shut down",
        "observed",
        "approved ahead",
        "sent back",
        "expired",
        "unknown",
    ],
)
def test_a_call_is_told_in_one_sentence(events: list[Event], ending: str) -> None:
    assert story(events) == f"{BEGINNING}: {ending}"


def test_an_agent_that_works_for_itself_and_hidden_characters_are_told_as_what_they_are() -> None:
    own = {"actor": "agent:coder", "subject": "agent:coder", "chain": ["agent:coder"], "tool": "a\u202eb"}
    told = story([event("decision", **own, decision="deny", reason="policy", because=["a", "b"])])
    assert told == "coder, for itself, asked for a\\u{202e}b: denied (policy does not permit it: a, b)"
    assert story([]) == "nothing was decided about this call"


@pytest.mark.parametrize(
    ("method", "asked"),
    [
        ("tools/call", "coder, for itself, asked for acme__read: sent back for its person to sign in again"),
        (
            "resources/read",
            "coder, for itself, asked to read a resource of acme: sent back for its person to sign in again",
        ),
        ("prompts/get", "coder, for itself, asked for a prompt of acme: sent back for its person to sign in again"),
    ],
)
def test_what_is_no_call_of_a_tool_is_told_as_what_it_is(method: str, asked: str) -> None:
    who = {"actor": "agent:coder", "subject": "agent:coder", "chain": ["agent:coder"]}
    tool = {"tool": "acme__read", "server": "acme", "action": "", "method": method}
    assert story([event("decision", **who, **tool, decision="deny", sent_back_for=[])]) == asked


def test_a_held_call_that_its_client_asks_for_now_and_then_is_told_once_until_something_else_happens() -> None:
    asks = [event("decision", **ASKED, decision="hold", hold=hold, rules=["r"]) for hold in ("h_1", "h_1", "h_2")]
    other = event("decision", **ASKED, decision="hold", hold="h_1", rules=["another"])
    denied = [event("decision", **ASKED, decision="deny", reason="policy") for _ in range(2)]
    events = [*asks, other, asks[0], *denied]
    told = [(first, len(again)) for first, again in told_once(events, lambda it: it)]
    assert told == [(asks[0], 1), (asks[2], 0), (other, 0), (asks[0], 0), (denied[0], 0), (denied[1], 0)]
    assert times_again(1) == "; asked again once, until" and times_again(3) == "; asked again 3 times, until"
