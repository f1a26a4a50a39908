"""A fresh sign-in: what a policy may demand, and that nothing unknown passes for one (RFC 9470)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mcp_authz import limits
from mcp_authz.errors import InputError
from mcp_authz.model import (
    Approval,
    ApprovalRule,
    Assurance,
    Classification,
    Deny,
    Hazard,
    Hold,
    HoldId,
    Obligation,
    Permit,
    RuleId,
    Tool,
    ToolName,
)
from mcp_authz.policy.engine import PolicyAnswer
from mcp_authz.principals import Authentication, PersonName
from mcp_authz.rules.decision import ApprovalFloor, decide
from mcp_authz.rules.freshness import max_age
from mcp_authz.rules.observe import observe

AT = datetime(2026, 11, 20, 9, tzinfo=UTC)
RULE = ApprovalRule(name="destructive")
FLOOR = ApprovalFloor(rules={"destructive": RULE}, by_hazard={Hazard.DESTRUCTIVE: "destructive"})


def tool(hazard: Hazard = Hazard.READ, *, observed: bool = False) -> Tool:
    return Tool(
        name=ToolName("acme__deploy"),
        server="acme",
        tool="deploy",
        environment="staging",
        definition={},
        digest=bytes(32),
        classification=Classification(action="deploy", hazard=hazard, scopes=(), by="test"),
        observed=observed,
    )


def signed_in(ago: timedelta) -> Authentication:
    return Authentication(at=AT - ago, amr=("hwk",))


def decided(ago: timedelta | None, *arguments: str, which: Tool | None = None, approval: Any = None) -> Any:
    """What is decided of a call whose person signed in so long ago, under a policy that demands these ages."""
    asked = tuple(Obligation(kind="step_up", argument=argument) for argument in arguments)
    return decide(
        call_digest=bytes(32),
        tool=which or tool(),
        answer=PolicyAnswer(permit=True, because=(RuleId("fresh"),), obligations=asked),
        approval=approval,
        floor=FLOOR,
        authentication=None if ago is None else signed_in(ago),
        at=AT,
    )


@pytest.mark.parametrize("text", ["1", "300", "86400"])
def test_seconds_have_one_spelling(text: str) -> None:
    assert max_age(text) == timedelta(seconds=int(text))


@pytest.mark.parametrize(
    "text", ["", "0", "-1", "86401", "99999", "100000", "0300", "300s", " 300", "3e2", "1.5", "\u0663", "five", "300\n"]
)
def test_nothing_else_is_a_time(text: str) -> None:
    with pytest.raises(InputError, match="no number of seconds"):
        max_age(text)


def test_who_signed_in_lately_enough_is_permitted() -> None:
    assert isinstance(decided(timedelta(seconds=300), "300"), Permit)


@pytest.mark.parametrize("ago", [timedelta(seconds=301), None], ids=str)
def test_who_did_not_is_denied_and_the_denial_says_how_fresh_it_must_be(ago: timedelta | None) -> None:
    denial = decided(ago, "300")
    assert isinstance(denial, Deny)
    assert (denial.code, denial.max_age, denial.because) == ("stale_sign_in", timedelta(seconds=300), ("fresh",))


def test_a_sign_in_of_the_future_is_not_known_to_have_been() -> None:
    assert isinstance(decided(-limits.CLOCK_SKEW, "300"), Permit)
    assert isinstance(decided(-limits.CLOCK_SKEW - timedelta(seconds=1), "300"), Deny)


def test_the_shortest_time_that_is_demanded_counts() -> None:
    assert decided(timedelta(seconds=90), "300", "60").max_age == timedelta(seconds=60)


@pytest.mark.parametrize("argument", ["", "0", "soon", "86401"])
def test_a_demand_that_cannot_be_read_is_a_denial_also_for_who_signed_in_just_now(argument: str) -> None:
    denial = decided(timedelta(), "300", argument)
    assert isinstance(denial, Deny) and denial.code == "obligation" and denial.max_age is None


def test_nobody_is_asked_to_approve_what_is_not_permitted_yet() -> None:
    destructive = tool(Hazard.DESTRUCTIVE)
    assert isinstance(decided(timedelta(seconds=301), "300", which=destructive), Deny)
    assert isinstance(decided(timedelta(seconds=300), "300", which=destructive), Hold)


def test_an_approval_is_no_sign_in() -> None:
    given = Approval(
        hold=HoldId("h_1"),
        call_digest=bytes(32),
        arguments={},
        rules=("destructive",),
        assurance=Assurance.PASSKEY,
        approved_at=AT,
        by=(PersonName("alice"),),
    )
    denial = decided(timedelta(seconds=301), "300", which=tool(Hazard.DESTRUCTIVE), approval=given)
    assert isinstance(denial, Deny) and denial.code == "stale_sign_in"


def test_a_server_that_is_only_observed_demands_it_all_the_same() -> None:
    observed = tool(observed=True)
    denial = decided(None, "300", which=observed)
    assert observe(denial, tool=observed, call_digest=bytes(32)) == denial
