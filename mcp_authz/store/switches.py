"""What is switched off for everybody, in a transaction: step 14 looks here before it admits a call."""

from __future__ import annotations

from mcp_authz.model import HoldId
from mcp_authz.store.holds import cancel
from mcp_authz.store.ports import Event, LostReason
from mcp_authz.store.records import append
from mcp_authz.store.rows import micros, when
from mcp_authz.store.switch_port import Switch
from mcp_authz.store.transaction import Transaction


def switched_off(tx: Transaction) -> tuple[Switch, ...]:
    """Everything that is switched off."""
    rows = tx.db.execute("SELECT server, tool, since, by, reason FROM switched_off ORDER BY server, tool")
    return tuple(
        Switch(server=server, tool=tool, since=when(since), by=by, reason=reason)
        for server, tool, since, by, reason in rows
    )


def why_off(tx: Transaction, server: str, tool: str) -> LostReason | None:
    """Why no call of this tool is admitted; None where one may be."""
    row = tx.db.execute(
        "SELECT server FROM switched_off WHERE (server, tool) IN (VALUES ('', ''), (?, ''), (?, ?)) ORDER BY server",
        (server, server, tool),
    ).fetchone()
    if row is None:
        return None
    return "definition" if row[0] else "stopped"


def endings(tx: Transaction) -> int:
    """How often anything was taken away from anybody; triggers of the schema count."""
    (number,) = tx.db.execute("SELECT number FROM endings").fetchone()
    return int(number)


def switch_off(tx: Transaction, switch: Switch, event: Event, name: str) -> tuple[HoldId, ...] | None:
    """The holds that were cancelled with it; None, and nothing is recorded, where it was switched off before."""
    inserted = tx.db.execute(
        "INSERT INTO switched_off (server, tool, since, by, reason) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
        (switch.server, switch.tool, micros(switch.since), switch.by, tx.redact.text(switch.reason)),
    )
    if not inserted.rowcount:
        return None
    cancelled: tuple[HoldId, ...] = ()
    if switch.tool:
        cancelled = cancel(tx, "server = ? AND tool = ?", switch.server, name)
    elif switch.server:
        cancelled = cancel(tx, "server = ?", switch.server)
    append(tx, event)
    return cancelled


def switch_on(tx: Transaction, server: str, tool: str, event: Event) -> bool:
    """Whether it was switched off; where it was not, nothing is recorded."""
    deleted = tx.db.execute("DELETE FROM switched_off WHERE (server, tool) = (?, ?)", (server, tool))
    if deleted.rowcount:
        append(tx, event)
    return bool(deleted.rowcount)
