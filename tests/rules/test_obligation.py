"""Obligations: read strictly, denied where they cannot be carried out, and amounts that are exact."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_authz.errors import ConfigError, InputError
from mcp_authz.model import ApprovalRule, Deny, Hold, Obligation, Permit, RuleId
from mcp_authz.policy.engine import PolicyAnswer
from mcp_authz.rules.budget import SCALE, Budget, read_amount, read_source, written
from mcp_authz.rules.decision import ApprovalFloor, decide
from mcp_authz.rules.obligation import (
    KNOWN_OBLIGATIONS,
    Means,
    RateLimit,
    read_rate,
    unknown_names,
    unreadable,
    within_means,
)
from mcp_authz.rules.observe import observe
from tests.rules.test_freshness import AT, tool

BECAUSE = (RuleId("p"),)
FLOOR = ApprovalFloor(rules={"two": ApprovalRule(name="two")}, by_hazard={})
MEANS = Means(
    budgets={"money": Budget(source="amount", per_call=50 * SCALE, per_session=100 * SCALE)},
    notices={"ops": "log"},
)


def permit(*obligations: Obligation) -> Permit:
    return Permit(call_digest=bytes(32), approval=None, because=BECAUSE, obligations=obligations)


def decided(*obligations: Obligation, observed: bool = False) -> Any:
    return decide(
        call_digest=bytes(32),
        tool=tool(observed=observed),
        answer=PolicyAnswer(permit=True, because=BECAUSE, obligations=obligations),
        approval=None,
        floor=FLOOR,
        authentication=None,
        at=AT,
    )


@pytest.mark.parametrize(
    ("text", "count", "per"),
    [("1/s", 1, "seconds"), ("10/m", 10, "minutes"), ("9999/h", 9999, "hours"), ("10000/d", 10_000, "days")],
)
def test_a_rate_is_a_number_and_a_unit(text: str, count: int, per: str) -> None:
    assert read_rate(text) == RateLimit(count=count, per=timedelta(**{per: 1}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "10",
        "/m",
        "0/m",
        "-1/m",
        "10001/m",
        "99999/m",
        "010/m",
        "1.5/m",
        "10/M",
        "10/min",
        " 10/m",
        "10/m\n",
        "\u0661/m",
    ],
)
def test_a_rate_has_one_spelling(text: str) -> None:
    with pytest.raises(InputError, match="10/m"):
        read_rate(text)


@pytest.mark.parametrize(
    ("kind", "argument"),
    [
        ("notifyy", "ops"),
        ("", ""),
        ("Budget", "money"),
        ("rate_limit", "fast"),
        ("step_up", "soon"),
        ("budget", ""),
        ("notify", "a b"),
        ("redact", "x" * 129),
        ("approval", "two\n"),
    ],
)
def test_what_is_unknown_or_unreadable_is_denied(kind: str, argument: str) -> None:
    denial = decided(Obligation(kind="notify", argument="ops"), Obligation(kind=kind, argument=argument))
    assert isinstance(denial, Deny) and denial.code == "obligation" and denial.because == BECAUSE


@pytest.mark.parametrize("kind", sorted(KNOWN_OBLIGATIONS))
def test_every_known_kind_needs_an_argument_that_says_something(kind: str) -> None:
    assert unreadable([Obligation(kind=kind)]) is not None


@pytest.mark.parametrize("kind", ["budget", "notify", "redact"])
def test_a_name_that_nobody_configured_is_denied_before_anybody_is_asked(kind: str) -> None:
    asked = (Obligation(kind="approval", argument="two"), Obligation(kind=kind, argument="nowhere"))
    held = decided(*asked)
    assert isinstance(held, Hold)
    denial = within_means(held, MEANS, arguments={"amount": 1}, resource={})
    assert isinstance(denial, Deny) and denial.code == "obligation" and "nowhere" in denial.detail


def test_unknown_names_are_told_as_the_tables_they_miss() -> None:
    asked = [Obligation(kind=k, argument=n) for k, n in [("budget", "money"), ("redact", "x"), ("notify", "y")]]
    assert unknown_names(asked, MEANS.names) == ("[redact.x]", "[notices.y]")
    assert unknown_names(asked, {}) == ("[budgets.money]", "[redact.x]", "[notices.y]")


def test_a_call_that_no_budget_can_ever_have_room_for_is_denied_before_anybody_is_asked() -> None:
    held = decided(Obligation(kind="approval", argument="two"), Obligation(kind="budget", argument="money"))
    assert within_means(held, MEANS, arguments={"amount": 50}, resource={}) == held
    denial = within_means(held, MEANS, arguments={"amount": "50.000001"}, resource={})
    assert (
        isinstance(denial, Deny)
        and denial.code == "spent"
        and denial.detail == ("budget `money`: more than 50 for one call")
    )


@pytest.mark.parametrize(
    "amount", [None, -1, 1.0, True, "1.0e3", "-1", "+1", "", "01", "1.", ".75", "1.0000001", [1], {}]
)
def test_an_amount_that_cannot_be_read_denies_and_is_not_repeated(amount: Any) -> None:
    arguments = {} if amount is None else {"amount": amount}
    denial = within_means(permit(Obligation(kind="budget", argument="money")), MEANS, arguments=arguments, resource={})
    assert isinstance(denial, Deny) and denial.code == "obligation" and "`amount`" in denial.detail
    assert str(amount) not in denial.detail or amount in (None, "", [1], {})


@given(st.integers(0, 10**18))
def test_what_is_written_is_read_as_the_same_amount(amount: int) -> None:
    assert read_amount(written(amount)) == amount
    assert Fraction(written(amount)) == Fraction(amount, SCALE)


@pytest.mark.parametrize("value", [10**12 + 1, "1000000000000.000001", "9" * 5000, 10**1000])
def test_an_amount_is_bounded(value: Any) -> None:
    with pytest.raises(InputError):
        read_amount(value)


def test_an_amount_is_an_argument_an_attribute_or_always_the_same() -> None:
    arguments, resource = {"amount": "0.10"}, {"amount": 3}
    amounts = [
        Budget(source=read_source(text)).amount(arguments, resource)
        for text in ("{amount}", "{resource.amount}", "0.000001")
    ]
    assert amounts == [100_000, 3 * SCALE, 1]
    for text in ("", "amount", "{a}{b}", "{a}0", "-1", "{}", "{a b}"):
        with pytest.raises(ConfigError):
            read_source(text)


def test_observe_mode_carries_out_what_goes_along_with_a_permit_or_a_hold() -> None:
    asked = (Obligation(kind="approval", argument="two"), Obligation(kind="redact", argument="x"))
    earlier = Deny(code="insufficient_scope", because=BECAUSE)
    for decision, before in ((decided(*asked), None), (permit(*asked), earlier)):
        seen = observe(decision, tool=tool(observed=True), call_digest=bytes(32), earlier=before)
        assert isinstance(seen, Permit) and seen.obligations == asked[1:]


@pytest.mark.parametrize("code", ["obligation", "spent", "rate_limited"])
def test_observe_mode_passes_over_no_obligation(code: str) -> None:
    denial = Deny(code=code, because=BECAUSE)
    assert observe(denial, tool=tool(observed=True), call_digest=bytes(32)) == denial
