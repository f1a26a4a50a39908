"""Impersonation: an agent that a tool server takes for the person, only where the configuration says so."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mcp_authz.principals import AgentName, PersonName
from mcp_authz.rules.scope import Scope, covered


@dataclass(frozen=True, slots=True, kw_only=True)
class Impersonation:
    """What the configuration lets one agent do in the place of one person."""

    agent: AgentName
    person: PersonName
    scope: frozenset[Scope]


def may_impersonate(
    allowed: Iterable[Impersonation], agent: AgentName, person: PersonName | None, scope: frozenset[Scope]
) -> bool:
    """Whether one entry names the agent and the person and covers every scope."""
    return any(
        (one.agent, one.person) == (agent, person) and all(covered(needed, one.scope) for needed in scope)
        for one in allowed
    )
