"""Two calls that must not be permitted: judged at every start, so that a gateway that does not enforce never serves."""

from __future__ import annotations

from datetime import timedelta

from mcp_authz.errors import PolicyError
from mcp_authz.evaluation import Evaluator
from mcp_authz.model import (
    AccessToken,
    Agent,
    AgentName,
    Caller,
    Chain,
    Classification,
    Grant,
    GrantId,
    Hazard,
    Link,
    LinkId,
    Mode,
    Permit,
    Person,
    PersonName,
    Proof,
    Session,
    SessionId,
    Thumbprint,
    Tool,
    ToolCall,
    ToolName,
)
from mcp_authz.rules.scope import Scope, ScopeTemplate
from mcp_authz.store.ports import Clock

_NAME = "authz-canary"
_HELD = frozenset({Scope("canary:sing")})


async def require_denials(evaluator: Evaluator, clock: Clock) -> None:
    """Neither a destructive call without approval nor a call outside its scopes would be permitted.

    Raises:
        PolicyError: one of them would; the gateway must not serve.
    """
    caller = _caller(clock)
    for scope, what in (("canary:sing", "a destructive call without approval"), ("canary:flee", "a call out of scope")):
        verdict = await evaluator.evaluate(caller, _call(scope), approval=None, at=clock())
        if isinstance(verdict.decision, Permit):
            raise PolicyError(f"canary: {what} would be permitted, so the gateway does not start; look at the policy")


def _call(scope: str) -> ToolCall:
    classification = Classification(
        action="canary.sing", hazard=Hazard.DESTRUCTIVE, scopes=(ScopeTemplate.parse(scope),), by="nobody"
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
