"""Delegation: an agent gives on some of what it has, by the gateway's hand or signed by its own key.

Both ways make the same links, under the same rules, and policy is asked about each step. A refused one changes nothing
and is recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from mcp_authz import limits
from mcp_authz.agents import current_keys
from mcp_authz.errors import Conflict, DelegationError, InputError, SignatureRefused
from mcp_authz.hop import Hop, HopPolicy
from mcp_authz.ids import new_link
from mcp_authz.principals import Agent, AgentName, Authentication, Chain, Link, Mode, Person, Session, Thumbprint
from mcp_authz.rules.constraint import ToolsMap
from mcp_authz.rules.delegation import check_hop
from mcp_authz.rules.scope import Scope, common, narrow
from mcp_authz.store.ports import Clock, Event, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """What a delegation is made from: a chain that was just found to hold, and who stands behind it."""

    chain: Chain
    session: Session
    person: Person | None
    key: Thumbprint | None = None  # the delegator's key that asked
    authentication: Authentication | None = None  # of the person, when they agreed to what the session is of


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a delegator asks for; what is not asked for is inherited, as far as both sides may have it."""

    to: AgentName
    scope: frozenset[Scope] | None = None
    tools: ToolsMap | None = None
    lifetime: timedelta = limits.DELEGATION_LIFETIME
    max_calls: int | None = None
    max_depth: int | None = None
    reason: str = ""


class Delegations:
    """Makes links by the gateway's hand."""

    def __init__(self, *, store: Store, clock: Clock, policy: HopPolicy) -> None:
        self._store = store
        self._clock = clock
        self._policy = policy

    async def delegate(self, source: Source, asked: Asked) -> Link:
        """The agent asked for has a link under the chain's leaf, which ends with the leaf at the latest.

        Raises:
            DelegationError: the delegator may not delegate to this agent, it is not active, policy denies the step, or
                authority would grow.
            Conflict: the leaf, or what it descends from, is not active any more.
            InputError: the lifetime, the budget or the reason is not possible.
        """
        leaf, now = source.chain.leaf, self._clock().replace(microsecond=0)  # as what is signed counts time
        link = Link(
            id=new_link(now),
            session=source.session.id,
            parent=leaf.id,
            holder=asked.to,
            scope=leaf.scope if asked.scope is None else asked.scope,
            tools=leaf.tools if asked.tools is None else asked.tools,
            depth=leaf.depth + 1,
            max_depth=leaf.max_depth if asked.max_depth is None else asked.max_depth,
            issued_at=now,
            expires_at=min(now + asked.lifetime, leaf.expires_at),
            max_calls=leaf.max_calls if asked.max_calls is None else asked.max_calls,
            reason=asked.reason,
            signed_by=source.key,
        )
        try:
            require_bounds(asked.lifetime, asked.max_calls, asked.reason)
            delegate = await self._delegate(asked.to)
            ceilings = [agent.ceiling for agent in (await self._holders(source.chain)).values()]
            link = _fitted(link, delegate, ceilings, asked)
            await self.require(source, delegate, link)
            await self._store.add_link(link, made(source.session, leaf.holder, link, at=self._clock()))
        except (DelegationError, Conflict, InputError) as error:
            await self._store.append(refused(source.session, leaf.holder, link, error, at=self._clock()))
            raise
        return link

    async def require(self, source: Source, delegate: Agent, link: Link) -> None:
        """Return only if this step may be made: by the rules, and then by policy.

        Raises:
            DelegationError: it may not.
        """
        if source.session.mode is Mode.IMPERSONATED:
            raise DelegationError("an agent that impersonates a person delegates nothing")
        holders = await self._holders(source.chain)
        check_hop(source.chain, holders, delegate, link)
        hop = Hop(
            session=source.session,
            person=source.person,
            chain=source.chain,
            holders=holders,
            key=source.key,
            authentication=source.authentication,
            delegate=delegate,
            link=link,
            at=self._clock(),
        )
        if (denial := await self._policy.denial(hop)) is not None:
            because = ", ".join(denial.because)
            raise DelegationError(f"policy does not permit this delegation ({because}) {denial.detail}".rstrip())

    async def _holders(self, chain: Chain) -> dict[AgentName, Agent]:
        return {name: agent for name in chain.agents if (agent := await self._store.agent(name)) is not None}

    async def _delegate(self, to: AgentName) -> Agent:
        delegate = await self._store.agent(to)
        if delegate is None:
            raise DelegationError(f"there is no agent `{to}`")
        if delegate.status != "active":
            raise DelegationError(f"agent `{to}` is not active")
        if not current_keys(await self._store.keys_of(f"agent:{to}")):
            raise DelegationError(f"agent `{to}` has no key to log in with")
        return delegate


def require_bounds(lifetime: timedelta, max_calls: int | None, reason: str) -> None:
    """Return only if a link can be like this.

    Raises:
        InputError: the lifetime, the budget or the reason is not possible.
    """
    if not timedelta(0) < lifetime <= limits.SESSION_LIFETIME:
        raise InputError(
            f"a lifetime is at least one second and at most {int(limits.SESSION_LIFETIME.total_seconds())}"
        )
    if max_calls is not None and max_calls < 1:
        raise InputError("a budget is at least one call")
    if len(reason) > limits.PURPOSE:
        raise InputError(f"the reason of a delegation is at most {limits.PURPOSE} characters long")


def link_fields(session: Session, link: Link) -> dict[str, Any]:
    """What a record says of a link."""
    return {
        "session": session.id,
        "subject": session.principal,
        "mode": session.mode.value,
        "link": link.id,
        "holder": f"agent:{link.holder}",
        "scope": sorted(link.scope),
        "depth": link.depth,
        "max_depth": link.max_depth,
        "max_calls": link.max_calls,
        "expires_at": link.expires_at.isoformat(),
        "delegator_key": link.signed_by,
        "statement": None if link.statement is None else link.statement.hex(),
    }


def made(session: Session, by: AgentName, link: Link, *, at: datetime) -> Event:
    """The record of a step that was made."""
    summary = f"{by} delegated to {link.holder} for {session.subject or session.agent}"
    return _event(session, by, link, at, {"summary": summary, "decision": "permit"})


def refused(
    session: Session,
    by: AgentName,
    link: Link,
    error: DelegationError | Conflict | InputError | SignatureRefused,
    *,
    at: datetime,
) -> Event:
    """The record of a step that was refused."""
    return _event(
        session,
        by,
        link,
        at,
        {
            "summary": f"{by} may not delegate this to {link.holder}",
            "decision": "deny",
            "reason_code": error.code,
            "detail": str(error)[: limits.DETAIL_RECORDED],
        },
    )


def _event(session: Session, by: AgentName, link: Link, at: datetime, fields: dict[str, Any]) -> Event:
    who = {"by": f"agent:{by}", "from": f"agent:{by}", "reason": link.reason[: limits.PURPOSE]}
    every = {**who, **link_fields(session, link), **fields}
    return Event(kind="delegation", at=at, fields=every)


def _fitted(link: Link, delegate: Agent, above: Sequence[frozenset[Scope]], asked: Asked) -> Link:
    """The link within the delegate's own bounds: what was asked must fit, what was inherited is cut to fit.

    `above` is the ceilings of those who stand in the chain already: what they may not have any more, nobody inherits.
    """
    depth = link.depth + delegate.depth
    if asked.max_depth is not None and not link.depth <= link.max_depth <= depth:
        raise DelegationError(f"agent `{delegate.name}` stands at depth {link.depth} and may reach {depth}")
    scope = link.scope
    for ceiling in (delegate.ceiling, *above):
        scope = common(scope, ceiling) if asked.scope is None else narrow(ceiling, scope)
    if not scope:
        raise DelegationError(f"the ceiling of agent `{delegate.name}` covers none of what its delegator has")
    return replace(link, scope=scope, max_depth=min(link.max_depth, depth))
