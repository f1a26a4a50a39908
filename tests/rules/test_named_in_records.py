"""Who a record is about: those whom the gateway names in it, and nobody whom somebody else only writes into it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from mcp_authz.rules.audit_filter import Filter
from mcp_authz.rules.log import GENESIS, record_bytes
from mcp_authz.store.ports import Event

ALICE = "user:alice"
MINE = Filter(about=frozenset({ALICE, "agent:coder"}))
ASKED: dict[str, Any] = {"actor": "agent:other", "subject": "user:bob", "decision": "deny"}

CHOSEN = (
    "argument_values",
    "arguments",
    "because",
    "ceiling",
    "claimed_client",
    "claimed_intent",
    "detail",
    "label",
    "missing",
    "policy_revision",
    "purpose",
    "reason",
    "resource",
    "scope",
    "sent_back_for",
    "summary",
    "tool",
)
"""Members whose words a caller, an approver, a tool server or a policy engine elsewhere chooses."""


def event(**fields: Any) -> Event:
    return Event(kind="decision", at=datetime(2026, 3, 1, tzinfo=UTC), call="c_1", fields={**ASKED, **fields})


@pytest.mark.parametrize("member", CHOSEN)
@pytest.mark.parametrize("said", [ALICE, [ALICE], {"x": ALICE}, {"x": [{"y": ALICE}]}], ids=str)
def test_nobody_reads_a_record_because_somebody_wrote_their_name_into_it(member: str, said: Any) -> None:
    assert not MINE.has(event(**{member: said}))
    assert not Filter(person="alice").has(event(**{member: said}))
    assert not MINE.has(event(observed={"would": "deny", member: said}))


@pytest.mark.parametrize(
    "fields",
    [
        {"subject": ALICE},
        {"by": ALICE},
        {"chain": ["agent:planner", "agent:coder"]},
        {"people": ["user:carol", ALICE]},
        {"approval": {"hold": "h_1", "by": [ALICE]}},
        {"of": "everything", "name": ALICE},
    ],
    ids=str,
)
def test_whoever_had_a_part_in_it_reads_it_and_no_store_leaves_it_out(fields: dict[str, Any]) -> None:
    it = event(**fields)
    body = record_bytes(sequence=1, previous=GENESIS, kind=it.kind, at=it.at, call=it.call, fields=it.fields).decode()
    assert MINE.has(it) and any(name in body for name in MINE.one_of)
    assert not Filter(about=frozenset({"user:ali", "user:alice2", "alice"})).has(it)


def test_a_hold_is_found_by_the_beginning_of_its_id_in_the_call_that_it_let_through() -> None:
    let = event(approval={"hold": "h_second", "by": [ALICE]})
    assert Filter(call="h_sec").has(let) and Filter(call="c_").has(let) and not Filter(call="second").has(let)
    assert [Filter(call=id_).may_be_hold for id_ in ("h", "h_", "h_1", "c_1", "x")] == [True, True, True, False, False]
