"""What pages ask of a store about sessions and agents: a bounded part of them, as far as one person may see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from mcp_authz.principals import Agent, AgentName, Link, LinkId, PersonName, Session, SessionId


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionsAsked:
    """Which sessions a page shows: newest first, those that could carry a call at `at`, or those that could not."""

    whose: PersonName | None  # those that are for this person, or of agents that they own; None: everybody's
    at: datetime
    are_open: bool
    before: SessionId | None = None  # only those that began earlier than this one
    limit: int


class Overview(Protocol):
    """Reads a page at a time; `whose` is a person who sees what is theirs, and None whoever sees everything."""

    async def sessions_seen(self, asked: SessionsAsked) -> tuple[Session, ...]: ...
    async def agents_seen(
        self, whose: PersonName | None, *, after: str = "", limit: int | None = None
    ) -> tuple[Agent, ...]:
        """The agents that the person owns or that may act, or acted, for them; by name, those behind `after`."""

    async def agents_owned(self, owner: PersonName) -> frozenset[AgentName]:
        """The agents that the person owns, those that were revoked included; no other agent is read."""

    async def sees_agent(self, whose: PersonName | None, agent: AgentName) -> bool:
        """Whether there is such an agent, and `agents_seen` has it."""

    async def links_held(self, agent: AgentName, *, limit: int) -> tuple[tuple[Session, Link], ...]:
        """Links of the agent: those first whose time ends last, which are those that may be open."""

    async def links_below(self, above: Sequence[LinkId], *, limit: int) -> tuple[Link, ...]:
        """The links that were handed on directly from one of these, newest first."""

    async def session_mark(self, session: SessionId) -> tuple[int, int, int]:
        """Other numbers whenever a link of the session was added, revoked or used."""
