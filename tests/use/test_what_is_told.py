"""What others read of records: stories, metrics, spans and events, where the plain cases are near their edges."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mcp_authz import limits
from mcp_authz.audit_story import story
from mcp_authz.metrics import Metrics
from mcp_authz.rules import ocsf
from mcp_authz.rules.claimed import INTENT, claimed
from mcp_authz.spans import Span, Spans
from mcp_authz.store.ports import Event, EventKind, Record

AT = datetime(2026, 1, 1, tzinfo=UTC)


def event(kind: EventKind, **fields: Any) -> Event:
    return Event(kind=kind, at=AT, call="c_1", fields=fields)


def test_a_story_goes_from_who_acted_up_to_the_person_and_quotes_what_cannot_leave_its_quotation() -> None:
    chain = ["agent:planner", "agent:coder", "agent:tester"]
    asked = {"actor": "agent:tester", "chain": chain, "subject": "user:alice", "tool": "x", "decision": "hold"}
    said = 'so be it", denied by carol\x1b[2J'
    answer = {"verdict": "approve", "person": "user:bob", "assurance": "passkey", "reason": said, "state": "approved"}
    told = story([event("decision", **asked), event("approval", **answer)])
    assert told.startswith("tester, delegated by coder, planner, for alice, asked for x: held, approved by bob")
    assert told.endswith('with a passkey, who said "so be it\', denied by carol\\u{001b}[2J", not run')


def test_an_empty_intent_is_one_and_no_draft_takes_its_place() -> None:
    draft = {"io.modelcontextprotocol/aiInvocation": {"invocationReason": "because"}}
    assert claimed({INTENT: "", **draft}) == {} and claimed(draft) == {"claimed_intent": "because"}


def test_hidden_characters_make_no_claim_longer_than_a_claim_may_be() -> None:
    for said in ("\u202e" * limits.INTENT_RECORDED, "\u202e" * (limits.INTENT_RECORDED // 4), "a" * 10_000):
        told = claimed({INTENT: said})["claimed_intent"]
        assert len(told) == limits.INTENT_RECORDED and told.endswith("…")
    whole = "a" * limits.INTENT_RECORDED
    assert claimed({INTENT: whole})["claimed_intent"] == whole
    blank = claimed({INTENT: " " * limits.INTENT_RECORDED + "a"})
    assert blank == {"claimed_intent": "…"}  # what is looked at is bounded as well


@pytest.mark.parametrize(("milliseconds", "bucket"), [(5, "0.005"), (6, "0.01"), (300_000, "300.0"), (300_001, "+Inf")])
def test_a_call_is_counted_up_to_the_bound_that_it_took(milliseconds: int, bucket: str) -> None:
    metrics = Metrics([])
    metrics.hear(event("outcome", outcome="done", milliseconds=milliseconds))
    (first,) = [line for line in metrics.text({}).splitlines() if "_bucket" in line and line.endswith(" 1")][:1]
    assert f'le="{bucket}"' in first


def test_a_span_never_ends_before_it_began_although_a_clock_was_set_back() -> None:
    done = list[Span]()
    spans = Spans(done.append)
    record = Record(sequence=1, previous=bytes(32), hash=bytes(32), event=event("decision", decision="permit"))
    spans.hear(record)
    early = replace(event("outcome", outcome="done"), at=AT - timedelta(seconds=3))
    spans.hear(replace(record, sequence=2, event=early))
    (span,) = done
    assert span.began_at == span.ended_at == AT


@pytest.mark.parametrize(
    ("decision", "ids"),
    [("permit", [1, 1, 1, 1]), ("replay", [1, 1, 1, 16]), ("hold", [99, 2, 99, 14]), ("deny", [2, 3, 2, 2])],
)
def test_a_decision_is_told_as_what_it_was(decision: str, ids: list[int]) -> None:
    made = ocsf.event(event("decision", decision=decision), sequence=1, hash_=bytes(32), version="1")
    assert [made[name] for name in ("status_id", "severity_id", "action_id", "disposition_id")] == ids


@pytest.mark.parametrize(("hazard", "activity"), [("read", 2), ("write", 3), ("destructive", 99)])
def test_what_a_call_does_is_told_by_its_hazard(hazard: str, activity: int) -> None:
    made = ocsf.event(event("decision", decision="permit", hazard=hazard), sequence=1, hash_=bytes(32), version="1")
    assert (made["activity_id"], made["type_uid"]) == (activity, 600300 + activity)


@pytest.mark.parametrize(
    ("kind", "outcome", "status", "severity"),
    [
        ("outcome", "done", 1, 1),
        ("outcome", "tool-error", 2, 1),
        ("outcome", "unknown", 0, 3),
        ("pin", "quarantined", 1, 4),
    ],
)
def test_what_nobody_can_say_and_what_was_quarantined_is_told_louder(
    kind: EventKind, outcome: str, status: int, severity: int
) -> None:
    made = ocsf.event(event(kind, outcome=outcome), sequence=1, hash_=bytes(32), version="1")
    assert (made["status_id"], made["severity_id"]) == (status, severity)
