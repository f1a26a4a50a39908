"""Which classification counts for a tool: the operator's exact entry, then a pattern, then a preset, else nobody's."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Final

from mcp_authz import limits
from mcp_authz.model import Classification, Hazard, ToolName
from mcp_authz.principals import Proof
from mcp_authz.rules.observe import Observing
from mcp_authz.rules.offered import DEFINITIONS, default_classification
from mcp_authz.rules.scope import ScopeTemplate

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Classified:
    """A classification that holds only for definitions with these digests; an empty set holds for all."""

    classification: Classification
    digests: frozenset[bytes] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerRules:
    """What the operator says of one server's tools."""

    server: str
    environment: str = "local"
    exact: Mapping[str, Classification] = field(default_factory=dict)
    patterns: tuple[tuple[str, Classification], ...] = ()  # in the order of the configuration; the first that fits
    preset: Mapping[str, Classified] = field(default_factory=dict)
    observing: Observing | None = None
    least: Mapping[Hazard, Proof] = field(default_factory=dict)  # the proof that calls of each hazard need at least


def classify(rules: ServerRules, tool: str, digest: bytes) -> Classification:
    """Return the classification of a tool; what nothing classifies is destructive, whatever it says of itself.

    Its proof is the stronger one of the tool's own and its hazard's.
    """
    found = _classified(rules, tool, digest)
    least = rules.least.get(found.hazard, Proof.BEARER)
    return found if least <= found.proof else replace(found, proof=least)


def _classified(rules: ServerRules, tool: str, digest: bytes) -> Classification:
    if (own := rules.exact.get(tool)) is not None:
        return _complete(own, rules.server, tool)
    if tool in DEFINITIONS:  # a method of the protocol, not a tool that a server could describe
        return default_classification(rules.server, tool)
    for pattern, classification in rules.patterns:
        if fnmatchcase(tool, pattern):
            return _complete(classification, rules.server, tool)
    preset = rules.preset.get(tool)
    if preset is not None and (not preset.digests or digest in preset.digests):
        return preset.classification
    unknown = Classification(action="", hazard=Hazard.DESTRUCTIVE, scopes=(), by="nobody")
    return _complete(unknown, rules.server, tool)


def _complete(classification: Classification, server: str, tool: str) -> Classification:
    """The classification with what was left out: an action and a scope named after the tool; never no scope at all."""
    own = (ScopeTemplate.parse(f"{server}:{_UNSAFE.sub('_', tool)[:128] or '_'}"),)
    return replace(
        classification, action=classification.action or f"{server}.{tool}", scopes=classification.scopes or own
    )


def tool_name(server: str, tool: str, digest: bytes) -> ToolName:
    """The name that callers, scopes and policy use: `server__tool`, cut with eight hex digits when it is too long."""
    name = f"{server}__{tool}"
    if len(name) <= limits.TOOL_NAME:
        return ToolName(name)
    return ToolName(f"{name[: limits.TOOL_NAME - 9]}_{digest.hex()[:8]}")
