"""A page's worth of sessions, agents and links in a transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mcp_authz import limits
from mcp_authz.principals import Agent, AgentName, Link, LinkId, PersonName, Session, SessionId
from mcp_authz.store import rows
from mcp_authz.store.overview_port import SessionsAsked
from mcp_authz.store.rows import AGENT, LINK, SESSION, columns
from mcp_authz.store.transaction import Transaction

_IDLE: Final = int(limits.SESSION_IDLE.total_seconds() * 1_000_000)

_OPEN: Final = f"""(sessions.status = 'active' AND sessions.expires_at > :at AND sessions.last_used_at > :at - {_IDLE}
    AND EXISTS (SELECT 1 FROM grants WHERE id = grant_id AND status = 'active' AND expires_at > :at)
    AND EXISTS (SELECT 1 FROM agents WHERE name = sessions.agent AND status = 'active')
    AND NOT EXISTS (SELECT 1 FROM people WHERE name = sessions.subject AND status <> 'active'))"""  # noqa: S608 - constants

# With `+` an index is not taken: few sessions are open, and these are found by their end.
_THEIRS: Final = """(+sessions.subject = :whose
    OR +sessions.agent IN (SELECT name FROM agents WHERE owner = :whose))"""

_AGENTS_THEIRS: Final = """(owner = :whose OR name IN (SELECT agent FROM grants WHERE subject = :whose)
    OR name IN (SELECT holder FROM sessions JOIN links ON session_id = sessions.id WHERE subject = :whose))"""


def sessions_seen(tx: Transaction, asked: SessionsAsked) -> tuple[Session, ...]:
    if asked.are_open:
        theirs = [] if asked.whose is None else [_THEIRS]
        return tuple(_sessions(tx, asked, ["sessions.expires_at > :at", _OPEN, *theirs], "+started_at"))
    if asked.whose is None:
        return tuple(_sessions(tx, asked, [f"NOT {_OPEN}"], "started_at"))
    # Each is a short stretch of one index, however many sessions there are.
    owned = tx.db.execute("SELECT name FROM agents WHERE owner = ?", (asked.whose,)).fetchall()
    found = _sessions(tx, asked, [f"NOT {_OPEN}", "subject = :of"], "started_at", of=asked.whose)
    for (name,) in owned:
        found += _sessions(tx, asked, [f"NOT {_OPEN}", "agent = :of"], "started_at", of=name)
    newest = sorted({one.id: one for one in found}.values(), key=lambda one: (one.started_at, one.id), reverse=True)
    return tuple(newest[: asked.limit])


def _sessions(tx: Transaction, asked: SessionsAsked, where: list[str], order: str, of: str = "") -> list[Session]:
    if asked.before is not None:
        where = [*where, "(started_at, id) < (SELECT started_at, id FROM sessions WHERE id = :before)"]
    found = tx.db.execute(
        f"""SELECT {columns(SESSION)} FROM sessions WHERE {" AND ".join(where)}
        ORDER BY {order} DESC, id DESC LIMIT :limit""",  # noqa: S608 - constants
        {
            "whose": asked.whose,
            "of": of,
            "at": rows.micros(asked.at),
            "before": asked.before,
            "limit": asked.limit,
        },
    )
    return list(map(rows.session, found.fetchall()))


def agents_seen(tx: Transaction, whose: PersonName | None, after: str, limit: int | None) -> tuple[Agent, ...]:
    theirs = "" if whose is None else f"AND {_AGENTS_THEIRS}"
    found = tx.db.execute(
        f"SELECT {columns(AGENT)} FROM agents WHERE name > :after {theirs} ORDER BY name LIMIT :limit",  # noqa: S608
        {"whose": whose, "after": after, "limit": -1 if limit is None else limit},
    )
    return tuple(map(rows.agent, found.fetchall()))


def agents_owned(tx: Transaction, owner: PersonName) -> frozenset[AgentName]:
    return frozenset(AgentName(name) for (name,) in tx.db.execute("SELECT name FROM agents WHERE owner = ?", (owner,)))


def sees_agent(tx: Transaction, whose: PersonName | None, agent: AgentName) -> bool:
    theirs = "" if whose is None else f"AND {_AGENTS_THEIRS}"
    (sees,) = tx.db.execute(
        f"SELECT EXISTS (SELECT 1 FROM agents WHERE name = :agent {theirs})",  # noqa: S608 - constants
        {"whose": whose, "agent": agent},
    ).fetchone()
    return bool(sees)


def links_held(tx: Transaction, agent: AgentName, limit: int) -> tuple[tuple[Session, Link], ...]:
    found = tx.db.execute(
        f"""SELECT {columns(SESSION, "sessions")}, {columns(LINK, "links")}
        FROM links JOIN sessions ON sessions.id = links.session_id
        WHERE holder = ? ORDER BY links.expires_at DESC, links.id LIMIT ?""",  # noqa: S608 - constants
        (agent, limit),
    ).fetchall()
    width = len(SESSION)
    return tuple((rows.session(row[:width]), rows.link(row[width:])) for row in found)


def links_below(tx: Transaction, above: Sequence[LinkId], limit: int) -> tuple[Link, ...]:
    marks = ", ".join("?" * len(above))
    found = tx.db.execute(
        f"SELECT {columns(LINK)} FROM links WHERE parent_id IN ({marks}) ORDER BY issued_at DESC, id LIMIT ?",  # noqa: S608
        (*above, limit),
    )
    return tuple(map(rows.link, found.fetchall()))


def session_mark(tx: Transaction, session: SessionId) -> tuple[int, int, int]:
    links, active, calls = tx.db.execute(
        """SELECT count(*), ifnull(sum(status = 'active'), 0), ifnull(sum(calls_made), 0)
        FROM links WHERE session_id = ?""",
        (session,),
    ).fetchone()
    (ended,) = tx.db.execute("SELECT count(*) FROM sessions WHERE id = ? AND status <> 'active'", (session,)).fetchone()
    return links, active - ended, calls
