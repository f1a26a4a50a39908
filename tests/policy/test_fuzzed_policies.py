"""Whatever a document holds, a shipped policy answers, and permits nothing that its table forbids.

What must hold of every permit is written down here once more, in Python, and compared with every engine.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.policy.test_decision_tables import ENGINES, POLICIES, engine_of, table_of

Check = Callable[[dict[str, Any]], bool]

text = st.text(max_size=6) | st.sampled_from(
    ["production", "staging", "deploy.create", "read", "__entity", "\0", "\ud800"]
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | text
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=8
)
names = st.sampled_from(
    [
        "environment",
        "repo",
        "draft",
        "amount",
        "hazard",
        "secret_environment",
        "deploy_environment",
        "target_environment",
    ]
)
PATHS = [
    *("actor", "actor.id", "actor.type", "actor.labels", "actor.labels.environment", "actor.roles"),
    *("on_behalf_of", "on_behalf_of.user_id", "session", "session.mode", "session.calls_made", "action", "method"),
    *("resource", "resource.hazard", "resource.environment", "resource.repo", "resource.target_environment"),
    *("resource.deploy_environment", "resource.secret_environment", "resource.delegate_labels.environment"),
    *("arguments", "arguments.draft", "arguments.amount", "scope", "approval", "approval.rules", "chain", "time"),
]
WORDS: dict[str, list[Any]] = {
    "action": ["pr.create", "pr.merge", "deploy.create", "secret.read", "payment.create", "delegate", "pr.list"],
    "resource.hazard": ["read", "write", "destructive", "READ"],
    "actor.id": ["agent-code-reviewer-01", "coder"],
    "on_behalf_of.user_id": ["user_123", "alice"],
    "arguments.amount": [0, -1, 1, 50_000, 50_001, 50_000.5, "1", True],
    "arguments.draft": [True, False, "true", 1],
}


# What the operator alone writes, and the configuration takes as text only.
TEXT = {"actor.labels.environment", "resource.environment", "resource.delegate_labels.environment"}


def values_at(path: str) -> st.SearchStrategy[Any]:
    if path in TEXT:
        return st.none() | text
    return st.sampled_from(WORDS[path]) | values if path in WORDS else values


@st.composite
def changes(draw: st.DrawFn) -> dict[str, Any]:
    """Some members of a document, replaced by others that fit or by anything at all."""
    paths = draw(st.lists(st.sampled_from(PATHS), max_size=5, unique=True))
    return {path: draw(values_at(path)) for path in paths}


def changed(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    document = deepcopy(base)
    for path, value in change.items():
        *parents, last = path.split(".")
        record: Any = document
        for parent in parents:
            record = record.setdefault(parent, {}) if isinstance(record, dict) else None
        if isinstance(record, dict):
            record[last] = value
    return document


def at(document: Any, path: str) -> Any:
    for step in path.split("."):
        document = document.get(step) if isinstance(document, dict) else None
    return document


def for_a_person(d: dict[str, Any]) -> bool:
    return d.get("session") is not None and d.get("on_behalf_of") is not None


def in_its_environment(d: dict[str, Any]) -> bool:
    own = at(d, "actor.labels.environment")
    if d.get("action") == "delegate" and at(d, "resource.delegate_labels.environment") != own:
        return False
    here = d.get("action") == "delegate" or at(d, "resource.environment") == own
    target = at(d, "resource.target_environment")
    staging_away = own == "staging" and "production" in (at(d, "resource.environment"), target)
    return isinstance(own, str) and here and (target is None or target == own) and not staging_away


def of_the_incident(d: dict[str, Any]) -> bool:
    own: object = at(d, "actor.labels.environment")
    action: object = d.get("action")
    if action == "secret.read":
        return isinstance(own, str) and at(d, "resource.secret_environment") == own
    if action == "pr.create":
        return at(d, "session.mode") != "delegated" or at(d, "arguments.draft") is True
    if action == "deploy.create":
        return at(d, "resource.deploy_environment") in ("staging", "production")
    if action == "delegate":
        return own != "staging" or bool(at(d, "resource.delegate_labels.environment") == "staging")
    return bool(action in ("pr.list", "deploy.list", "pr.merge"))


def by_the_reviewer(d: dict[str, Any]) -> bool:
    fixed = {
        "actor.type": "agent",
        "actor.id": "agent-code-reviewer-01",
        "on_behalf_of.user_id": "user_123",
        "action": "pr.create",
        "resource.repo": "acme/api",
    }
    scope = d.get("scope")
    held = scope.values() if isinstance(scope, dict) else scope if isinstance(scope, list) else []
    return all(at(d, path) == value for path, value in fixed.items()) and "pr:write:draft" in held


def within_the_limit(d: dict[str, Any]) -> bool:
    amount = at(d, "arguments.amount")
    return (
        isinstance(amount, int | float)
        and not isinstance(amount, bool)
        and 0 < amount <= 50_000
        and amount == int(amount)
    )


# What is true of every document that the policy permits, held calls included.
PERMITTED: dict[str, Check] = {
    "code_reviewer": by_the_reviewer,
    "deny_all": lambda _: False,
    "environments": lambda d: for_a_person(d) and in_its_environment(d),
    "incident": lambda d: for_a_person(d) and of_the_incident(d),
    "own_workflows": lambda d: at(d, "session.mode") == "own" and d.get("on_behalf_of") is None,
    "read_only": lambda d: for_a_person(d) and at(d, "resource.hazard") == "read",
    "scopes_and_hazard": lambda d: for_a_person(d) and at(d, "resource.hazard") in ("read", "write", "destructive"),
    "spending": lambda d: for_a_person(d) and d["action"] == "payment.create" and within_the_limit(d),
    "two_people": lambda d: for_a_person(d) and d["action"] == "deploy.create",
}
# The approval rule that a permit of such a document asks for at least.
HELD: dict[str, tuple[str, Check]] = {
    "environments": ("destructive", lambda d: at(d, "resource.hazard") == "destructive"),
    "incident": (
        "production-deploy",
        lambda d: at(d, "resource.deploy_environment") == "production" and d["action"] == "deploy.create",
    ),
    "own_workflows": ("destructive", lambda d: at(d, "resource.hazard") == "destructive"),
    "scopes_and_hazard": ("destructive", lambda d: at(d, "resource.hazard") == "destructive"),
    "two_people": (
        "two-people",
        lambda d: at(d, "resource.deploy_environment") not in ("development", "test", "staging"),
    ),
}


def engines() -> list[Any]:
    return [
        pytest.param(language, policy, id=f"{policy}{suffix}", marks=marks)
        for policy in PERMITTED
        for language, (suffix, _, marks) in ENGINES.items()
        if (POLICIES / f"{policy}{suffix}").exists()
    ]


@pytest.mark.parametrize(("language", "policy"), engines())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(change=changes(), case=st.integers(0, 200))
async def test_no_document_makes_a_policy_raise_or_permit_what_it_forbids(
    language: str, policy: str, change: dict[str, Any], case: int
) -> None:
    table = table_of(policy)
    document = changed(table.cases[case % len(table.cases)].document(table.base), change)

    answer = await engine_of(language, policy).evaluate(document)

    assert not (answer.permit and answer.errors)
    if answer.permit:
        assert PERMITTED[policy](document), answer
        rule, asks = HELD.get(policy, ("", lambda _: False))
        asked = {o.argument for o in answer.obligations if o.kind == "approval"}
        assert not asks(document) or rule in asked, answer


def test_every_shipped_policy_is_fuzzed() -> None:
    assert set(PERMITTED) == {path.stem for path in POLICIES.glob("*.cedar")}
