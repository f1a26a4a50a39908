"""Threat 20: Cedar skips a forbid that errs, and the permit beside it would decide.

The defence is in two places: what can err for want of an attribute is not loaded, and whatever errs all the same
makes the answer a denial.
"""

from __future__ import annotations

from typing import Any

import cedarpy
import pytest

from mcp_authz.errors import PolicyError
from mcp_authz.policy.cedar import CedarEngine
from tests.policy.documents import approved, ask, document

PERMIT = '@id("all") permit (principal, action, resource);'
CANARY = "canary-7f3a"


def forbid(condition: str) -> str:
    return f'@id("guard") forbid (principal, action, resource) when {{ {condition} }};'


UNGUARDED = forbid("context.arguments.amount > 100")
GUARDED = forbid("context.arguments has amount && context.arguments.amount > 100")


def test_cedar_itself_permits_when_the_forbid_errs() -> None:
    policies = PERMIT + UNGUARDED
    request = {
        "principal": 'Agent::"a"',
        "action": 'Action::"b"',
        "resource": 'Tool::"c"',
        "context": {"arguments": {}},
    }

    assert cedarpy.is_authorized(request, policies, []).allowed  # if this ever changes, the defence may be simpler


def test_a_forbid_that_reads_what_may_be_missing_is_not_loaded() -> None:
    with pytest.raises(PolicyError, match="policy `guard`: unable to guarantee safety of access"):
        CedarEngine.load({"guard.cedar": PERMIT + UNGUARDED})


@pytest.mark.parametrize("amount", ["1000", True, [1000], {"value": 1000}, 1000.5, 2**63])
async def test_a_forbid_that_errs_on_a_value_is_a_denial_that_names_it(amount: Any) -> None:
    answer = await ask(PERMIT + GUARDED, document(arguments={"amount": amount}))

    assert (answer.permit, answer.obligations) == (False, ())
    assert answer.errors == ("policy `guard` could not be evaluated: a value is not what the policy takes it for",)


async def test_a_forbid_that_errs_by_overflow_is_a_denial() -> None:
    policies = PERMIT + forbid("context.arguments has n && context.arguments.n + 1 > 100")

    assert (await ask(policies, document(arguments={"n": 2**63 - 1}))).errors


async def test_a_permit_that_errs_denies_although_another_one_matches() -> None:
    broken = GUARDED.replace("forbid", "permit")

    assert not (await ask(PERMIT + broken, document(arguments={"amount": "x"}))).permit


async def test_an_error_that_only_an_approval_uncovers_is_a_denial_and_not_a_hold() -> None:
    policies = (
        PERMIT
        + '@id("floor") @approval("x") forbid (principal, action, resource) unless { context has approval };'
        + forbid("context has approval && context.arguments has amount && context.arguments.amount > 100")
    )

    for approval in (None, approved("x")):
        answer = await ask(policies, document(arguments={"amount": "x"}, approval=approval))
        assert (answer.permit, answer.obligations, bool(answer.errors)) == (False, (), True)


async def test_an_error_that_an_approval_would_hide_is_a_denial_and_not_a_hold() -> None:
    policies = (
        '@id("p") @approval("x") permit (principal, action, resource) '
        'when { context has approval && context.approval.rules.contains("x") };'
    ) + forbid("!(context has approval) && context.arguments has amount && context.arguments.amount > 100")

    answer = await ask(policies, document(arguments={"amount": "x"}))

    assert (answer.permit, answer.obligations, bool(answer.errors)) == (False, (), True)


async def test_a_document_without_what_every_document_has_is_a_denial() -> None:
    reads_roles = forbid('principal.roles.contains("banned")')
    incomplete = document()
    del incomplete["actor"]["roles"]

    assert (await ask(PERMIT + reads_roles, incomplete)).errors == ("policy `guard` reads `roles`, which is not there",)


@pytest.mark.parametrize("arguments", [{"amount": CANARY}, {CANARY: 1, "amount": "x"}, {"amount": {CANARY: CANARY}}])
async def test_an_error_never_quotes_an_argument(arguments: dict[str, Any]) -> None:
    nested = forbid("context.arguments has amount.limit && context.arguments.amount.limit > 100")

    for policy in (GUARDED, nested, forbid("context.arguments has amount && context.arguments.amount + 1 > 100")):
        answer = await ask(PERMIT + policy, document(arguments=arguments))
        assert CANARY not in repr(answer)


async def test_an_overflow_does_not_quote_its_numbers() -> None:
    policies = PERMIT + forbid("context.arguments has n && context.arguments.n * 3 > 100")

    assert "9223372036854775001" not in repr(await ask(policies, document(arguments={"n": 9223372036854775001})))
