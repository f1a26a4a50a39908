"""What policy is asked before a delegation step is made (DESIGN section 7): one question for each hop, none skipped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from math import ceil
from typing import Any, Final, Protocol

from mcp_authz.model import Deny, Hazard, RuleId
from mcp_authz.policy.document import actor_members, chain_members, person_members, rfc3339, session_members
from mcp_authz.policy.engine import PolicyEngine
from mcp_authz.principals import Agent, AgentName, Authentication, Chain, Link, Person, Proof, Session, Thumbprint
from mcp_authz.rules.constraint import to_json
from mcp_authz.rules.decision import stale_sign_in
from mcp_authz.rules.freshness import STEP_UP

ACTION: Final = "delegate"
"""What policy calls a delegation step; no tool has this action (`config`)."""

RESOURCE: Final = {
    "server": "authz",
    "tool": "authz__delegate",
    "environment": "gateway",
    "hazard": Hazard.WRITE.value,  # it makes something, and revoking undoes it
}
"""What a delegation step acts upon; `authz` is no name that a tool server can have."""

_SILENCE: Final = RuleId("no-policy-permits")
_ADD: Final = "no policy permits the action `delegate`; add one that does, docs/policy-input.md has an example"
_NOT_AT_A_HOP: Final = "and a delegation cannot wait for anything; permit it without, or hold the calls instead"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hop:
    """One step before it is made: who would give what to whom, and on what they stand."""

    session: Session
    person: Person | None  # for whom; None where an agent works for itself
    chain: Chain  # the delegator's, root to leaf
    holders: Mapping[AgentName, Agent]  # every agent of the chain
    key: Thumbprint | None  # the delegator's key that signed or logged in, where it is known
    delegate: Agent
    link: Link  # what the delegate would have
    at: datetime
    authentication: Authentication | None = None  # of the person, when they agreed to what the session is of


class HopPolicy(Protocol):
    """Asks the policy about one step."""

    async def denial(self, hop: Hop) -> Deny | None:
        """Return None when the step may be made, else why not; what cannot be decided is a denial."""


class PolicyAtHop:
    """Asks the engine that decides calls, with the same document and the action `delegate`."""

    def __init__(self, engine: PolicyEngine) -> None:
        self._engine = engine

    async def denial(self, hop: Hop) -> Deny | None:
        """Return None when the policy permits the step and asks for nothing more; a delegation waits for nobody.

        That the person signed in lately enough is known already, or the step is denied.
        """
        answer = await self._engine.evaluate(hop_input(hop))
        if answer.errors:
            return Deny(code="policy_error", because=answer.because, detail="; ".join(answer.errors))
        if not answer.permit:
            return Deny(code="policy", because=answer.because or (_SILENCE,), detail="" if answer.because else _ADD)
        if (stale := stale_sign_in(answer, None if hop.person is None else hop.authentication, hop.at)) is not None:
            return stale
        if asked := ", ".join(sorted({one.kind for one in answer.obligations if one.kind != STEP_UP})):
            return Deny(code="obligation", because=answer.because, detail=f"it asks for {asked}, {_NOT_AT_A_HOP}")
        return None


def hop_input(hop: Hop) -> dict[str, Any]:
    """Return the input document of one step (`docs/policy-input.md`); what is not known or not bounded is null.

    The delegator is the actor. A step is `signed` when its delegator signed the link; anything else is known no better
    than a bearer token.
    """
    link = hop.link
    return {
        "actor": actor_members(
            hop.holders[hop.chain.leaf.holder], hop.key, Proof.BEARER if link.statement is None else Proof.SIGNED
        ),
        "chain": chain_members(hop.chain.links, hop.holders),
        "on_behalf_of": None if hop.person is None else person_members(hop.person, hop.authentication),
        "session": session_members(hop.session),
        "action": ACTION,
        "method": ACTION,
        "resource": {**RESOURCE, **_delegate(hop)},
        "arguments": {
            "to": hop.delegate.name,
            "scope": sorted(link.scope),
            "tools": None if link.tools is None else to_json(link.tools),
            "expires_in": int((link.expires_at - hop.at).total_seconds()),
            "max_calls": link.max_calls,
            "depth": link.max_depth - link.depth,
            "reason": link.reason,
        },
        "scope": sorted(link.scope),
        "approval": None,
        "time": rfc3339(hop.at),
    }


def _delegate(hop: Hop) -> dict[str, Any]:
    delegate = hop.delegate
    return {
        "delegate": delegate.name,
        "delegate_owner": delegate.owner,
        "delegate_labels": dict(delegate.labels),
        "delegate_roles": sorted(delegate.roles),
        "delegate_parent": delegate.parent,
        "delegate_steps": hop.link.max_depth - hop.link.depth,
        "delegate_minutes": ceil((hop.link.expires_at - hop.at) / timedelta(minutes=1)),
    }
