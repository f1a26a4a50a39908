"""Threat 21: an object in the arguments that Cedar would read as an entity, a decimal or an expression of its own."""

from __future__ import annotations

from typing import Any

import cedarpy
import pytest

from tests.policy.documents import ask, document, holds

PERMIT = '@id("all") permit (principal, action, resource);'
READS_IT = (
    '@id("it") permit (principal, action, resource) when { context.arguments has it && context.arguments.it == 1 };'
)
ADMIN = {"__entity": {"type": "Agent", "id": "admin"}}
DECIMAL = {"__extn": {"fn": "decimal", "arg": "1.0"}}
EXPRESSION = {"__expr": 'Agent::"admin"'}


def everywhere(thing: dict[str, Any]) -> list[Any]:
    return [thing, [thing], {"a": thing}, [{"a": [thing]}], {**thing, "other": 1}]


def test_cedar_itself_reads_such_an_object_as_an_entity() -> None:
    request = {
        "principal": 'Agent::"admin"',
        "action": 'Action::"b"',
        "resource": 'Tool::"c"',
        "context": {"owner": ADMIN},
    }

    assert cedarpy.is_authorized(
        request, "permit (principal, action, resource) when { context.owner == principal };", []
    ).allowed


@pytest.mark.parametrize("policies", [PERMIT, PERMIT + READS_IT], ids=["unread", "read"])
@pytest.mark.parametrize("thing", [ADMIN, DECIMAL, EXPRESSION, {"__entity": None}, {"__extn": "x"}, {"__expr": 1}])
async def test_an_argument_is_never_read_as_anything_but_data(policies: str, thing: dict[str, Any]) -> None:
    for value in everywhere(thing):
        answer = await ask(policies, document(arguments={"it": value}))

        assert (answer.permit, answer.obligations) == (False, ())
        assert "which Cedar would not read as data" in answer.errors[0]


@pytest.mark.parametrize("thing", [ADMIN, DECIMAL, EXPRESSION])
async def test_no_other_part_of_the_document_is_read_as_anything_but_data(thing: dict[str, Any]) -> None:
    plain = document()
    for part in ("actor", "resource", "session", "on_behalf_of"):
        for changed in ({**plain[part], **thing}, {**plain[part], "labels": thing}, {**plain[part], "a": [thing]}):
            assert (await ask(PERMIT, document(**{part: changed}))).errors
    for part in ("scope", "chain", "approval", "time", "action", "method", "arguments"):
        assert (await ask(PERMIT, document(**{part: thing}))).errors
    for part in ("scope", "chain"):
        assert (await ask(PERMIT, document(**{part: [thing]}))).errors


async def test_the_bare_forms_of_an_entity_and_a_decimal_stay_records() -> None:
    for value in ({"type": "Agent", "id": "coder"}, {"fn": "decimal", "arg": "1.0"}):
        name = next(iter(value))
        given = document(arguments={"it": value})
        assert await holds(f'context.arguments has it.{name} && context.arguments.it.{name} like "*"', given)


@pytest.mark.parametrize(
    "name", ['x"; permit', 'coder", action, resource);//', "a\nb", "a\u0000b", "\u202e", 'Agent::"b"']
)
async def test_a_name_is_never_read_as_policy_text(name: str) -> None:
    given = document(
        actor={**document()["actor"], "id": name}, action=name, resource={**document()["resource"], "tool": name}
    )
    policy = '@id("it") permit (principal == Agent::"coder", action, resource);'

    assert not (await ask(policy, given)).permit
    assert (await ask(PERMIT, given)).permit


async def test_an_argument_does_not_reach_beside_the_arguments() -> None:
    sneaky = {"approval": {"rules": ["x"]}, "scope": ["admin"], "..": 1, "arguments": {"it": 1}}
    policy = (
        '@id("it") permit (principal, action, resource) '
        'when { context has approval && context.approval.rules.contains("x") || context.scope.contains("admin") };'
    )

    assert not (await ask(policy, document(arguments=sneaky))).permit
