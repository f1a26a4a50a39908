"""Obligations as annotations of Cedar permits: read at load, added up in the answer."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_authz.errors import PolicyError
from mcp_authz.model import Obligation, RuleId
from mcp_authz.policy.cedar import CedarEngine
from tests.policy.documents import ask, document

NAMES = {"budget": {"money"}, "notify": {"ops"}, "redact": {"secrets"}}
ALL = '@rate_limit("10/m") @budget("money") @notify("ops") @redact("secrets") @step_up("300")'
ANY = "(principal, action, resource);"


def load(text: str, **more: Any) -> CedarEngine:
    return CedarEngine.load({"a.cedar": text}, **more)


async def test_every_annotation_of_a_permit_goes_along_with_the_answer() -> None:
    answer = await ask(f'@id("a") {ALL} permit {ANY}', document())
    assert answer.permit
    assert [(one.kind, one.argument) for one in answer.obligations] == [
        ("step_up", "300"),
        ("rate_limit", "10/m"),
        ("budget", "money"),
        ("notify", "ops"),
        ("redact", "secrets"),
    ]


async def test_limits_of_two_permits_count_apart_and_names_once() -> None:
    both = (f'@id("{name}") @rate_limit("10/m") @notify("ops") permit {ANY}' for name in "ab")
    answer = await ask("\n".join(both), document())
    assert answer.obligations == (
        Obligation(kind="rate_limit", argument="10/m", rule=RuleId("a")),
        Obligation(kind="rate_limit", argument="10/m", rule=RuleId("b")),
        Obligation(kind="notify", argument="ops"),
    )


async def test_a_permit_that_demands_nothing_does_not_make_the_others_obligations_void() -> None:
    answer = await ask(f'@id("a") {ALL} permit {ANY} @id("b") permit {ANY}', document())
    assert len(answer.obligations) == 5


async def test_permits_that_do_not_apply_and_denials_ask_for_nothing() -> None:
    other = f'@id("a") {ALL} permit (principal, action == Action::"x", resource); @id("b") permit {ANY}'
    assert (await ask(other, document())).obligations == ()
    assert (await ask(f'@id("a") {ALL} permit {ANY} @id("no") forbid {ANY}', document())).obligations == ()


async def test_a_held_call_has_its_obligations_too() -> None:
    answer = await ask(f'@id("a") @approval("two") @redact("secrets") permit {ANY}', document())
    assert [one.kind for one in answer.obligations] == ["approval", "redact"]


@pytest.mark.parametrize("kind", ["rate_limit", "budget", "notify", "redact"])
@pytest.mark.parametrize("said", ["", '("")', '("a b")', '("10/x")', '("ü")'])
def test_an_unreadable_annotation_is_refused_at_load_with_its_place(kind: str, said: str) -> None:
    if kind != "rate_limit" and said == '("10/x")':
        said = '("10 x")'
    with pytest.raises(PolicyError, match=rf"^a\.cedar:1: policy `a`: `@{kind}\("):
        load(f'@id("a") @{kind}{said} permit {ANY}')


@pytest.mark.parametrize("said", ['@aproval("destructive")', "@redct", '@Redact("secrets")', '@rate_limits("10/m")'])
@pytest.mark.parametrize("effect", ["permit", "forbid"])
def test_an_annotation_that_there_is_not_is_refused_at_load_for_it_may_be_an_obligation_misspelt(
    said: str, effect: str
) -> None:
    with pytest.raises(PolicyError, match=r"^a\.cedar:1: policy `a`: there is no annotation `@"):
        load(f'@id("a") {said} {effect} {ANY}')


async def test_a_description_asks_for_nothing() -> None:
    answer = await ask(f'@id("a") @description("what it is for") permit {ANY}', document())
    assert answer.permit
    assert answer.obligations == ()


@pytest.mark.parametrize("kind", ['rate_limit("10/m")', 'budget("money")', 'notify("ops")', 'redact("secrets")'])
def test_an_obligation_stands_on_no_forbid(kind: str) -> None:
    with pytest.raises(PolicyError, match="stands on a permit"):
        load(f'@id("a") @{kind} forbid {ANY}', names=NAMES)


@pytest.mark.parametrize(("kind", "missing"), [("budget", "budgets"), ("notify", "notices"), ("redact", "redact")])
def test_a_name_that_the_configuration_has_not_is_refused_at_load(kind: str, missing: str) -> None:
    assert load(f'@id("a") {ALL} permit {ANY}', names=NAMES).digest
    policy = f'@id("a") @{kind}("nowhere") permit {ANY}'
    with pytest.raises(PolicyError, match=rf"policy `a`: the configuration has no \[{missing}\.nowhere\]"):
        load(policy, names=NAMES)
    assert load(policy).digest  # who has no configuration at hand, such as a decision table, cannot know
