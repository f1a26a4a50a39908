"""Every policy that is shipped answers its decision table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mcp_authz.policy.case_file import read_table
from mcp_authz.policy.cases import Case, Table, judge
from mcp_authz.policy.cedar import CedarEngine

POLICIES = Path(__file__).parents[2] / "policies"


def tables() -> list[Any]:
    """Each case of each table, with the policy it is about."""
    found = []
    for path in sorted(POLICIES.glob("*.cases.toml")):
        table = read_table(path.name, path.read_text("utf-8"))
        policy = path.with_name(path.name.removesuffix(".cases.toml") + ".cedar")
        engine = CedarEngine.load({policy.name: policy.read_text("utf-8")})
        for case in table.cases:
            found.append(pytest.param(engine, table, case, id=f"{policy.stem}: {case.name}"))
    return found


@pytest.mark.parametrize(("engine", "table", "case"), tables())
async def test_a_shipped_policy_answers_its_decision_table(engine: CedarEngine, table: Table, case: Case) -> None:
    (judged,) = await judge(Table(name=table.name, base=table.base, cases=(case,)), engine)
    assert judged.got == case.expected, judged.errors


def test_every_shipped_policy_has_a_decision_table_that_permits_or_denies_by_each_of_its_rules() -> None:
    for path in POLICIES.glob("*.cedar"):
        engine = CedarEngine.load({path.name: path.read_text("utf-8")})
        table = read_table(path.name, path.with_suffix(".cases.toml").read_text("utf-8"))
        named = {rule for case in table.cases for rule in case.expected.because}
        assert len(named) == len(engine.policies), path.name


def test_the_shipped_policies_can_be_loaded_together() -> None:
    CedarEngine.load({path.name: path.read_text("utf-8") for path in POLICIES.glob("*.cedar")})
