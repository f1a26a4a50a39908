"""The one verb that stops things: what each kind of thing is, and which waiting calls end with it.

What descends from a revoked thing needs no mark of its own: every use reads its whole lineage.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mcp_authz.errors import NotFound
from mcp_authz.model import HoldId
from mcp_authz.principals import LinkId
from mcp_authz.store.holds import cancel
from mcp_authz.store.lineage import lineage
from mcp_authz.store.ports import Event, RevocableKind
from mcp_authz.store.records import append
from mcp_authz.store.transaction import Transaction

# Where a thing of this kind stands.
_TABLE: Final[dict[RevocableKind, tuple[str, str]]] = {
    "link": ("links", "id"),
    "session": ("sessions", "id"),
    "grant": ("grants", "id"),
    "agent": ("agents", "name"),
    "client": ("clients", "id"),
    "key": ("keys", "thumbprint"),
    "person": ("people", "name"),
    "approval": ("standing_approvals", "id"),
}

_DOWN: Final = """
    WITH RECURSIVE down (id) AS (
        SELECT id FROM links WHERE id = ?
        UNION SELECT links.id FROM links JOIN down ON links.parent_id = down.id
    ) SELECT DISTINCT links.session_id, links.holder FROM down JOIN links USING (id)
"""


def revoke(tx: Transaction, kind: RevocableKind, name: str, event: Event) -> tuple[HoldId, ...]:
    """The holds that were cancelled with the thing; revoking it a second time changes and records nothing.

    Raises:
        NotFound: there is no such thing.
    """
    if kind == "hold":
        return _cancel_one(tx, name, event)
    table, column = _TABLE[kind]
    row = tx.db.execute(f"SELECT status FROM {table} WHERE {column} = ?", (name,)).fetchone()  # noqa: S608 - constants
    if row is None:
        raise NotFound(f"there is no {kind} `{name}`")
    if row[0] == "revoked":
        return ()
    tx.db.execute(f"UPDATE {table} SET status = 'revoked' WHERE {column} = ?", (name,))  # noqa: S608 - constants
    cancelled = _HOLDS_OF[kind](tx, name)
    append(tx, event)
    return cancelled


def _cancel_one(tx: Transaction, name: str, event: Event) -> tuple[HoldId, ...]:
    if tx.db.execute("SELECT 1 FROM holds WHERE id = ?", (name,)).fetchone() is None:
        raise NotFound(f"there is no hold `{name}`")
    cancelled = cancel(tx, "id = ?", name)
    if cancelled:
        append(tx, event)
    return cancelled


def _of_link(tx: Transaction, link: str) -> tuple[HoldId, ...]:
    """A hold belongs to a session and an actor: it ends when the actor has no other link left there that lives."""
    cancelled: list[HoldId] = []
    for session, holder in tx.db.execute(_DOWN, (link,)).fetchall():
        if not _has_live_link(tx, session, holder):
            cancelled += cancel(tx, "session_id = ? AND actor = ?", session, holder)
    return tuple(cancelled)


def _of_client(tx: Transaction, client: str) -> tuple[HoldId, ...]:
    """The agents that it is for people end with it, and what people agreed to through it for any other agent."""
    cancelled = cancel(
        tx,
        """actor IN (SELECT name FROM agents WHERE client_id = ?) OR session_id IN (
            SELECT sessions.id FROM sessions JOIN grants ON grants.id = grant_id WHERE client_id = ?)""",
        client,
        client,
    )
    for table in ("agents", "grants"):
        tx.db.execute(f"UPDATE {table} SET status = 'revoked' WHERE client_id = ?", (client,))  # noqa: S608 - constants
    return cancelled


def _has_live_link(tx: Transaction, session: str, holder: str) -> bool:
    rows = tx.db.execute(
        "SELECT id FROM links WHERE session_id = ? AND holder = ? AND status = 'active'", (session, holder)
    ).fetchall()
    chains = (lineage(tx, LinkId(link), tx.now) for (link,) in rows)
    return any(chain is not None and chain.ended is None for chain in chains)


_APPROVED_BY: Final = "EXISTS (SELECT 1 FROM verdicts WHERE hold_id = holds.id AND approve = 1"

_HOLDS_OF: Final[dict[RevocableKind, Callable[[Transaction, str], tuple[HoldId, ...]]]] = {
    "link": _of_link,
    "session": lambda tx, name: cancel(tx, "session_id = ?", name),
    "grant": lambda tx, name: cancel(tx, "session_id IN (SELECT id FROM sessions WHERE grant_id = ?)", name),
    "agent": lambda tx, name: cancel(
        tx, "actor = ? OR EXISTS (SELECT 1 FROM json_each(chain) WHERE value = ?)", name, name
    ),
    "client": _of_client,
    "key": lambda tx, name: cancel(tx, f"{_APPROVED_BY} AND signed_by = ?)", name),
    # A pending call goes on without their approval, which counts no more; one that was approved rested on it.
    "person": lambda tx, name: cancel(
        tx, f"subject = ? OR (state = 'approved' AND {_APPROVED_BY} AND person = ?))", name, name
    ),
    "approval": lambda tx, name: cancel(tx, f"{_APPROVED_BY} AND standing = ?)", name),
}
