"""Every policy that is shipped answers its decision table."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from mcp_authz.policy.cedar import CedarEngine
from mcp_authz.policy.engine import PolicyAnswer

POLICIES = Path(__file__).parents[2] / "policies"
CASE_KEYS = {"name", "change", "without", "expect", "rules", "because", "error"}


def tables() -> list[Any]:
    """Each case of each table, with the policy it is about."""
    found = []
    for path in sorted(POLICIES.glob("*.cases.toml")):
        table = tomllib.loads(path.read_text("utf-8"))
        policy = path.with_name(path.name.removesuffix(".cases.toml") + ".cedar")
        engine = CedarEngine.load({policy.name: policy.read_text("utf-8")})
        for case in table["case"]:
            found.append(pytest.param(engine, table["input"], case, id=f"{policy.stem}: {case['name']}"))
    return found


def laid_over(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the members of `change`, tables member by member."""
    merged = dict(base)
    for name, value in change.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(name), Mapping)
        merged[name] = laid_over(merged[name], value) if both else value
    return merged


def taken_out(document: dict[str, Any], paths: list[str]) -> dict[str, Any]:
    """`document` with null at these dotted paths."""
    for path in paths:
        *parents, last = path.split(".")
        record = document
        for parent in parents:
            record = record[parent]
        record[last] = None
    return document


def verdict(answer: PolicyAnswer, approved: list[str]) -> str:
    """What a gateway without any approval floor of its own makes of the answer."""
    if not answer.permit:
        return "deny"
    return "permit" if {o.argument for o in answer.obligations} <= set(approved) else "hold"


@pytest.mark.parametrize(("engine", "base", "case"), tables())
async def test_a_shipped_policy_answers_its_decision_table(
    engine: CedarEngine, base: dict[str, Any], case: dict[str, Any]
) -> None:
    document = taken_out(laid_over(deepcopy(base), case.get("change", {})), case.get("without", []))

    answer = await engine.evaluate(document)

    approval = document.get("approval") or {"rules": []}
    assert verdict(answer, approval["rules"]) == case["expect"], answer
    assert [o.argument for o in answer.obligations] == case.get("rules", [])
    assert list(answer.because) == case.get("because", [])
    assert bool(answer.errors) == case.get("error", False), answer
    assert set(case) <= CASE_KEYS


def test_every_shipped_policy_has_a_decision_table_that_permits_or_denies_by_each_of_its_rules() -> None:
    for path in POLICIES.glob("*.cedar"):
        engine = CedarEngine.load({path.name: path.read_text("utf-8")})
        table = tomllib.loads(path.with_suffix(".cases.toml").read_text("utf-8"))
        named = {rule for case in table["case"] for rule in case.get("because", [])}
        assert len(named) == len(engine.policies), path.name


def test_the_shipped_policies_can_be_loaded_together() -> None:
    CedarEngine.load({path.name: path.read_text("utf-8") for path in POLICIES.glob("*.cedar")})
