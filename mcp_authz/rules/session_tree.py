"""How each link of a session stands, and why: the tree as a person sees it."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from mcp_authz import limits
from mcp_authz.principals import Agent, AgentName, Grant, Link, LinkId, Person, Session, Thumbprint


class LinkState(StrEnum):
    """Whether a link can carry a call."""

    OPEN = "open"
    REVOKED = "revoked"  # it, or what it was given to or signed with
    ENDED = "ended"  # with something else: time, calls, the session, the link above


@dataclass(frozen=True, slots=True, kw_only=True)
class Stands:
    """How one link stands; `because` is empty where it is open."""

    state: LinkState
    because: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a session's links stand on beside each other, as far as it is known."""

    session: Session
    grant: Grant | None
    person: Person | None  # for whom it is; of an agent that works for itself, its owner
    agents: Mapping[AgentName, Agent]
    revoked_keys: Collection[Thumbprint]
    at: datetime


def over(around: Surroundings) -> str:
    """Why the session as a whole carries no call any more; empty where it may."""
    session, grant, person, now = around.session, around.grant, around.person, around.at
    if session.status != "active":
        return "the session was revoked"
    if grant is None or grant.status != "active":
        return "what was agreed to was revoked"
    if person is None or person.status != "active":
        return "the person was revoked"
    if now >= session.expires_at:
        return "the session's time is up"
    if now >= grant.expires_at:
        return "the time of what was agreed to is up"
    if now - session.last_used_at >= limits.SESSION_IDLE:
        return "the session was not used for too long"
    if session.max_calls is not None and session.calls_made >= session.max_calls:
        return "all calls of the session are made"
    return ""


def standing_of(links: Iterable[Link], around: Surroundings) -> dict[LinkId, Stands]:
    """Return how each link stands; `links` has parents first."""
    found: dict[LinkId, Stands] = {}
    whole = over(around)
    for link in links:
        own = _own(link, around)
        above = None if link.parent is None else found.get(link.parent)
        if own is not None and own.state is LinkState.REVOKED:
            found[link.id] = own
        elif above is not None and above.state is not LinkState.OPEN and not whole:
            found[link.id] = Stands(state=LinkState.ENDED, because="with the link above it")
        elif whole:
            found[link.id] = Stands(state=LinkState.ENDED, because=whole)
        else:
            found[link.id] = own or Stands(state=LinkState.OPEN)
    return found


def _own(link: Link, around: Surroundings) -> Stands | None:
    """Why the link carries no call whatever is above it; None: it may."""
    agent = around.agents.get(link.holder)
    if link.status != "active":
        return Stands(state=LinkState.REVOKED, because="this link was revoked")
    if agent is None or agent.status != "active":
        return Stands(state=LinkState.REVOKED, because=f"agent {link.holder} was revoked")
    if {link.holder_key, link.signed_by} & set(around.revoked_keys):
        return Stands(state=LinkState.REVOKED, because="a key of it was revoked")
    if around.at >= link.expires_at:
        return Stands(state=LinkState.ENDED, because="its time is up")
    if link.max_calls is not None and link.calls_made >= link.max_calls:
        return Stands(state=LinkState.ENDED, because="all its calls are made")
    return None
