"""Which Cedar policies speak about one input, and what in the others does not hold: Cedar is asked, part by part."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import cedarpy

from mcp_authz.errors import PolicyError
from mcp_authz.policy.cedar_request import CedarRequest
from mcp_authz.policy.cedar_schema import names_read
from mcp_authz.policy.cedar_source import Condition, SourcePolicy, paths_read
from mcp_authz.policy.engine import PolicyInput

_ROOTS: Final = {"principal": "actor", "resource": "resource", "context": ""}  # where Cedar's variables stand

Holds = Literal["holds", "does not hold", "cannot be read"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """An attribute that a condition is about, with its value; `absent` where the input does not have it."""

    path: str
    value: str
    absent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """How one policy stands to one input."""

    policy: SourcePolicy
    in_scope: bool  # whether its head is about this agent, action and tool
    applies: bool
    held: int  # how many of its conditions hold before the first that does not
    stopped_by: str | None  # that one, as it is written; None: all hold, or the head is about something else
    failed: bool  # that one could not be evaluated
    facts: tuple[Fact, ...]  # what it is about

    @property
    def view(self) -> Mapping[str, Any]:
        """As one JSON object."""
        return {
            "id": self.policy.id,
            "place": self.policy.place,
            "effect": self.policy.effect,
            "applies": self.applies,
            "stopped_by": self.stopped_by,
            "facts": [{"path": fact.path, "value": fact.value, "absent": fact.absent} for fact in self.facts],
        }


def read(policies: Sequence[SourcePolicy], document: PolicyInput, *, approvals: Iterable[str]) -> tuple[Reading, ...]:
    """Return how each policy stands to the document, as if all these approval rules had been met for it.

    Raises:
        PolicyError: Cedar cannot read the document.
    """
    names = names_read(policy.body for policy in policies)
    request = CedarRequest.of(document, names)
    asked = _Asked(
        request=request.with_approval(request.supposing({*request.rules, *approvals} or {"none"})),
        entities=request.entities,
        document=document,
    )
    return tuple(asked.of(policy) for policy in policies)


def closest(readings: Iterable[Reading]) -> tuple[Reading, ...]:
    """Return the permits that are about this call and do not apply to it, the one with the most that holds first."""
    near = [r for r in readings if r.policy.effect == "permit" and r.in_scope and not r.applies]
    return tuple(sorted(near, key=lambda r: (-r.held, r.policy.id)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """One input, in the form in which Cedar takes it."""

    request: Mapping[str, Any]
    entities: str
    document: PolicyInput

    def of(self, policy: SourcePolicy) -> Reading:
        if self._holds(policy, ()) != "holds":
            return Reading(
                policy=policy, in_scope=False, applies=False, held=0, stopped_by=None, failed=False, facts=()
            )
        for number, condition in enumerate(policy.conditions):
            holds = self._holds(policy, (condition,))
            if holds != "holds":
                return Reading(
                    policy=policy,
                    in_scope=True,
                    applies=False,
                    held=number,
                    stopped_by=condition.text,
                    failed=holds == "cannot be read",
                    facts=self._facts(condition),
                )
        facts = tuple(dict.fromkeys(fact for condition in policy.conditions for fact in self._facts(condition)))
        return Reading(
            policy=policy,
            in_scope=True,
            applies=True,
            held=len(policy.conditions),
            stopped_by=None,
            failed=False,
            facts=facts,
        )

    def _holds(self, policy: SourcePolicy, conditions: Sequence[Condition]) -> Holds:
        """Whether a policy with this one's head and these conditions applies."""
        alone = {
            **policy.body,
            "effect": "permit",
            "conditions": [{"kind": condition.kind, "body": condition.body} for condition in conditions],
        }
        whole = {"templates": {}, "templateLinks": [], "staticPolicies": {"alone": alone}}
        parsed = cedarpy.PolicySet.from_json_str(json.dumps(whole))
        try:
            result = cedarpy.is_authorized(dict(self.request), parsed, cedarpy.Entities.from_json_str(self.entities))
        except ValueError:
            raise PolicyError("cedar could not read the input") from None
        if result.diagnostics.errors:
            return "cannot be read"
        return "holds" if result.allowed else "does not hold"

    def _facts(self, condition: Condition) -> tuple[Fact, ...]:
        paths = dict.fromkeys(path for path in paths_read(condition.body) if path[0] in _ROOTS)
        return tuple(self._fact(path) for path in paths if path[:2] != ("context", "approval"))

    def _fact(self, path: tuple[str, ...]) -> Fact:
        """What the document has there; what it has as null is absent in Cedar."""
        root = _ROOTS[path[0]]
        value: Any = self.document[root] if root else self.document
        for step in path[1:]:
            if path[:2] == ("context", "chain") and step == "chain":
                value = [one.get("id") for one in self.document["chain"]]
                continue
            value = value.get(step) if isinstance(value, Mapping) else None
        shown = json.dumps(value, ensure_ascii=False, default=str)
        return Fact(path=".".join(path), value=shown, absent=value is None)
