"""Mistakes in Cedar policies that can be said with certainty: rules that never apply, and tools that none permits.

Nothing is guessed: where something is not known (a server that was never listed), what rests on it is a note.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final, Literal

from mcp_authz.model import Obligation
from mcp_authz.policy.cedar_source import ANNOTATIONS, SourcePolicy, paths_read
from mcp_authz.policy.lint_static import FIXED, OWN, Around, Path, always_applies, could_apply, covers, demanded
from mcp_authz.rules.obligation import unknown_names

Severity = Literal["error", "warning", "note"]

ORDER: Final[tuple[Severity, ...]] = ("error", "warning", "note")
_OF_STEPS: Final = "delegate"  # the action of steps of a chain, which no tool has, and the attributes of their resource


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that an author should know."""

    severity: Severity
    place: str  # file and line; empty where it is about no policy
    text: str


def look_at(policies: Sequence[SourcePolicy], around: Around) -> tuple[Finding, ...]:
    """Return what is found, in the order of the files, and then what is about tools."""
    found = [finding for policy in policies for finding in _policy(policy, around)]
    return (*found, *_between(policies), *_tools(policies, around))


def _policy(policy: SourcePolicy, around: Around) -> Iterator[Finding]:
    yield from _head(policy, around)
    yield from _values(policy, around)
    yield from _twice(policy)
    yield from _annotations(policy, around)
    yield from _attributes(policy, around)


def _head(policy: SourcePolicy, around: Around) -> Iterator[Finding]:
    if around.actions is not None and policy.actions is not None:
        unknown = sorted(policy.actions - around.actions - {_OF_STEPS})
        if unknown:
            never = len(unknown) == len(policy.actions)
            unsure = f", so far: {', '.join(around.unlisted)} was never listed" if around.unlisted else ""
            text = f"no tool has the action {_words(unknown)}{unsure}"
            yield _about(policy, "note" if around.unlisted else "warning", _never(text) if never else text)
    if around.agents is not None and policy.agents is not None and (unknown := sorted(policy.agents - around.agents)):
        text = f"there is no agent {_words(unknown)}"
        yield _about(policy, "warning", _never(text) if len(unknown) == len(policy.agents) else text)
    listed = None if around.tools is None or around.unlisted else {str(tool.name) for tool in around.tools}
    if listed is not None and policy.tools is not None and (unknown := sorted(policy.tools - listed)):
        text = f"there is no tool {_words(unknown)}"
        yield _about(policy, "warning", _never(text) if len(unknown) == len(policy.tools) else text)


def _values(policy: SourcePolicy, around: Around) -> Iterator[Finding]:
    """Values that an attribute never has, and two demands that exclude each other."""
    possible = dict(FIXED)
    if around.environments is not None:
        possible["resource", "environment"] = around.environments | {"gateway"}
    together: dict[Path, frozenset[str]] = {}
    for path, values in demanded(policy):
        name = ".".join(path)
        if path in possible and (unknown := sorted(values - possible[path])):
            text = f"`{name}` is never {_words(unknown)}; it is one of {', '.join(sorted(possible[path]))}"
            yield _about(policy, "warning", _never(text) if len(unknown) == len(values) else text)
        both = together.get(path, values) & values
        if path in together and not both:
            yield _about(policy, "warning", _never(f"two of its conditions want `{name}` to be different things"))
        together[path] = both


def _twice(policy: SourcePolicy) -> Iterator[Finding]:
    for text, count in Counter(condition.text for condition in policy.conditions).items():
        if count > 1:
            yield _about(policy, "note", f"the condition {text} stands there {count} times")


def _annotations(policy: SourcePolicy, around: Around) -> Iterator[Finding]:
    for name, value in policy.annotations.items():
        if name not in ANNOTATIONS:
            yield _about(policy, "error", f"there is no annotation `@{name}`")
        elif name == "approval" and around.approvals is not None and value not in around.approvals:
            there = ", ".join(sorted(around.approvals))
            text = f"there is no approval rule `{value}`, so whatever it is about is denied; add [approval.{value}]"
            yield _about(policy, "error", f"{text} ({there} there is)")
        elif around.names is not None and name != "id":
            for missing in unknown_names([Obligation(kind=name, argument=value)], around.names):
                yield _about(policy, "error", f"the configuration has no {missing}, so whatever it permits is denied")


def _attributes(policy: SourcePolicy, around: Around) -> Iterator[Finding]:
    """Attributes that nothing gives; a policy that loads reads them behind `has`, which is then never true."""
    read = sorted({path for condition in policy.conditions for path in paths_read(condition.body)})
    for path in read:
        if path[0] == "resource" and around.attributes is not None:
            if path[1] not in around.attributes | OWN and not path[1].startswith(_OF_STEPS):
                yield _about(policy, "warning", f"no tool's entry gives `resource.{path[1]}`: it is always absent")
        elif path[:2] == ("principal", "labels") and len(path) > 2 and around.labels is not None:
            if path[2] not in around.labels:
                yield _about(policy, "note", f"no agent has a label `{path[2]}` so far")
        elif path[:2] == ("context", "arguments") and len(path) > 2:
            yield from _argument(policy, path[2], around)


def _argument(policy: SourcePolicy, name: str, around: Around) -> Iterator[Finding]:
    if around.tools is None or around.unlisted or policy.actions == frozenset({_OF_STEPS}):
        return
    schemas = [tool.definition.get("inputSchema") or {} for tool in around.tools if could_apply(policy, tool)]
    if schemas and not any(name in (schema.get("properties") or {}) for schema in schemas):
        yield _about(policy, "note", f"no tool that it is about lists an argument `{name}`")


def _between(policies: Sequence[SourcePolicy]) -> Iterator[Finding]:
    """Permits that some forbid always overrides, and policies that say the same."""
    for forbid in (policy for policy in policies if policy.effect == "forbid"):
        for permit in (policy for policy in policies if policy.effect == "permit" and covers(forbid, policy)):
            text = f"`{forbid.id}` ({forbid.place}) forbids whatever it permits"
            yield _about(permit, "warning", text)
    for one, other in combinations(policies, 2):
        if one.effect == other.effect and covers(one, other) and covers(other, one):
            same = {**one.annotations, "id": ""} == {**other.annotations, "id": ""}
            if same:
                yield _about(other, "warning", f"it says the same as `{one.id}` ({one.place})")


def _tools(policies: Sequence[SourcePolicy], around: Around) -> Iterator[Finding]:
    for tool in around.tools or ():
        forbids = [p for p in policies if p.effect == "forbid" and always_applies(p, tool)]
        if forbids:
            text = f"tool `{tool.name}` is always denied: `{forbids[0].id}` forbids every call of it"
            yield Finding(severity="warning", place=forbids[0].place, text=text)
        elif not any(could_apply(policy, tool) for policy in policies if policy.effect == "permit"):
            what = f"action {tool.classification.action}, {tool.classification.hazard.value}"
            text = f"tool `{tool.name}` is always denied: no permit is about it ({what})"
            yield Finding(severity="warning", place="", text=text)


def _about(policy: SourcePolicy, severity: Severity, text: str) -> Finding:
    return Finding(severity=severity, place=policy.place, text=f"`{policy.id}`: {text}")


def _never(why: str) -> str:
    return f"it never applies: {why}"


def _words(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)
