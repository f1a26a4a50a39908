"""Which records a filter has; and that what a store may leave out by it is never one of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_authz.errors import InputError
from mcp_authz.rules.audit_filter import Filter, fits, folded
from mcp_authz.rules.log import GENESIS, record_bytes
from mcp_authz.rules.sentence import sentence
from mcp_authz.store.ports import Event

AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
DENIED = Event(
    kind="decision",
    at=AT,
    call="c_first",
    fields={
        "actor": "agent:coder",
        "chain": ["agent:planner", "agent:coder"],
        "subject": "user:alice",
        "session": "s_morning",
        "tool": "acme__deploy",
        "server": "acme",
        "action": "deploy.create",
        "resource": {"repo": "acme/api", "asked_by": "agent:impostor"},
        "decision": "deny",
        "reason": "environment",
        "because": ["no-production"],
        "hold": "h_second",
    },
)


@pytest.mark.parametrize(
    ("asked", "there"),
    [
        ({}, True),
        ({"agent": "coder"}, True),
        ({"agent": "planner"}, True),
        ({"agent": "code"}, False),
        ({"agent": "impostor"}, False),
        ({"person": "alice"}, True),
        ({"person": "coder"}, False),
        ({"session": "s_mor"}, True),
        ({"session": "morning"}, False),
        ({"tool": "acme__deploy"}, True),
        ({"tool": "acme__*"}, True),
        ({"tool": "*deploy*"}, True),
        ({"tool": "deploy"}, False),
        ({"decision": "deny"}, True),
        ({"decision": "permit"}, False),
        ({"kind": "decision"}, True),
        ({"kind": "outcome"}, False),
        ({"call": "c_fir"}, True),
        ({"call": "h_sec"}, True),
        ({"call": "first"}, False),
        ({"since": AT}, True),
        ({"since": AT + timedelta(seconds=1)}, False),
        ({"until": AT}, True),
        ({"until": AT - timedelta(seconds=1)}, False),
        ({"text": "ACME/api"}, True),
        ({"text": "delegated by planner"}, True),
        ({"text": "staging"}, False),
        ({"observed": True}, False),
        ({"agent": "coder", "person": "alice", "decision": "deny", "text": "no-production"}, True),
        ({"agent": "coder", "person": "bob"}, False),
    ],
)
def test_a_filter_has_what_fits_everything_that_it_asks_for(asked: dict[str, Any], there: bool) -> None:
    assert Filter(**asked).has(DENIED) is there


def test_a_tool_of_a_server_is_found_by_both_names_where_a_record_has_them_apart() -> None:
    pinned = Event(kind="pin", at=AT, fields={"server": "acme", "tool": "deploy", "outcome": "quarantined"})
    assert Filter(tool="acme__deploy").has(pinned) and Filter(tool="deploy").has(pinned)
    assert passes(Filter(tool="acme__deploy"), pinned)


def test_what_is_looked_for_has_a_bound() -> None:
    for asked in ({"text": ""}, {"text": "x" * 257}, {"agent": ""}):
        with pytest.raises(InputError, match="must have 1 to 256 characters"):
            Filter(**asked)


@pytest.mark.parametrize(
    ("name", "pattern", "is_one"),
    [
        ("a", "a", True),
        ("ab", "a", False),
        ("a__b", "a__*", True),
        ("a__b", "*b", True),
        ("ab", "ab*b", False),
        ("abb", "ab*b", True),
        ("axxbyyc", "a*b*c", True),
        ("axxc", "a*b*c", False),
        ("", "*", True),
        ("a" * 128, "*a" * 127 + "*b", False),
    ],
)
def test_a_star_stands_for_any_characters(name: str, pattern: str, is_one: bool) -> None:
    assert fits(name, pattern) is is_one


def test_letters_are_compared_in_whatever_case_and_none_becomes_an_ascii_one() -> None:
    assert folded("ÄRGER") == folded("ärger")
    assert "k" not in folded("\u212a") and folded("\u0130") == "\u0130"


NAMES = st.text('abkh_K\u212a\u0130é"\\ \t:', min_size=1, max_size=6)
VALUES = st.recursive(NAMES | st.integers(-99, 99) | st.booleans() | st.none(), lambda some: st.lists(some, max_size=3))
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "actor": NAMES.map("agent:{}".format),
        "chain": st.lists(NAMES.map("agent:{}".format), max_size=3),
        "subject": NAMES.map("user:{}".format),
        "by": NAMES.map("user:{}".format),
        "person": NAMES.map("user:{}".format),
        "session": NAMES,
        "tool": NAMES,
        "server": NAMES,
        "decision": st.sampled_from(["permit", "hold", "deny", "replay"]),
        "verdict": st.sampled_from(["approve", "deny"]),
        "state": NAMES,
        "rules": st.lists(NAMES, max_size=2),
        "because": st.lists(NAMES, max_size=2),
        "missing": st.lists(NAMES, max_size=2),
        "sent_back_for": st.lists(NAMES, max_size=2),
        "reason": NAMES,
        "summary": NAMES,
        "outcome": NAMES,
        "milliseconds": st.integers(0, 999),
        "observed": st.fixed_dictionaries({"would": st.sampled_from(["hold", "deny"]), "reason": NAMES}),
        "hold": NAMES,
        "other": VALUES,
    },
)
KINDS = st.sampled_from(["decision", "outcome", "approval", "refusals", "sign-in", "policy"])


def passes(wanted: Filter, event: Event) -> bool:
    """Whether a store that knows only marks and words of the filter lets the record through."""
    body = record_bytes(
        sequence=1, previous=GENESIS, kind=event.kind, at=event.at, call=event.call, fields=event.fields
    ).decode()
    lowered = "".join(c.lower() if c.isascii() else c for c in body)
    return all(mark in body for mark in wanted.marks) and all(word in lowered for word in wanted.words)


@given(KINDS, FIELDS, st.data())
def test_every_word_of_a_sentence_is_found(kind: Any, fields: dict[str, Any], data: st.DataObject) -> None:
    event = Event(kind=kind, at=AT, fields=fields)
    told = sentence(event)
    start = data.draw(st.integers(0, len(told) - 1))
    wanted = Filter(text=told[start : data.draw(st.integers(start + 1, len(told)))][:256])
    assert wanted.has(event) and passes(wanted, event)


@given(KINDS, NAMES, FIELDS, FIELDS)
def test_what_a_filter_has_is_never_left_out(
    kind: Any, call: str, fields: dict[str, Any], asked: dict[str, Any]
) -> None:
    event = Event(kind=kind, at=AT, call=call, fields=fields)
    wanted = Filter(
        agent=asked["actor"].removeprefix("agent:") if "actor" in asked else None,
        person=asked["by"].removeprefix("user:") if "by" in asked else None,
        session=asked.get("session"),
        tool=asked.get("tool"),
        decision=asked.get("decision"),
        call=asked.get("hold"),
        observed="observed" in asked,
        text=asked.get("state"),
    )
    assert passes(wanted, event) or not wanted.has(event)
    alike = Filter(agent=fields["actor"].removeprefix("agent:")) if "actor" in fields else Filter(call=call)
    assert alike.has(event) and passes(alike, event)
