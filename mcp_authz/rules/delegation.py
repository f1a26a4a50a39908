"""Authority along a chain: each link is checked against the one before, dimension by dimension, and only shrinks."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from itertools import pairwise
from typing import Protocol

from mcp_authz import limits
from mcp_authz.errors import DelegationError
from mcp_authz.principals import Agent, AgentName, Chain, Grant, Link, Session
from mcp_authz.rules.constraint import ToolsMap, tools_narrow
from mcp_authz.rules.scope import PERSONAL, PERSONAL_REFUSED, Scope, covered, narrow


class Step(Protocol):
    """What narrows along a chain, whether the store holds the step or a signature carries it."""

    @property
    def id(self) -> str: ...
    @property
    def session(self) -> str: ...
    @property
    def parent(self) -> str | None: ...
    @property
    def scope(self) -> frozenset[Scope]: ...
    @property
    def tools(self) -> ToolsMap | None: ...
    @property
    def depth(self) -> int: ...
    @property
    def max_depth(self) -> int: ...
    @property
    def issued_at(self) -> datetime: ...
    @property
    def expires_at(self) -> datetime: ...
    @property
    def max_calls(self) -> int | None: ...


def check_narrows(parent: Step, child: Step) -> None:
    """Nothing in `child` is more than `parent` had.

    Raises:
        DelegationError: naming the dimension that grew.
    """
    if child.session != parent.session or child.parent != parent.id:
        raise DelegationError("link does not descend from the link it stands under")
    if child.depth != parent.depth + 1 or child.depth > parent.max_depth:
        raise DelegationError(f"link stands at depth {child.depth}, at most {parent.max_depth} was given")
    if child.depth > child.max_depth:
        raise DelegationError(f"link stands at depth {child.depth}, deeper than it says it may")
    if child.max_depth > parent.max_depth:
        raise DelegationError("link may be delegated further than its parent")
    if child.issued_at < parent.issued_at or child.expires_at > parent.expires_at:
        raise DelegationError("link lives longer than its parent")
    if parent.max_calls is not None and (child.max_calls is None or child.max_calls > parent.max_calls):
        raise DelegationError("link may make more calls than its parent")
    if not child.scope.isdisjoint(PERSONAL):  # it stays with whom the person gave it to
        raise DelegationError(PERSONAL_REFUSED)
    narrow(parent.scope, child.scope)
    if parent.tools is not None:
        if child.tools is None:
            raise DelegationError("link drops the tools that its parent names")
        tools_narrow(child.tools, parent.tools)


def check_hop(chain: Chain, holders: Mapping[AgentName, Agent], delegate: Agent, link: Link) -> None:
    """The chain's leaf may be delegated to this agent by its holder, and the link gives no more than both may have.

    A child is there for nobody but the agent that named it; everybody else is on the delegator's list.

    Raises:
        DelegationError: saying what is in the way.
    """
    leaf = chain.leaf
    delegator = holders.get(leaf.holder)
    if delegator is None or delegator.status != "active":
        raise DelegationError(f"agent `{leaf.holder}` is not active")
    if not (delegate.parent == delegator.name or delegate.name in delegator.delegates_to):
        raise DelegationError(f"agent `{leaf.holder}` may not delegate to `{delegate.name}`")
    if delegate.name in chain.agents:
        raise DelegationError(f"agent `{delegate.name}` is in the chain already")
    if delegate.status != "active":
        raise DelegationError(f"agent `{delegate.name}` is not active")
    for above in chain.links:
        reach = above.depth + holders[above.holder].depth
        if link.depth > reach:
            raise DelegationError(f"what agent `{above.holder}` has may reach depth {reach}, and no further")
    for agent in (delegate, *(holders[above.holder] for above in chain.links)):
        if extra := uncovered(tuple(sorted(link.scope)), agent.ceiling):
            raise DelegationError(f"the ceiling of agent `{agent.name}` does not cover {' '.join(extra)}")
    check_narrows(leaf, link)


def check_root(link: Link, session: Session, grant: Grant) -> None:
    """The root link is no more than the grant and the session that it opens.

    Raises:
        DelegationError: naming what does not fit.
    """
    if link.parent is not None or link.depth != 0:
        raise DelegationError("chain does not begin at a root link")
    if (link.session, session.grant) != (session.id, grant.id) or (session.subject, session.agent) != (
        grant.subject,
        link.holder,
    ):
        raise DelegationError("root link belongs to another session or grant")
    if grant.agent != session.agent:
        raise DelegationError("grant was given to another agent")
    if link.expires_at > session.expires_at or session.expires_at > grant.expires_at:
        raise DelegationError("session lives longer than its grant")
    narrow(grant.scope, link.scope)
    if grant.tools is not None:
        if link.tools is None:
            raise DelegationError("root link drops the tools that its grant names")
        tools_narrow(link.tools, grant.tools)


def verify_chain(
    links: tuple[Link, ...], *, session: Session, grant: Grant, holders: Mapping[AgentName, Agent], at: datetime
) -> Chain:
    """Return the links as a chain, once every one of them is live and no more than the one before.

    Raises:
        DelegationError: a link, its holder, the session or the grant is revoked or expired, or authority grew.
    """
    if not links or len(links) > limits.CHAIN_LINKS:
        raise DelegationError(f"chain has {len(links)} links; 1 to {limits.CHAIN_LINKS} are possible")
    if len({link.id for link in links}) != len(links):
        raise DelegationError("a link occurs twice in the chain")
    if grant.status != "active" or at >= grant.expires_at:
        raise DelegationError("the grant has ended")
    check_root(links[0], session, grant)
    for parent, child in pairwise(links):
        check_narrows(parent, child)
    for link in links:
        holder = holders.get(link.holder)
        if holder is None or holder.status != "active":
            raise DelegationError(f"agent `{link.holder}` of the chain is not active")
        if link.status != "active" or at >= link.expires_at or at < link.issued_at - limits.CLOCK_SKEW:
            raise DelegationError(f"link `{link.id}` has ended")
    return Chain(links=links)


def uncovered(needed: tuple[Scope, ...], held: frozenset[Scope]) -> tuple[Scope, ...]:
    """The needed scopes that nothing held covers, in the order asked."""
    return tuple(scope for scope in needed if not covered(scope, held))
