"""Decision tables: what a policy is to answer, case by case, and whether it does (`*.cases.toml`).

A table has one `[input]`, the document of an ordinary call, and a `[[case]]` for each answer: the input with `change`
laid over it and null at the paths of `without`. `expect` is permit, hold or deny; `rules` the approval rules that are
asked for; `obligations` whatever else is, written as `step_up("300")`; `because` the rules that decide; `error` whether
the policy cannot be decided at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from mcp_authz.model import Obligation
from mcp_authz.policy.engine import PolicyAnswer, PolicyEngine

SUFFIX: Final = ".cases.toml"

Verdict = Literal["permit", "hold", "deny"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a case says of the answer, or what the answer was: the same members, so that they can be compared."""

    verdict: Verdict
    rules: tuple[str, ...] = ()
    obligations: tuple[str, ...] = ()
    because: tuple[str, ...] = ()
    error: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One row of a table."""

    name: str
    line: int  # where it begins in its file
    expected: Expected
    change: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ()

    def document(self, base: Mapping[str, Any]) -> dict[str, Any]:
        """The input that this case is about."""
        return _taken_out(_laid_over(deepcopy(dict(base)), self.change), self.without)


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One file of cases."""

    name: str
    base: Mapping[str, Any]
    cases: tuple[Case, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A case with the answer that an engine gave."""

    case: Case
    got: Expected
    errors: tuple[str, ...]  # of the engine, in its words
    compares_rules: bool  # False: the engine names no rules at all, so that `because` says nothing of it
    compares_errors: bool = True  # False: a denial is one, whether or not the engine calls its reason an error

    @property
    def as_expected(self) -> bool:
        """Whether the answer is the one that the case says."""
        return not self.differences

    @property
    def differences(self) -> tuple[str, ...]:
        """The members that are not what was expected."""
        left_out = {"because": not self.compares_rules, "error": not self.compares_errors}
        names = [name for name in ("verdict", "rules", "obligations", "because", "error") if not left_out.get(name)]
        return tuple(name for name in names if getattr(self.got, name) != getattr(self.case.expected, name))


async def judge(table: Table, engine: PolicyEngine, *, names_rules: bool = True) -> tuple[Judged, ...]:
    """Return each case of the table with the engine's answer.

    `names_rules` is False for an engine that need not say which rule decided; if it never does, nothing is demanded.
    Nor need such an engine fail over what Cedar cannot read, as long as it denies.
    """
    answered = []
    for case in table.cases:
        document = case.document(table.base)
        answered.append((case, await engine.evaluate(document), document))
    compares = names_rules or any(answer.because for _, answer, _ in answered)
    return tuple(
        Judged(
            case=case,
            got=got(answer, document),
            errors=answer.errors,
            compares_rules=compares,
            compares_errors=names_rules or case.expected.verdict != "deny",
        )
        for case, answer, document in answered
    )


def got(answer: PolicyAnswer, document: Mapping[str, Any]) -> Expected:
    """Return the answer in a table's words: what a gateway without any approval floor of its own makes of it."""
    approval = document.get("approval") or {}
    asked = tuple(o.argument for o in answer.obligations if o.kind == "approval")
    held = not set(asked) <= set(approval.get("rules", ()))
    return Expected(
        verdict="deny" if not answer.permit else "hold" if held else "permit",
        rules=asked,
        obligations=tuple(written(o) for o in answer.obligations if o.kind != "approval"),
        because=tuple(answer.because),
        error=bool(answer.errors),
    )


def written(obligation: Obligation) -> str:
    """An obligation as tables and annotations write it: `step_up("300")`."""
    return f'{obligation.kind}("{obligation.argument}")'


def _laid_over(base: dict[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the members of `change`, tables member by member."""
    merged = dict(base)
    for name, value in change.items():
        inner = merged.get(name)
        both = isinstance(value, Mapping) and isinstance(inner, Mapping)
        merged[name] = _laid_over(dict(inner), value) if both and inner is not None else deepcopy(value)
    return merged


def _taken_out(document: dict[str, Any], paths: Iterable[str]) -> dict[str, Any]:
    """`document` with null at these dotted paths, where there is something to take out."""
    for path in paths:
        *parents, last = path.split(".")
        record: Any = document
        for parent in parents:
            record = record.get(parent) if isinstance(record, dict) else None
        if isinstance(record, dict):
            record[last] = None
    return document
