"""What is counted, under which names; and spans out of records."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

from mcp_authz.metrics import Metrics
from mcp_authz.spans import OPEN_AT_MOST, Span, Spans
from mcp_authz.store.ports import Event, Record

AT = datetime(2026, 3, 1, tzinfo=UTC)
LINE = re.compile(r'[a-z_]+(\{[a-z]+="[^"\\\n]*"(,[a-z]+="[^"\\\n]*")*\})? [0-9.e+-]+|# (HELP|TYPE) [a-z_]+ .+')


def event(kind: Any, call: str | None = "c_1", *, after: float = 0, **fields: Any) -> Event:
    return Event(kind=kind, at=AT + timedelta(seconds=after), call=call, fields=fields)


def counted(*events: Event) -> set[str]:
    metrics = Metrics({"acme"})
    for one in events:
        metrics.hear(one)
    text = metrics.text({"mcp_authz_log_sequence": ("The last record.", 1_234_567_890)})
    assert text.endswith("\n") and all(LINE.fullmatch(line) for line in text.splitlines())
    return {line for line in text.splitlines() if not line.startswith("#")}


def test_each_kind_of_record_has_its_counter() -> None:
    lines = counted(
        event("decision", decision="permit", server="acme", hazard="read", tool="acme__list"),
        event("outcome", outcome="done", tool="acme__list", milliseconds=30),
        event("outcome", outcome="done", tool="acme__list", milliseconds=400_000),
        event("decision", decision="deny", reason="unknown_tool", tool="made__up"),
        event("approval", verdict="approve", assurance="passkey"),
        event("refusals", None, reason="body", source="192.0.2.0/24", count=7),
        event("policy", None, key="policy", error="no such file"),
        event("policy", None, key="policy"),
    )
    assert {
        'mcp_authz_decisions_total{decision="permit",reason="",server="acme",hazard="read"} 1',
        'mcp_authz_decisions_total{decision="deny",reason="unknown_tool",server="",hazard=""} 1',
        'mcp_authz_outcomes_total{outcome="done",server="acme"} 2',
        'mcp_authz_call_seconds_bucket{le="0.025",outcome="done"} 0',
        'mcp_authz_call_seconds_bucket{le="0.05",outcome="done"} 1',
        'mcp_authz_call_seconds_bucket{le="+Inf",outcome="done"} 2',
        'mcp_authz_call_seconds_sum{outcome="done"} 400.03',
        'mcp_authz_call_seconds_count{outcome="done"} 2',
        'mcp_authz_verdicts_total{verdict="approve",assurance="passkey"} 1',
        'mcp_authz_refusals_total{reason="body"} 7',
        'mcp_authz_policy_reload_failures_total{policy="policy"} 1',
        'mcp_authz_records_total{kind="policy"} 2',
        "mcp_authz_log_sequence 1234567890",
    } <= lines


def test_nobody_outside_chooses_how_many_numbers_are_kept() -> None:
    strange = ['a"} 1\nevil 1', "x" * 65, "", 7, None, ["list"], {"a": 1}]
    lines = counted(
        *(event("decision", decision=value, reason=value, server=value, hazard=value, tool=value) for value in strange),
        *(event("refusals", None, reason=value, count=value) for value in strange),
        *(event("decision", decision="deny", reason=f"reason-{number}") for number in range(500)),
        *(event("outcome", outcome=f"outcome-{number}", tool=f"s{number}__t") for number in range(500)),
    )
    assert len(lines) < 200 and not any("evil" in line for line in lines)
    assert any('reason="other"' in line for line in lines)


def record(number: int, of: Event) -> Record:
    return Record(sequence=number, event=of, previous=bytes(32), hash=bytes(32))


def spans_of(*events: Event) -> list[Span]:
    made: list[Span] = []
    spans = Spans(made.append)
    for number, one in enumerate(events, start=1):
        spans.hear(record(number, one))
    return made


def test_a_call_is_one_span_from_its_decision_to_its_outcome() -> None:
    fields = {"tool": "acme__list", "action": "pr.list", "server": "acme", "hazard": "read", "actor": "agent:coder"}
    (span,) = spans_of(
        event("decision", decision="permit", trace="a" * 32, span="b" * 16, resource={"repo": "secret"}, **fields),
        event("outcome", outcome="tool-error", after=2.5, milliseconds=2500),
    )
    assert (span.name, span.trace, span.parent, span.error) == (
        "tools/call acme__list",
        "a" * 32,
        "b" * 16,
        "tool_error",
    )
    assert span.ended_at - span.began_at == timedelta(seconds=2.5)
    assert span.attributes == {
        "mcp.method.name": "tools/call",
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.name": "acme__list",
        "gen_ai.agent.name": "coder",
        "mcp_authz.call": "c_1",
        "mcp_authz.decision": "permit",
        "mcp_authz.server": "acme",
        "mcp_authz.hazard": "read",
        "mcp_authz.outcome": "tool-error",
        "error.type": "tool_error",
    }


def test_a_call_that_is_refused_or_held_is_a_span_at_once_and_an_unknown_name_is_in_none() -> None:
    refused, held = spans_of(
        event("decision", decision="deny", reason="unknown_tool", tool="typed by a caller", method="tools/call"),
        event("decision", decision="hold", hold="h_1", tool="acme__deploy", action="deploy.create"),
        event("outcome", "c_other", outcome="done"),
    )
    assert refused.error == "unknown_tool" and "typed" not in str(refused) and refused.name == "tools/call"
    assert held.error is None and held.attributes["mcp_authz.hold"] == "h_1" and held.began_at == held.ended_at


def test_calls_that_never_end_are_forgotten() -> None:
    made: list[Span] = []
    spans = Spans(made.append)
    for number in range(OPEN_AT_MOST + 1):
        spans.hear(record(number, event("decision", f"c_{number}", decision="permit", tool="t")))
    spans.hear(record(0, event("outcome", "c_0", outcome="done")))
    spans.hear(record(0, event("outcome", "c_1", outcome="done")))
    assert [span.attributes["mcp_authz.call"] for span in made] == ["c_1"]
