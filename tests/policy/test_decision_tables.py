"""Every policy that is shipped answers its decision table, in every language that it is written in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest

from mcp_authz.policy.case_file import read_table
from mcp_authz.policy.cases import Case, Table, judge
from mcp_authz.policy.cedar import CedarEngine
from mcp_authz.policy.engine import PolicyEngine
from mcp_authz.policy.rego import RegoEngine
from tests.policy.engines import needs_rego

POLICIES = Path(__file__).parents[2] / "policies"
TABLES = sorted(path.name.removesuffix(".cases.toml") for path in POLICIES.glob("*.cases.toml"))

# Each engine that answers tables: the suffix of its files, how it is made of one, and when it cannot be.
ENGINES: dict[str, tuple[str, Callable[[Mapping[str, str]], PolicyEngine], tuple[pytest.MarkDecorator, ...]]] = {
    "cedar": (".cedar", CedarEngine.load, ()),
    "rego": (".rego", RegoEngine.load, (needs_rego,)),
}


def table_of(policy: str) -> Table:
    path = POLICIES / f"{policy}.cases.toml"
    return read_table(path.name, path.read_text("utf-8"))


@lru_cache
def engine_of(language: str, policy: str) -> PolicyEngine:
    suffix, load, _ = ENGINES[language]
    path = POLICIES / f"{policy}{suffix}"
    return load({path.name: path.read_text("utf-8")})


def cases() -> list[Any]:
    """Each case of each table, once for every language in which there is the policy."""
    return [
        pytest.param(language, policy, case, id=f"{policy}{suffix}: {case.name}", marks=marks)
        for policy in TABLES
        for language, (suffix, _, marks) in ENGINES.items()
        if (POLICIES / f"{policy}{suffix}").exists()
        for case in table_of(policy).cases
    ]


@pytest.mark.parametrize(("language", "policy", "case"), cases())
async def test_a_shipped_policy_answers_its_decision_table(language: str, policy: str, case: Case) -> None:
    table = replace(table_of(policy), cases=(case,))

    # A boolean names no rules. What Cedar cannot read at all is only false in other languages: a denial all the same.
    named = language == "cedar" or policy != "code_reviewer"
    (judged,) = await judge(table, engine_of(language, policy), names_rules=named)
    allowed = {"error"} if language != "cedar" and case.expected.verdict == "deny" else set()
    differences = set(judged.differences) - allowed
    assert not differences, (judged.got, judged.errors)


def test_every_shipped_policy_has_a_decision_table_that_permits_or_denies_by_each_of_its_rules() -> None:
    for path in POLICIES.glob("*.cedar"):
        engine = CedarEngine.load({path.name: path.read_text("utf-8")})
        named = {rule for case in table_of(path.stem).cases for rule in case.expected.because}
        assert len(named) == len(engine.policies), path.name


def test_what_is_there_in_rego_is_there_in_cedar_too() -> None:
    there = {path.stem for path in POLICIES.glob("*.rego")}
    assert there == {"code_reviewer", "environments", "incident", "scopes_and_hazard"}
    assert all((POLICIES / f"{name}.cedar").exists() for name in there)


def test_the_shipped_policies_can_be_loaded_together() -> None:
    CedarEngine.load({path.name: path.read_text("utf-8") for path in POLICIES.glob("*.cedar")})
