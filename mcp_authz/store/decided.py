"""The decisions of the log with what they were decided upon, in a transaction."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Final

from mcp_authz.store.inputs import opened
from mcp_authz.store.ports import Decided
from mcp_authz.store.records import record
from mcp_authz.store.transaction import Transaction

_DISORDER: Final = timedelta(minutes=1)  # by which the times of neighbouring records may be out of order


def decisions(tx: Transaction, *, after: int, limit: int) -> tuple[Decided, ...]:
    """The decision records after `after`, oldest first, each with its input.

    Raises:
        StoreError: an input does not open; it was altered, or stood with another record.
    """
    rows = tx.db.execute(
        """SELECT log.sequence, body, hash, sealed FROM log LEFT JOIN inputs ON inputs.sequence = log.sequence
        WHERE kind = 'decision' AND log.sequence > ? ORDER BY log.sequence LIMIT ?""",
        (after, limit),
    )
    return tuple(_decided(tx, *row) for row in rows)


def decision_of(tx: Transaction, call: str) -> Decided | None:
    """The last decision about a call that has an input; else the last one."""
    row = tx.db.execute(
        """SELECT log.sequence, body, hash, sealed FROM log LEFT JOIN inputs ON inputs.sequence = log.sequence
        WHERE call = ? AND kind = 'decision' ORDER BY sealed IS NULL, log.sequence DESC LIMIT 1""",
        (call,),
    ).fetchone()
    return None if row is None else _decided(tx, *row)


def before(tx: Transaction, at: datetime | None) -> int:
    """The number of a record that comes before all of this time; None: before all that have an input."""
    if at is None:
        (first,) = tx.db.execute("SELECT min(sequence) FROM inputs").fetchone()
        (head,) = tx.db.execute("SELECT sequence FROM log_head").fetchone()
        return int(head) if first is None else int(first) - 1
    asked = "SELECT log_base.sequence, log_head.sequence FROM log_base, log_head"
    low, high = map(int, tx.db.execute(asked).fetchone())
    while low < high:  # the log has no index by time, and grows by it
        middle = (low + high + 1) // 2
        body = tx.db.execute("SELECT body FROM log WHERE sequence = ?", (middle,)).fetchone()
        if body is not None and datetime.fromisoformat(json.loads(body[0])["at"]) < at - _DISORDER:
            low = middle
        else:
            high = middle - 1
    return low


def _decided(tx: Transaction, sequence: int, body: bytes, hash_: bytes, sealed: bytes | None) -> Decided:
    kept = None if sealed is None else opened(tx, sequence, sealed)
    return Decided(record=record(sequence, body, hash_), input=kept)
