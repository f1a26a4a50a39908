"""The one verb that stops things: what each kind of thing is, and which waiting calls end with it.

What descends from a revoked thing needs no mark of its own: every use reads its whole lineage. A waiting call ends at
once when its agent could not make it any more.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from mcp_authz.errors import InputError, NotFound
from mcp_authz.model import Assurance, HoldId
from mcp_authz.principals import LinkId
from mcp_authz.rules.keys import unb64url
from mcp_authz.store import evidence
from mcp_authz.store.holds import cancel
from mcp_authz.store.lineage import lineage
from mcp_authz.store.ports import Event, RevocableKind
from mcp_authz.store.records import append
from mcp_authz.store.standing import is_by_passkey
from mcp_authz.store.transaction import Transaction

# Where a thing of this kind stands.
TABLE: Final[dict[RevocableKind, tuple[str, str]]] = {
    "link": ("links", "id"),
    "session": ("sessions", "id"),
    "grant": ("grants", "id"),
    "agent": ("agents", "name"),
    "client": ("clients", "id"),
    "key": ("keys", "thumbprint"),
    "passkey": ("passkeys", "credential"),
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
    table, column = TABLE[kind]
    row = tx.db.execute(
        f"SELECT status FROM {table} WHERE {column} = ?",  # noqa: S608 - constants
        (_value(kind, name),),
    ).fetchone()
    if row is None:
        raise NotFound(f"there is no {kind} `{name}`")
    if row[0] == "revoked":
        return ()
    cancelled = end(tx, kind, name)
    append(tx, event)
    return cancelled


def end(tx: Transaction, kind: RevocableKind, name: str) -> tuple[HoldId, ...]:
    """The thing is revoked, and nothing is on record yet; returns the holds that were cancelled with it."""
    table, column = TABLE[kind]
    tx.db.execute(
        f"UPDATE {table} SET status = 'revoked' WHERE {column} = ?",  # noqa: S608 - constants
        (_value(kind, name),),
    )
    return _HOLDS_OF[kind](tx, name)


def _value(kind: RevocableKind, name: str) -> str | bytes:
    """What the column of the thing's name has: passkeys are named by the base64url of it.

    Raises:
        NotFound: it cannot be the name of such a thing.
    """
    if kind != "passkey":
        return name
    try:
        return unb64url(name)
    except InputError:
        raise NotFound(f"there is no passkey `{name}`") from None


class Foreseen(Exception):
    """What revoking something would cancel; raised so that the savepoint is rolled back."""

    def __init__(self, holds: tuple[HoldId, ...]) -> None:
        super().__init__(*holds)
        self.holds = holds


def foresee(tx: Transaction, kind: RevocableKind, name: str) -> None:
    """Nothing is true that was not before.

    Raises:
        Foreseen: always, with what would be cancelled.
        NotFound: there is no such thing.
    """
    raise Foreseen(revoke(tx, kind, name, Event(kind="revocation", at=tx.at, fields={})))


def _cancel_one(tx: Transaction, name: str, event: Event) -> tuple[HoldId, ...]:
    if tx.db.execute("SELECT 1 FROM holds WHERE id = ?", (name,)).fetchone() is None:
        raise NotFound(f"there is no hold `{name}`")
    cancelled = cancel(tx, "id = ?", name)
    if cancelled:
        append(tx, event)
    return cancelled


def _of_link(tx: Transaction, link: str) -> tuple[HoldId, ...]:
    """A hold names no link: it ends when its actor has no other one left through the same agents of its session."""
    below = tx.db.execute(_DOWN, (link,)).fetchall()
    cancelled = (_cancel_stranded(tx, "session_id = ? AND actor = ?", session, holder) for session, holder in below)
    return tuple(hold for holds in cancelled for hold in holds)


def _of_key(tx: Transaction, key: str) -> tuple[HoldId, ...]:
    """What was approved with it ends, and what cannot be collected without it: its holder's last one, or one of a link.

    An agent that has another key goes on with that one.
    """
    (holder,) = tx.db.execute("SELECT holder FROM keys WHERE thumbprint = ?", (key,)).fetchone()
    of_links = "session_id IN (SELECT session_id FROM links WHERE ? IN (holder_key, signed_by))"
    return (
        *cancel(tx, f"{_APPROVED_BY} AND signed_by = ?)", key),
        *_cancel_stranded(tx, f"'agent:' || actor = ? OR {of_links}", holder, key),
    )


def _of_passkey(tx: Transaction, passkey: str) -> tuple[HoldId, ...]:
    """Whoever signed in with it is signed out, and what was approved with it ends."""
    credential = unb64url(passkey)
    tx.db.execute("UPDATE sign_ins SET ended_at = ? WHERE credential = ? AND ended_at IS NULL", (tx.now, credential))
    shown = tx.db.execute(
        """SELECT holds.id, verdicts.statement FROM holds JOIN verdicts ON hold_id = holds.id
        WHERE state IN ('pending', 'approved') AND approve = 1 AND assurance = ?
            AND verdicts.person = (SELECT person FROM passkeys WHERE credential = ?) ORDER BY holds.position""",
        (int(Assurance.PASSKEY), credential),
    ).fetchall()
    rests = dict.fromkeys(hold for hold, kept in shown if is_by_passkey(evidence.statement(tx, kept), credential))
    return tuple(hold for id_ in rests for hold in cancel(tx, "id = ?", id_))


def _cancel_stranded(tx: Transaction, where: str, *values: str) -> tuple[HoldId, ...]:
    """The ids of those waiting holds that `where` names whose call nobody could make any more; they are cancelled."""
    rows = tx.db.execute(
        f"SELECT id, session_id, actor, chain FROM holds WHERE state IN ('pending', 'approved') AND ({where})",  # noqa: S608
        values,
    ).fetchall()
    cancelled: list[HoldId] = []
    for hold, session, actor, chain in rows:
        if not _has_key(tx, actor) or (session and not _has_live_link(tx, session, tuple(json.loads(chain)))):
            cancelled += cancel(tx, "id = ?", hold)
    return tuple(cancelled)


def _has_key(tx: Transaction, agent: str) -> bool:
    """Whether the agent can still sign in; what a client is for a person has no key, and needs none."""
    (has,) = tx.db.execute(
        """SELECT EXISTS (SELECT 1 FROM agents WHERE name = ? AND client_id IS NOT NULL) OR EXISTS (
            SELECT 1 FROM keys WHERE holder = ? AND status = 'active' AND (retires_at IS NULL OR retires_at > ?))""",
        (agent, f"agent:{agent}", tx.now),
    ).fetchone()
    return bool(has)


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


def _has_live_link(tx: Transaction, session: str, agents: tuple[str, ...]) -> bool:
    """Whether the last of these agents has a link through the others that can carry a call."""
    rows = tx.db.execute(
        "SELECT id FROM links WHERE session_id = ? AND holder = ? AND status = 'active'", (session, agents[-1])
    ).fetchall()
    chains = (lineage(tx, LinkId(link), tx.now) for (link,) in rows)
    return any(chain is not None and chain.ended is None and chain.agents == agents for chain in chains)


_APPROVED_BY: Final = "EXISTS (SELECT 1 FROM verdicts WHERE hold_id = holds.id AND approve = 1"

_HOLDS_OF: Final[dict[RevocableKind, Callable[[Transaction, str], tuple[HoldId, ...]]]] = {
    "link": _of_link,
    "session": lambda tx, name: cancel(tx, "session_id = ?", name),
    "grant": lambda tx, name: cancel(tx, "session_id IN (SELECT id FROM sessions WHERE grant_id = ?)", name),
    "agent": lambda tx, name: cancel(
        tx, "actor = ? OR EXISTS (SELECT 1 FROM json_each(chain) WHERE value = ?)", name, name
    ),
    "client": _of_client,
    "key": _of_key,
    "passkey": _of_passkey,
    # A pending call goes on without their approval, which counts no more; one that was approved rested on it.
    "person": lambda tx, name: cancel(
        tx, f"subject = ? OR (state = 'approved' AND {_APPROVED_BY} AND person = ?))", name, name
    ),
    "approval": lambda tx, name: cancel(tx, f"{_APPROVED_BY} AND standing = ?)", name),
}
