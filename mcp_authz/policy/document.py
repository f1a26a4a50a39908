"""Makes the one input document that every policy engine is given (DESIGN section 9; `docs/policy-input.md`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from mcp_authz.model import Approval, ToolCall
from mcp_authz.principals import Agent, AgentName, Authentication, Caller, Link, Person, Proof, Session, Thumbprint
from mcp_authz.rules.scope import Scope


def policy_input(
    *,
    caller: Caller,
    call: ToolCall,
    scope: Iterable[Scope],
    resource: Mapping[str, Any],
    approval: Approval | None,
    at: datetime,
    method: str = "tools/call",
    agents: Mapping[AgentName, Agent] | None = None,
) -> dict[str, Any]:
    """Return the document, JSON values only.

    Args:
        caller: who makes the call.
        call: what is called, with canonical arguments.
        scope: what the call may draw on, already narrowed to token, chain and ceiling.
        resource: the attributes of `rules.attributes.resource_attributes`.
        approval: evidence from a hold of exactly this call.
        at: the time of the decision.
        method: the MCP method.
        agents: the registered agents of the chain; the labels of one that is not here are null, which is not `{}`.
    """
    tool = call.tool
    known = {caller.agent.name: caller.agent} if agents is None else {**agents, caller.agent.name: caller.agent}
    return {
        "actor": actor_members(caller.agent, caller.key, caller.proof),
        "chain": _chain(caller, known),
        "on_behalf_of": None if caller.person is None else person_members(caller.person, authentication_of(caller)),
        "session": None if caller.session is None else session_members(caller.session),
        "action": tool.classification.action,
        "method": method,
        "resource": {
            **resource,  # first, so that no argument can pass for what the operator says
            "server": tool.server,
            "tool": tool.name,
            "environment": tool.environment,
            "hazard": tool.classification.hazard.value,
        },
        "arguments": dict(call.arguments),
        "scope": sorted(scope),
        "approval": None if approval is None else _approval(approval),
        "time": rfc3339(at),
    }


def rfc3339(at: datetime) -> str:
    """Return the one spelling of a time in the document: UTC, milliseconds, `Z`."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def actor_members(agent: Agent, key: Thumbprint | None, proof: Proof) -> dict[str, Any]:
    """Return `actor`; a key that is not known is null."""
    return {
        "type": "agent",
        "id": agent.name,
        "key": key,
        "labels": dict(agent.labels),
        "roles": sorted(agent.roles),
        "proof": proof.name.lower(),
    }


def _chain(caller: Caller, known: Mapping[AgentName, Agent]) -> list[dict[str, Any]]:
    if caller.chain is None:  # in its own name, without a session: nobody stands before it
        return [_step(caller.agent.name, caller.token.scope, known)]
    return chain_members(caller.chain.links, known)


def chain_members(links: Sequence[Link], known: Mapping[AgentName, Agent]) -> list[dict[str, Any]]:
    """Return `chain` for links root to leaf: the holder of the leaf comes first."""
    return [_step(link.holder, link.scope, known) for link in reversed(links)]


def _step(name: AgentName, scope: frozenset[Scope], known: Mapping[AgentName, Agent]) -> dict[str, Any]:
    agent = known.get(name)
    return {
        "type": "agent",
        "id": name,
        "labels": None if agent is None else dict(agent.labels),
        "scope": sorted(scope),
    }


def authentication_of(caller: Caller) -> Authentication | None:
    """How the person signed in to agree to what the caller stands on; None where there is no person, or nobody did."""
    return None if caller.grant is None or caller.person is None else caller.grant.authentication


def person_members(person: Person, shown: Authentication | None) -> dict[str, Any]:
    """Return `on_behalf_of` for a person who signed in like this; None: nobody knows that they did."""
    auth = None if shown is None else {"amr": list(shown.amr), "at": rfc3339(shown.at)}
    issuer = None if shown is None else shown.issuer
    return {"user_id": person.name, "issuer": issuer, "groups": sorted(person.groups), "auth": auth}


def session_members(session: Session) -> dict[str, Any]:
    """Return `session`."""
    return {
        "id": session.id,
        "purpose": session.purpose,
        "mode": session.mode.value,
        "started_at": rfc3339(session.started_at),
        "expires_at": rfc3339(session.expires_at),
        "calls_made": session.calls_made,
    }


def _approval(approval: Approval) -> dict[str, Any]:
    return {
        "rule": approval.rules[0] if approval.rules else None,
        "rules": list(approval.rules),
        "assurance": approval.assurance.label,
        "approved_at": rfc3339(approval.approved_at),
    }
