"""A link with everything above it, as the database has it now: who holds it, and whether it can carry a call."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from mcp_authz import limits
from mcp_authz.principals import LinkId
from mcp_authz.store.rows import Row
from mcp_authz.store.transaction import Transaction

# A link and all above it, the table `up`: one more than a chain may have, so that one that is too long is seen to be.
UP: Final = f"""
    WITH RECURSIVE up (id, parent_id, steps) AS (
        SELECT id, parent_id, 1 FROM links WHERE id = ?
        UNION ALL
        SELECT links.id, links.parent_id, steps + 1 FROM links JOIN up ON links.id = up.parent_id
        WHERE steps <= {limits.CHAIN_LINKS}
    )
"""  # noqa: S608 - a constant

_STATE_UP: Final = f"""{UP}
    SELECT links.id, links.session_id, links.holder, links.status, agents.status, links.expires_at,
        links.max_calls IS NOT NULL AND links.calls_made >= links.max_calls,
        EXISTS (SELECT 1 FROM keys WHERE thumbprint IN (links.holder_key, links.signed_by) AND status <> 'active')
    FROM up JOIN links USING (id) JOIN agents ON agents.name = links.holder ORDER BY steps DESC
"""  # noqa: S608 - a constant

_SESSION: Final = """
    SELECT sessions.grant_id, sessions.subject, sessions.agent, sessions.status, sessions.expires_at,
        sessions.last_used_at, sessions.max_calls IS NOT NULL AND sessions.calls_made >= sessions.max_calls,
        grants.subject, grants.agent, grants.status, grants.expires_at, people.status
    FROM sessions JOIN grants ON grants.id = sessions.grant_id JOIN agents ON agents.name = sessions.agent
        LEFT JOIN people ON people.name = iif(sessions.subject = '', agents.owner, sessions.subject)
    WHERE sessions.id = ?
"""

_IDLE: Final = int(limits.SESSION_IDLE.total_seconds() * 1_000_000)

Ended = Literal["revoked", "session", "expired", "budget"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """The ids of a chain, root to leaf, where it belongs, and why it can carry no call (None: it can)."""

    links: tuple[LinkId, ...]
    agents: tuple[str, ...]  # who holds them
    holder: str  # of the leaf
    session: str
    grant: str
    subject: str  # empty where the agent works for itself: then its owner must be active
    ended: Ended | None
    spent: bool  # the budget of a link or of the session is used up


def lineage(tx: Transaction, leaf: LinkId, now: int) -> Lineage | None:
    """Return the chain of `leaf` and how it stands at `now` (microseconds), or None when there is no such chain."""
    rows = tx.db.execute(_STATE_UP, (leaf,)).fetchall()
    if not rows or len(rows) > limits.CHAIN_LINKS:
        return None
    session_id = rows[0][1]
    session = tx.db.execute(_SESSION, (session_id,)).fetchone()
    if session is None:
        return None
    return Lineage(
        links=tuple(row[0] for row in rows),
        agents=tuple(row[2] for row in rows),
        holder=rows[-1][2],
        session=session_id,
        grant=session[0],
        subject=session[1],
        ended=_ended(rows, session, now),
        spent=bool(session[6]) or any(row[6] for row in rows),
    )


def _ended(links: list[Row], session: Row, now: int) -> Ended | None:
    (
        _grant, subject, agent, status, expires_at, last_used_at, _spent,
        grant_subject, grant_agent, grant_status, grant_expires_at, person_status,
    ) = session  # fmt: skip
    if (subject, agent) != (grant_subject, grant_agent) or agent != links[0][2]:
        return "revoked"
    if grant_status != "active" or person_status != "active":
        return "revoked"
    if any(row[3] != "active" or row[4] != "active" or row[7] for row in links):
        return "revoked"
    if status != "active" or now >= expires_at or now - last_used_at >= _IDLE:
        return "session"
    if now >= grant_expires_at or any(now >= row[5] for row in links):
        return "expired"
    return None
