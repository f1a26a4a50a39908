"""Pins in a transaction: which definition of a tool is the accepted one, and which one waits to be."""

from __future__ import annotations

from collections.abc import Sequence

from mcp_authz.errors import Conflict, NotFound
from mcp_authz.store import rows
from mcp_authz.store.ports import Event, Pin
from mcp_authz.store.records import append
from mcp_authz.store.rows import PIN, columns, insert
from mcp_authz.store.transaction import Transaction


def pins(tx: Transaction) -> tuple[Pin, ...]:
    found = tx.db.execute(f"SELECT {columns(PIN)} FROM pins ORDER BY server, tool")  # noqa: S608 - constants
    return tuple(map(rows.pin, found))


def pin_first(tx: Transaction, new: Sequence[Pin], event: Event) -> None:
    """Tools never seen before are pinned; where nothing is new, nothing is recorded."""
    inserted = [
        tx.db.execute(f"{insert('pins', PIN)} ON CONFLICT DO NOTHING", rows.pin_row(pin)).rowcount for pin in new
    ]
    if any(inserted):
        append(tx, event)


def quarantine(tx: Transaction, pin: Pin, event: Event) -> None:
    """The definition that waits is `pin.changed`; a tool that waits with it already is left as it is."""
    row = rows.pin_row(pin)
    changed, changed_digest = row[-2:]
    if changed is None:
        raise Conflict(f"tool `{pin.tool}` of `{pin.server}` has no changed definition that could wait")
    known = tx.db.execute(
        "SELECT changed_digest FROM pins WHERE server = ? AND tool = ?", (pin.server, pin.tool)
    ).fetchone()
    if known is None:
        raise NotFound(f"tool `{pin.tool}` of `{pin.server}` has no pin")
    if known == (changed_digest,):
        return
    tx.db.execute(
        "UPDATE pins SET changed = ?, changed_digest = ? WHERE server = ? AND tool = ?",
        (changed, changed_digest, pin.server, pin.tool),
    )
    append(tx, event)


def release(tx: Transaction, server: str, tool: str, event: Event) -> None:
    """Nothing waits; where nothing waited, nothing is recorded."""
    released = tx.db.execute(
        """UPDATE pins SET changed = NULL, changed_digest = NULL
        WHERE server = ? AND tool = ? AND changed IS NOT NULL""",
        (server, tool),
    )
    if released.rowcount:
        append(tx, event)


def accept(tx: Transaction, server: str, tool: str, expect: bytes, event: Event) -> None:
    """The definition that waited is the pinned one, if it is the one expected: one compare-and-swap."""
    accepted = tx.db.execute(
        """UPDATE pins SET digest = changed_digest, definition = changed, changed = NULL, changed_digest = NULL
        WHERE server = ? AND tool = ? AND changed_digest = ?""",
        (server, tool, expect),
    )
    if not accepted.rowcount:
        raise Conflict(f"the definition of `{tool}` of `{server}` that waits is another, or none waits")
    append(tx, event)
