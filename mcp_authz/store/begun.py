"""Calls that were begun, in a transaction: from their admission to the record of their outcome."""

from __future__ import annotations

from collections.abc import Callable

from mcp_authz.model import HeldCall, HoldId, HoldState
from mcp_authz.store import holds
from mcp_authz.store.calls_port import Begun, Ending
from mcp_authz.store.ports import Admission, Event
from mcp_authz.store.records import append
from mcp_authz.store.rows import insert
from mcp_authz.store.transaction import Transaction

_COLUMNS = ("call", "instance", "actor", "tool", "hold_id")


def begin(tx: Transaction, admission: Admission) -> None:
    """The call is this open store's to end."""
    tool = str(admission.event.fields.get("tool", admission.tool))
    hold = admission.claim or admission.continues
    tx.db.execute(
        f"{insert('begun', _COLUMNS)} ON CONFLICT DO NOTHING",
        (admission.event.call, tx.instance, admission.agent, tool, hold),
    )


def end(tx: Transaction, ending: Ending) -> None:
    """The call has ended on record, with its hold. One that had ended before is left alone.

    Where a commit fails nobody can say whether it was one; then this is tried again, and must not count twice.
    """
    if tx.db.execute("DELETE FROM begun WHERE call = ?", (ending.call,)).rowcount != 1:
        return
    if ending.hold is not None and ending.to is not None:
        move = holds.Move(hold=ending.hold, come_from=HoldState.CLAIMED, to=ending.to, result=ending.result)
        holds.move_hold(tx, move, None)
    append(tx, ending.event)


def undo(tx: Transaction, admission: Admission) -> None:
    """The call has ended as one that never ran, if it was admitted after all: its caller was told that it was not.

    What its commit wrote may have come back with the store. An approval that it claimed is used up.
    """
    hold = admission.claim or admission.continues
    told = {key: value for key, value in admission.event.fields.items() if key in {"actor", "subject", "session"}}
    fields = {
        **told,
        "tool": admission.event.fields.get("tool", admission.tool),
        "outcome": "error",
        "ended_by": "store",
        "summary": "the store failed while the decision was written; the call was not forwarded",
    }
    event = Event(kind="outcome", at=tx.at, call=admission.event.call, fields=fields | ({"hold": hold} if hold else {}))
    end(tx, Ending(call=str(admission.event.call), event=event, hold=hold, to=HoldState.FAILED if hold else None))


def calls(tx: Transaction) -> list[tuple[str, str]]:
    """Each call that has begun and not ended, with the open store that has to end it."""
    return tx.db.execute("SELECT call, instance FROM begun ORDER BY call").fetchall()


def instances(tx: Transaction) -> frozenset[str]:
    """The open stores that have calls to end, or holds that they claimed."""
    found = tx.db.execute("SELECT DISTINCT instance FROM begun")
    return frozenset(name for (name,) in found) | holds.claimants(tx)


def give_up(
    tx: Transaction, event_for: Callable[[HeldCall | Begun], Event], gone: frozenset[str]
) -> tuple[HoldId, ...]:
    """What the instances in `gone` had begun or claimed has ended, for nobody can say how; the holds among it."""
    lost = []
    rows = tx.db.execute("SELECT call, instance, actor, tool, hold_id FROM begun ORDER BY call").fetchall()
    for call, instance, actor, tool, hold in rows:
        if instance not in gone:
            continue
        tx.db.execute("DELETE FROM begun WHERE call = ?", (call,))
        if hold is not None and holds.lose(tx, HoldId(hold), instance):
            lost.append(HoldId(hold))
        append(tx, event_for(Begun(call=call, actor=actor, tool=tool, hold=None if hold is None else HoldId(hold))))
    return (*lost, *holds.give_up(tx, event_for, gone))
