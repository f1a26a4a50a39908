"""Signed links in a transaction: what a delegator signed comes into the store with its proof, and with its children."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from mcp_authz import limits
from mcp_authz.errors import Conflict
from mcp_authz.principals import Agent, Key, Link
from mcp_authz.store import registry, rows
from mcp_authz.store.ports import Event, Registration, Statement
from mcp_authz.store.records import append
from mcp_authz.store.rows import AGENT, KEY, Row, insert, micros
from mcp_authz.store.transaction import Transaction

_UP: Final = f"""
    WITH RECURSIVE up (digest, above, text, steps) AS (
        SELECT digest, above, text, 1 FROM statements WHERE digest = ?
        UNION ALL
        SELECT statements.digest, statements.above, statements.text, steps + 1
        FROM statements JOIN up ON statements.digest = up.above WHERE steps <= {limits.CHAIN_LINKS}
    ) SELECT digest, above, text FROM up ORDER BY steps DESC
"""  # noqa: S608 - a constant


def add_signed(tx: Transaction, registration: Registration, event_for: Callable[[Link | Key], Event]) -> None:
    """The links exist with their statements; children come first, because links name their holders."""
    for statement in registration.statements:
        tx.db.execute(
            "INSERT INTO statements (digest, above, text) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            (statement.digest, statement.above, statement.text),
        )
    for child, key in registration.children:
        if _add_child(tx, child, key):
            append(tx, event_for(key))
    for link in registration.links:
        if _add(tx, link):
            append(tx, event_for(link))


def statements(tx: Transaction, leaf: bytes) -> tuple[Statement, ...]:
    """The statement with this digest and those above it, root first."""
    return tuple(map(_statement, tx.db.execute(_UP, (leaf,))))


def _add(tx: Transaction, link: Link) -> bool:
    """Whether the link is new; the same one is not when it is presented twice at once, or by two of its holders."""
    known = registry.link(tx, link.id)
    if known is not None:
        if known.statement != link.statement:
            raise Conflict(f"there is a link `{link.id}` that says something else")
        if known.status != link.status:
            raise Conflict(f"link `{link.id}` is {known.status}")
        return False
    registry.insert_below(tx, link)
    return True


def _add_child(tx: Transaction, child: Agent, key: Key) -> bool:
    """Whether the key is new: then the child has it, and has lost every older one."""
    holder, belongs = registry.key(tx, key.thumbprint), f"agent:{child.name}"
    if holder is not None and (holder.holder != belongs or holder.status != "active"):
        registry.require_free(tx, key.thumbprint)
        holder = None
    before = registry.agent(tx, child.name)
    if before is None:
        _require_room(tx, child)
        tx.db.execute(insert("agents", AGENT), rows.agent_row(child))
    elif before.parent != child.parent or before.status != "active":
        raise Conflict(f"agent `{child.name}` was revoked, or is no child of `{child.parent}`")
    else:
        ends_at = max(filter(None, (before.ends_at, child.ends_at)))
        tx.db.execute("UPDATE agents SET ends_at = ? WHERE name = ?", (micros(ends_at), child.name))
    if holder is not None:
        return False
    if any(one.added_at > key.added_at for one in registry.keys_of(tx, belongs)):
        raise Conflict(f"agent `{child.name}` was given a newer key since")
    tx.db.execute("UPDATE keys SET status = 'revoked' WHERE holder = ? AND status = 'active'", (belongs,))
    tx.db.execute(insert("keys", KEY), rows.key_row(key))
    return True


def _require_room(tx: Transaction, child: Agent) -> None:
    (there,) = tx.db.execute(
        "SELECT count(*) FROM agents WHERE parent = ? AND ends_at > ?", (child.parent, tx.now)
    ).fetchone()
    if there >= limits.CHILDREN_PER_AGENT:
        raise Conflict(f"agent `{child.parent}` has {there} children; another one has to wait until one has ended")


def _statement(row: Row) -> Statement:
    digest, above, text = row
    return Statement(digest=digest, above=above, text=text)
