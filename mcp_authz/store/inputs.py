"""What calls were decided upon, as it is written: sealed, each bound to its decision record, and kept for a while."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.errors import InputError
from mcp_authz.rules import strict_json
from mcp_authz.store.ports import Event
from mcp_authz.store.rows import micros
from mcp_authz.store.transaction import Transaction

_AT_ONCE: Final = 2 * limits.STORE_BATCH  # forgotten in one flush; more than one flush can add


def keep(tx: Transaction, sequence: int, event: Event) -> None:
    """The event's input is kept with the record of this number; one that is too large, or no JSON, is not."""
    if event.input is None:
        return
    try:
        text = strict_json.dump(dict(event.input))
    except InputError:
        return  # the record is what matters
    if len(text) > limits.INPUT_BYTES:
        return
    sealed = tx.sealer.seal(text, _context(sequence))
    tx.db.execute("INSERT INTO inputs (sequence, at, sealed) VALUES (?, ?, ?)", (sequence, micros(event.at), sealed))


def opened(tx: Transaction, sequence: int, sealed: bytes) -> Mapping[str, Any]:
    """What was kept with this record.

    Raises:
        StoreError: it does not open: it was altered, or stood with another record.
    """
    kept: Mapping[str, Any] = json.loads(tx.unseal(sealed, _context(sequence)))
    return kept


DUE: Final = """(EXISTS (SELECT 1 FROM inputs WHERE at <= :inputs)
    OR (SELECT min(number) FROM inputs) <= (SELECT max(number) FROM inputs) - :inputs_most)"""


def forget(tx: Transaction, kept: timedelta) -> None:
    """Some of what is older than `kept`, and of what is more than may be kept, is gone."""
    tx.db.execute(
        "DELETE FROM inputs WHERE number IN (SELECT number FROM inputs WHERE at <= ? ORDER BY at LIMIT ?)",
        (micros(tx.at - kept), _AT_ONCE),
    )
    tx.db.execute(
        """DELETE FROM inputs WHERE number IN
        (SELECT number FROM inputs WHERE number <= (SELECT max(number) FROM inputs) - ? ORDER BY number LIMIT ?)""",
        (limits.INPUTS_KEPT, _AT_ONCE),
    )


def _context(sequence: int) -> bytes:
    return f"inputs:{sequence}:sealed".encode()
