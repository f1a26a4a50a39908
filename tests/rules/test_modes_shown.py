"""What an approver reads of the mode, and which answers count in it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from mcp_authz.model import ApprovalRule, Hazard, HeldCall, HoldId, HoldState, ToolName
from mcp_authz.principals import AgentName, Mode, Person, PersonName, SessionId
from mcp_authz.rules.display import displayed, displayed_digest, through
from mcp_authz.rules.hold import is_eligible, prompt_may_answer

AT = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
RULE = ApprovalRule(name="destructive")
ALICE, PLANNER = PersonName("alice"), AgentName("planner")
HELD = HeldCall(
    id=HoldId("h_1"),
    state=HoldState.PENDING,
    digest=bytes(32),
    tool=ToolName("acme__deploy"),
    server="acme",
    arguments={},
    hazard=Hazard.DESTRUCTIVE,
    session=SessionId("s_1"),
    purpose="nightly",
    subject=ALICE,
    owner=ALICE,
    actor=PLANNER,
    chain=(PLANNER,),
    interactive=True,
    rules=(RULE,),
    asked_at=AT,
    expires_at=AT + timedelta(minutes=15),
)


@pytest.mark.parametrize(
    ("mode", "line", "rule"),
    [
        (Mode.DELEGATED, "for alice, through user:alice -> agent:planner", "the person it acts for"),
        (Mode.OWN, "for itself, owner alice, through agent:planner", "the owner of the first agent"),
        (
            Mode.IMPERSONATED,
            "for alice, impersonated, through user:alice -> agent:planner",
            "the person it impersonates",
        ),
    ],
)
def test_an_approver_reads_for_whom_it_is(mode: Mode, line: str, rule: str) -> None:
    shown = displayed(replace(HELD, mode=mode))
    assert line in shown.splitlines() and f"destructive: {rule}" in shown


def test_the_mode_is_part_of_what_an_approver_signs() -> None:
    assert len({displayed_digest(replace(HELD, mode=mode)) for mode in Mode}) == 3


def test_no_person_stands_before_an_agent_that_works_for_itself() -> None:
    assert through(replace(HELD, mode=Mode.OWN)) == ("agent:planner",)


def test_a_clients_prompt_answers_only_for_the_person_it_works_for() -> None:
    assert [mode for mode in Mode if prompt_may_answer(replace(HELD, mode=mode))] == [Mode.DELEGATED]


def test_the_owner_of_a_workflow_answers_for_it_and_is_no_stranger_to_it() -> None:
    held, alice, bob = replace(HELD, mode=Mode.OWN), Person(name=ALICE), Person(name=PersonName("bob"))
    assert is_eligible(alice, held, RULE) and not is_eligible(bob, held, RULE)
    outside = ApprovalRule(name="outside", by=("subject", "owner", "user:bob"), outside_chain=True)
    assert not is_eligible(alice, held, outside) and is_eligible(bob, held, outside)
