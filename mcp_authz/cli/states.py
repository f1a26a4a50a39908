"""How sessions, links and grants stand, in one word: the store says what is open, the rest is why something is not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from mcp_authz import limits
from mcp_authz.principals import Link, LinkId, PersonName, Session, SessionId
from mcp_authz.store.ports import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """What could carry a call at one moment."""

    at: datetime
    links: frozenset[LinkId]
    sessions: frozenset[SessionId]


async def what_is_open(store: Store, at: datetime) -> Open:
    """Return every link that could carry a call at `at`, and their sessions."""
    found = [pair for agent in await store.agents() for pair in await store.open_links(agent.name, at)]
    return Open(
        at=at,
        links=frozenset(link.id for _, link in found),
        sessions=frozenset(session.id for session, _ in found),
    )


def session_state(session: Session, is_open: Open) -> str:
    """`open`, or why it is not: `revoked`, `expired`, `idle`, `spent`, or `stopped` by what it stands on."""
    if session.id in is_open.sessions:
        return "open"
    if session.status == "revoked":
        return "revoked"
    if is_open.at >= session.expires_at:
        return "expired"
    if is_open.at - session.last_used_at >= limits.SESSION_IDLE:
        return "idle"
    return "spent" if session.max_calls == session.calls_made else "stopped"


def link_state(link: Link, is_open: Open) -> str:
    """`open`, or why it is not: `revoked`, `expired`, `spent`, or `stopped` by what it stands on."""
    if link.id in is_open.links:
        return "open"
    if link.status == "revoked":
        return "revoked"
    if is_open.at >= link.expires_at:
        return "expired"
    return "spent" if link.max_calls == link.calls_made else "stopped"


def shown_budget(calls_made: int, max_calls: int | None) -> str:
    """How many calls were made, of how many."""
    if max_calls is not None:
        return f"{calls_made} of {max_calls} calls"
    return "1 call" if calls_made == 1 else f"{calls_made} calls"


def shown_subject(subject: PersonName | None) -> str:
    """For whom: the person, or `itself`."""
    return "itself" if subject is None else subject


def shown_words(words: Iterable[str], none: str = "-") -> str:
    """Words in order, separated by spaces."""
    return " ".join(sorted(words)) or none
