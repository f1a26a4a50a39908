"""Calls that must not be permitted: judged at every start, so that a gateway that does not enforce never serves.

Each judge is asked for itself, because one that is broken hides behind the others as long as they work.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from mcp_authz.errors import PolicyError
from mcp_authz.evaluation import Evaluator
from mcp_authz.model import Classification, Deny, Hazard, Permit, Tool, ToolCall, ToolName
from mcp_authz.policy.document import policy_input
from mcp_authz.principals import (
    AccessToken,
    Agent,
    AgentName,
    Caller,
    Chain,
    Grant,
    GrantId,
    Link,
    LinkId,
    Mode,
    Person,
    PersonName,
    Proof,
    Session,
    SessionId,
    Thumbprint,
)
from mcp_authz.rules.decision import required_rules
from mcp_authz.rules.scope import Scope, ScopeTemplate
from mcp_authz.store.ports import Clock

_NAME = "authz-canary"
_HELD = frozenset({Scope("canary:sing")})


async def require_denials(evaluator: Evaluator, clock: Clock) -> None:
    """Approval holds a destructive call; policy denies one of nobody, scopes one out of scope, step 8 a weak proof.

    Raises:
        PolicyError: one of them does not; the gateway must not serve.
    """
    caller, within, beyond = _caller(clock), _call("canary:sing"), _call("canary:flee")
    rules = required_rules(within.tool, (), evaluator.floor)
    if not rules or not evaluator.floor.rules.keys() >= set(rules):
        raise _refused("nothing asks for the approval of a destructive call", "look at [approval.destructive]")
    # The road never leads a call without person and session to the policy. One that permits even this permits anything.
    nobody = replace(caller, person=None, grant=None, session=None, chain=None)
    document = policy_input(caller=nobody, call=beyond, scope=(), resource={}, approval=None, at=clock())
    if (await evaluator.engine.evaluate(document)).permit:
        raise _refused("policy permits a call of nobody", "give its permits a condition, such as `context has session`")
    verdict = await evaluator.evaluate(caller, within, approval=None, at=clock())
    if isinstance(verdict.decision, Permit):
        raise _refused("a destructive call would be permitted without approval", "look at policy and approval rules")
    weak, strong = replace(caller, proof=Proof.DPOP), _call("canary:sing", proof=Proof.SIGNED)
    verdict = await evaluator.evaluate(weak, strong, approval=None, at=clock())
    if not isinstance(verdict.decision, Deny) or verdict.decision.code != "proof_required":
        raise _refused("a call would do with less proof than it needs", "this is a fault of the gateway")
    verdict = await evaluator.evaluate(caller, beyond, approval=None, at=clock())
    if not isinstance(verdict.decision, Deny) or verdict.decision.code != "insufficient_scope":
        raise _refused("a call out of scope would not be denied for its scope", "this is a fault of the gateway")


def _refused(what: str, remedy: str) -> PolicyError:
    return PolicyError(f"canary: {what}, so the gateway does not start; {remedy}")


def _call(scope: str, *, proof: Proof = Proof.BEARER) -> ToolCall:
    classification = Classification(
        action="canary.sing", hazard=Hazard.DESTRUCTIVE, scopes=(ScopeTemplate.parse(scope),), proof=proof, by="nobody"
    )
    tool = Tool(
        name=ToolName("authz__canary"),
        server="authz",
        tool="canary",
        environment="none",
        definition={"name": "canary", "inputSchema": {"type": "object"}},
        digest=bytes(32),
        classification=classification,
    )
    return ToolCall(tool=tool, arguments={})


def _caller(clock: Clock) -> Caller:
    now, agent, person = clock(), AgentName(_NAME), PersonName(_NAME)
    later = now + timedelta(minutes=1)
    link = Link(
        id=LinkId(_NAME),
        session=SessionId(_NAME),
        parent=None,
        holder=agent,
        scope=_HELD,
        tools=None,
        depth=0,
        max_depth=0,
        issued_at=now,
        expires_at=later,
    )
    return Caller(
        agent=Agent(name=agent, owner=person, ceiling=_HELD),
        key=Thumbprint(_NAME),
        proof=Proof.SIGNED,
        token=AccessToken(
            id=_NAME,
            client_id=_NAME,
            actor=agent,
            key=Thumbprint(_NAME),
            subject=f"user:{_NAME}",
            session=link.session,
            link=link.id,
            scope=frozenset({Scope("canary")}),
            issued_at=now,
            expires_at=later,
        ),
        person=Person(name=person),
        grant=Grant(
            id=GrantId(_NAME), subject=person, agent=agent, scope=_HELD, tools=None, granted_at=now, expires_at=later
        ),
        session=Session(
            id=link.session,
            grant=GrantId(_NAME),
            subject=person,
            agent=agent,
            mode=Mode.DELEGATED,
            purpose="canary",
            started_at=now,
            expires_at=later,
            last_used_at=now,
        ),
        chain=Chain(links=(link,)),
    )
