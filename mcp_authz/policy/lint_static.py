"""What can be said of a Cedar policy without an input: the values that an attribute must have for it to apply."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from mcp_authz.model import Assurance, Hazard, Tool
from mcp_authz.policy.cedar_source import SourcePolicy, paths_read
from mcp_authz.principals import Mode, Proof

Path = tuple[str, ...]

FIXED: Final[Mapping[Path, frozenset[str]]] = {
    ("resource", "hazard"): frozenset(hazard.value for hazard in Hazard),
    ("principal", "proof"): frozenset(proof.name.lower() for proof in Proof),
    ("context", "session", "mode"): frozenset(mode.value for mode in Mode),
    ("context", "approval", "assurance"): frozenset(assurance.label for assurance in Assurance),
}
"""Attributes that can have these values and no others."""

OWN: Final = frozenset({"server", "tool", "environment", "hazard"})
"""The attributes of a resource that every tool has; the operator's entries give the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What there is beside the policies; None is what is not known, and then nothing is said of it."""

    tools: tuple[Tool, ...] | None = None  # the catalogue
    actions: frozenset[str] | None = None  # of the catalogue, the configuration and its presets
    unlisted: tuple[str, ...] = ()  # configured servers that were never listed: their tools are not known
    environments: frozenset[str] | None = None
    attributes: frozenset[str] | None = None  # of resources, that some entry gives
    agents: frozenset[str] | None = None
    labels: frozenset[str] | None = None  # that some agent has
    approvals: frozenset[str] | None = None  # the approval rules there are
    names: Mapping[str, frozenset[str]] | None = None  # of obligations, by kind
    people: Mapping[str, frozenset[str]] | None = field(default=None)  # with their groups


def demanded(policy: SourcePolicy) -> Iterator[tuple[Path, frozenset[str]]]:
    """Each attribute that has to be one of some texts for the policy to apply."""
    for condition in policy.conditions:
        if condition.kind == "when" and (found := _demand(condition.body)) is not None:
            yield found


def _demand(body: Mapping[str, Any]) -> tuple[Path, frozenset[str]] | None:
    if "==" in body:
        sides = body["=="]
        for one, other in ((sides["left"], sides["right"]), (sides["right"], sides["left"])):
            if isinstance(other.get("Value"), str) and (path := _only_path(one)) is not None:
                return path, frozenset({other["Value"]})
    if "contains" in body and "Set" in body["contains"]["left"]:
        values = [item.get("Value") for item in body["contains"]["left"]["Set"]]
        path = _only_path(body["contains"]["right"])
        if path is not None and all(isinstance(value, str) for value in values):
            return path, frozenset(values)
    return None


def _only_path(expression: Mapping[str, Any]) -> Path | None:
    if "." not in expression:
        return None
    found = list(paths_read(expression))
    return found[0] if len(found) == 1 else None


def could_apply(policy: SourcePolicy, tool: Tool) -> bool:
    """Whether some call of the tool could meet the policy's head, and what it demands of the tool itself."""
    action = tool.classification.action
    if policy.actions is not None and action not in policy.actions:
        return False
    if policy.tools is not None and tool.name not in policy.tools:
        return False
    facts = facts_of(tool)
    return all(facts[path] in values for path, values in demanded(policy) if path in facts)


def always_applies(policy: SourcePolicy, tool: Tool) -> bool:
    """Whether every call of the tool, by whomever, meets the policy."""
    if policy.agents is not None or not could_apply(policy, tool):
        return False
    facts = facts_of(tool)
    known = [path for path, _ in demanded(policy) if path in facts]
    return len(known) == len(policy.conditions)


def facts_of(tool: Tool) -> Mapping[Path, str]:
    """What every call of the tool says of its resource."""
    return {
        ("resource", "hazard"): tool.classification.hazard.value,
        ("resource", "server"): tool.server,
        ("resource", "environment"): tool.environment,
        ("resource", "tool"): tool.name,
    }


def covers(wide: SourcePolicy, narrow: SourcePolicy) -> bool:
    """Whether `wide` applies wherever `narrow` does: no narrower a head, and no condition that the other lacks."""
    heads = ((wide.actions, narrow.actions), (wide.agents, narrow.agents), (wide.tools, narrow.tools))
    if not all(one is None or (other is not None and other <= one) for one, other in heads):
        return False
    return {one.text for one in wide.conditions} <= {one.text for one in narrow.conditions}
