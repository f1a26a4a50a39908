"""Cedar policies as their authors wrote them: where each one stands, whom its head names, and what it says in words."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import cedarpy

from mcp_authz.errors import PolicyError
from mcp_authz.rules.obligation import KNOWN_OBLIGATIONS

ANNOTATIONS: Final = frozenset({"id", "description", *KNOWN_OBLIGATIONS})
"""What a policy may be annotated with; a `description` is for people alone."""

_BRACKETS: Final = re.compile(r"(?<![\w\"])\((\w+(?:\.\w+)*)\)")  # around a path, where they change nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One `when` or `unless` of a policy, or one of the things that a `when` joins by `&&`."""

    kind: str
    body: Mapping[str, Any]

    @property
    def text(self) -> str:
        """As it could stand in a policy."""
        printed = written({"kind": "when", "body": self.body})
        return printed if self.kind == "when" else f"not ({printed})"


@dataclass(frozen=True, slots=True, kw_only=True)
class SourcePolicy:
    """One policy of a file; `body` is Cedar's JSON form of it."""

    id: str
    file: str
    line: int | None
    effect: str
    annotations: Mapping[str, str]
    body: Mapping[str, Any]

    @property
    def place(self) -> str:
        """File and line, for people."""
        return self.file if self.line is None else f"{self.file}:{self.line}"

    @property
    def actions(self) -> frozenset[str] | None:
        """The actions that its head names; None: any."""
        return _named(self.body["action"])

    @property
    def agents(self) -> frozenset[str] | None:
        """The agents that its head names; None: any."""
        return _named(self.body["principal"])

    @property
    def tools(self) -> frozenset[str] | None:
        """The tools that its head names; None: any."""
        return _named(self.body["resource"])

    @property
    def conditions(self) -> tuple[Condition, ...]:
        """All of its conditions, those of a `when` one by one; each of them holds where it applies."""
        return tuple(part for condition in self.body["conditions"] for part in _parts(condition))


def policies_in(texts: Mapping[str, str]) -> tuple[SourcePolicy, ...]:
    """Return the policies of these files, file name to text, in their order.

    Raises:
        PolicyError: one cannot be parsed.
    """
    return tuple(policy for name, text in texts.items() for policy in _of_file(name, text))


def written(condition: Mapping[str, Any]) -> str:
    """Return a condition's inside as Cedar text, without the brackets that only a machine needs."""
    head: dict[str, Any] = {"effect": "permit", **{name: {"op": "All"} for name in ("principal", "action", "resource")}}
    policy = {**head, "conditions": [condition]}
    whole = {"templates": {}, "templateLinks": [], "staticPolicies": {"policy0": policy}}
    text = cedarpy.policies_from_json_str(json.dumps(whole))
    inside = text[text.index("{") + 1 : text.rindex("}")].strip()
    while (shorter := _BRACKETS.sub(r"\1", inside)) != inside:
        inside = shorter
    return inside


def paths_read(expression: Any) -> Iterator[tuple[str, ...]]:
    """Every attribute that an expression reads or asks for, as the steps from its variable; the longest come first."""
    if isinstance(expression, list):
        for item in expression:
            yield from paths_read(item)
    elif isinstance(expression, dict):
        path = _path(expression)
        if path is not None and len(path) > 1:
            yield path
            return
        for item in expression.values():
            yield from paths_read(item)


def _path(expression: Mapping[str, Any]) -> tuple[str, ...] | None:
    """The steps of `variable.attribute.attribute`, or of `has` with one; None for any other expression."""
    if len(expression) != 1:
        return None
    ((operator, body),) = expression.items()
    if operator == "Var":
        return (str(body),)
    if operator in (".", "has") and isinstance(body, dict) and isinstance(body.get("attr"), str):
        above = _path(body["left"])
        return None if above is None else (*above, body["attr"])
    return None


def _of_file(name: str, text: str) -> Iterator[SourcePolicy]:
    try:
        bodies = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]
    except (ValueError, RecursionError) as error:
        raise PolicyError(f"{name}: cannot be parsed: {error}") from None
    lines = text.splitlines()
    for number in range(len(bodies)):
        body = bodies[f"policy{number}"]
        annotations = body.get("annotations", {})
        own = str(annotations.get("id") or f"policy {number + 1}")
        found = [n for n, line in enumerate(lines, 1) if "@id" in line and f'"{own}"' in line]
        yield SourcePolicy(
            id=own,
            file=name,
            line=found[-1] if found else None,
            effect=body["effect"],
            annotations={key: value or "" for key, value in annotations.items()},
            body=body,
        )


def _named(head: Mapping[str, Any]) -> frozenset[str] | None:
    """The entities that one part of a head names; there are no hierarchies, so that `in` is `==`."""
    if "entities" in head:
        return frozenset(entity["id"] for entity in head["entities"])
    if "entity" in head:
        return frozenset({head["entity"]["id"]})
    inner = head.get("in")
    return frozenset({inner["entity"]["id"]}) if isinstance(inner, dict) and "entity" in inner else None


def _parts(condition: Mapping[str, Any]) -> Iterator[Condition]:
    """What a `when` joins by `&&`, left to right; an `unless` is one thing."""
    if condition["kind"] == "when" and "&&" in condition["body"]:
        both = condition["body"]["&&"]
        for side in ("left", "right"):
            yield from _parts({"kind": "when", "body": both[side]})
    else:
        yield Condition(kind=condition["kind"], body=condition["body"])
