"""Changing what a registered agent may have: its ceiling, its depth, whom it may delegate to, and its roles."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mcp_authz import limits
from mcp_authz.agents import agent_name
from mcp_authz.errors import Conflict, InputError, NotFound
from mcp_authz.principals import Agent, AgentName
from mcp_authz.rules.scope import Scope, common, without_personal
from mcp_authz.store.ports import Clock, Event, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What becomes otherwise; None stays as it is."""

    ceiling: frozenset[Scope] | None = None  # without the scopes of roles, which are added to it
    depth: int | None = None
    delegates_to: frozenset[str] | None = None
    roles: frozenset[str] | None = None  # instead of those it has


async def change_agent(
    store: Store, clock: Clock, name: str, changes: Changes, *, roles: Mapping[str, frozenset[Scope]], by: str
) -> Agent:
    """The agent is as told, and counts as that from the next call on; returns it.

    Its ceiling has the scopes of each role it has (`roles`: those there are). What a role gave that it loses goes, as
    far as nothing else that it has gives it.

    Raises:
        NotFound: there is no such agent.
        InputError: the depth is out of bounds, a name is not a name, or there is no such role.
        ScopeError: the ceiling would have leave to answer held calls, which no agent is given.
        Conflict: it is revoked, a child, which has what its parent has, or a client's, which the next consent changes.
    """
    before = await store.agent(AgentName(name))
    if before is None:
        raise NotFound(f"there is no agent `{name}`")
    if before.status != "active" or before.parent is not None:
        why = "is revoked" if before.status != "active" else f"has what `{before.parent}` has; change that one"
        raise Conflict(f"agent `{name}` {why}")
    if before.client is not None:
        raise Conflict(
            f"what agent `{name}` may have is said by `[clients] ceiling`, and by {before.owner}; revoke it to stop it"
        )
    if changes.depth is not None and not 0 <= changes.depth < limits.CHAIN_LINKS:
        raise InputError(f"an agent's depth is 0 to {limits.CHAIN_LINKS - 1}")
    if changes.delegates_to is None:
        delegates_to = before.delegates_to
    else:
        delegates_to = frozenset(agent_name(other) for other in changes.delegates_to)
    after = replace(
        before,
        ceiling=_ceiling(before, changes, roles),
        depth=before.depth if changes.depth is None else changes.depth,
        delegates_to=delegates_to,
        roles=before.roles if changes.roles is None else changes.roles,
    )
    if after != before:
        await store.update_agent(after, _event(before, after, clock, by))
    return after


async def bound_client_agents(store: Store, clock: Clock, ceiling: frozenset[Scope] | None) -> None:
    """No client's agent may have more than the operator lets clients have now; what any had less stays less."""
    if ceiling is None:
        return
    for agent in await store.agents():
        if agent.client is None or agent.status != "active":
            continue
        after = replace(agent, ceiling=common(agent.ceiling, ceiling))
        if after != agent:
            await store.update_agent(after, _event(agent, after, clock, "configuration"))


def _ceiling(before: Agent, changes: Changes, roles: Mapping[str, frozenset[Scope]]) -> frozenset[Scope]:
    if changes.ceiling is None and changes.roles is None:
        return before.ceiling
    kept = before.roles if changes.roles is None else changes.roles
    if unknown := sorted(kept - roles.keys()):
        known = ", ".join(sorted(roles)) or "none"
        raise InputError(f"there is no role `{unknown[0]}` in [roles] of the configuration; there are: {known}")
    lost = {scope for role in before.roles - kept for scope in roles.get(role, ())}
    own = before.ceiling - lost if changes.ceiling is None else changes.ceiling
    return without_personal(own.union(*(roles[role] for role in kept)))


def _event(before: Agent, after: Agent, clock: Clock, by: str) -> Event:
    fields = {
        "summary": f"agent {after.name} may now have {' '.join(sorted(after.ceiling)) or 'nothing'}",
        "by": by,
        "agent": f"agent:{after.name}",
        "ceiling": sorted(after.ceiling),
        "ceiling_before": sorted(before.ceiling),
        "depth": after.depth,
        "delegates_to": sorted(after.delegates_to),
        "roles": sorted(after.roles),
    }
    return Event(kind="administration", at=clock(), fields=fields)
