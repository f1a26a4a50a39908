"""The beginning of the log in a transaction: where it is, what may go, and what is removed."""

from __future__ import annotations

from mcp_authz.errors import StoreError
from mcp_authz.store.facts import Event
from mcp_authz.store.records import append
from mcp_authz.store.retention_port import LogBase
from mcp_authz.store.transaction import Transaction


def base(tx: Transaction) -> LogBase:
    """Where the log begins."""
    row = tx.db.execute("SELECT sequence, hash, chain, told FROM log_base").fetchone()
    if row is None:
        raise StoreError("the log has no base; run `mcp-authz audit verify`")
    sequence, hash_, chain, told = row
    return LogBase(sequence=sequence, hash=hash_, chain=chain, told=told)


def needed_from(tx: Transaction) -> int | None:
    """The number of the first record that something else refers to."""
    (needed,) = tx.db.execute(
        """SELECT min(sequence) FROM (
            SELECT min(sequence) AS sequence FROM inputs
            UNION ALL
            SELECT (SELECT min(log.sequence) FROM log WHERE log.call = holds.id) FROM holds
            WHERE state IN ('pending', 'approved', 'claimed')
        )"""
    ).fetchone()
    return None if needed is None else int(needed)


def prune(tx: Transaction, new: LogBase, event: Event) -> int:
    """The log begins behind `new`, and the event is its newest record.

    Raises:
        StoreError: the log has no such record, or something needs one of those before.
    """
    if new.sequence <= (begins := base(tx).sequence):
        raise StoreError(f"somebody else pruned the log meanwhile, up to record {begins}; there is nothing to do")
    row = tx.db.execute("SELECT hash FROM log WHERE sequence = ?", (new.sequence,)).fetchone()
    if row is None or row[0] != new.hash:
        raise StoreError(f"the log has no such record {new.sequence} to begin behind; run `mcp-authz audit verify`")
    needed = needed_from(tx)
    if needed is not None and needed <= new.sequence:
        raise StoreError(f"record {needed} of the log is needed still; nothing was pruned")
    told = append(tx, event).sequence
    tx.db.execute(
        "UPDATE log_base SET sequence = ?, hash = ?, chain = ?, told = ?", (new.sequence, new.hash, new.chain, told)
    )
    return told


def remove_pruned(tx: Transaction, most: int) -> int:
    """How many of the oldest rows that are no part of the log were removed."""
    # One bound: of two SQLite looks up the first, and at every row that is left up to there.
    return tx.db.execute(
        """DELETE FROM log WHERE sequence <= (
            SELECT min(log_base.sequence, (SELECT min(log.sequence) FROM log) + ? - 1) FROM log_base
        )""",
        (most,),
    ).rowcount
