"""Shredding in a transaction: whatever holds argument values is gone; what records say of it stays.

The write connection overwrites what it deletes (`secure_delete`), so that nothing of it is left in free pages.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from mcp_authz import limits
from mcp_authz.model import HoldId, StandingId
from mcp_authz.store import evidence
from mcp_authz.store.evidence_port import Before, OfCalls, Shredded
from mcp_authz.store.ports import Event
from mcp_authz.store.records import append
from mcp_authz.store.rows import micros
from mcp_authz.store.transaction import Transaction

_AT_ONCE: Final = limits.SHREDDED_AT_ONCE
_OVER: Final = "shredded_at IS NULL AND ended_at IS NOT NULL"
# A standing approval has values of the call that it was given with, for as long as calls can use it, or rest on it.
_UNUSED: Final = """NOT EXISTS (SELECT 1 FROM verdicts JOIN holds ON holds.id = verdicts.hold_id
    WHERE standing = standing_approvals.id AND shredded_at IS NULL)"""
_COUNTS: Final = "status = 'active' AND used < most AND expires_at > ?"


class Rehearsed(Exception):
    """What would be shredded; raised so that the savepoint is rolled back."""

    def __init__(self, shredded: Shredded) -> None:
        super().__init__()
        self.shredded = shredded


def shred(tx: Transaction, what: OfCalls | Before, event: Event | None, at_once: int = _AT_ONCE) -> Shredded:
    """What is gone; where nothing is, nothing is recorded."""
    gone = _of_calls(tx, what) if isinstance(what, OfCalls) else _before(tx, micros(what.at), at_once)
    if event is not None and not gone.is_nothing:
        append(tx, event)
    return gone


def rehearse(tx: Transaction, what: OfCalls | Before) -> None:
    """Nothing is true that was not before.

    Raises:
        Rehearsed: always, with what would be shredded.
    """
    raise Rehearsed(shred(tx, what, None, at_once=limits.JSON_INTEGER))


DUE: Final = f"""(EXISTS (SELECT 1 FROM holds WHERE {_OVER} AND ended_at <= min(:evidence, :replay))
    OR EXISTS (SELECT 1 FROM evidence WHERE kind = 'call-proof' AND at <= :evidence)
    OR (SELECT number FROM evidence WHERE kind = 'call-proof' ORDER BY at LIMIT 1)
        <= (SELECT max(number) FROM evidence) - :proofs_most
    OR EXISTS (SELECT 1 FROM standing_approvals WHERE expires_at <= min(:evidence, :now)))"""  # noqa: S608 - constants


def shred_due(tx: Transaction, kept: timedelta) -> bool:
    """Whether some of what was over for longer than `kept` is gone now; what could still be asked for is not over."""
    until = micros(tx.at - max(kept, limits.REPLAY_WINDOW))
    rows = tx.db.execute(
        f"""SELECT id FROM holds WHERE {_OVER} AND ended_at <= ? AND NOT (state = 'denied' AND expires_at > ?)
        AND NOT EXISTS (SELECT 1 FROM tasks WHERE hold_id = holds.id) ORDER BY ended_at LIMIT ?""",  # noqa: S608
        (until, tx.now, _AT_ONCE),
    ).fetchall()
    for (hold,) in rows:
        shred_hold(tx, HoldId(hold), tx.now)
    proofs = _proofs(tx, micros(tx.at - kept), _AT_ONCE)
    crowded = tx.db.execute(
        """DELETE FROM evidence WHERE number IN
        (SELECT number FROM evidence WHERE kind = 'call-proof' ORDER BY at LIMIT ?)
        AND number <= (SELECT max(number) FROM evidence) - ?""",
        (_AT_ONCE, limits.PROOFS_KEPT),
    ).rowcount
    return bool(rows) or bool(proofs) or bool(crowded) or bool(_standing(tx, micros(tx.at - kept), _AT_ONCE))


def _of_calls(tx: Transaction, what: OfCalls) -> Shredded:
    over, open_ = list[HoldId](), list[HoldId]()
    for hold in sorted(what.holds):
        row = tx.db.execute("SELECT state, ended_at, shredded_at FROM holds WHERE id = ?", (hold,)).fetchone()
        if row is not None and row[2] is None:
            (open_ if row[1] is None else over).append(hold)
    standing = {
        one
        for hold in what.holds
        for one in tx.db.execute("SELECT id, statement FROM standing_approvals WHERE hold_id = ?", (hold,)).fetchall()
    }
    for hold in over:
        shred_hold(tx, hold, tx.now)
    ended = [one for one in standing if _drop(tx, *one)]
    spared = bool(open_)  # the call goes on: what it was decided upon stays with it
    proofs = 0 if spared else sum(evidence.release(tx, name) for name in sorted(what.proofs))
    inputs = 0
    for sequence in [] if spared else sorted(what.sequences):
        inputs += tx.db.execute("DELETE FROM inputs WHERE sequence = ?", (sequence,)).rowcount
    in_use = tuple(StandingId(id_) for id_, _ in sorted(standing - set(ended)))
    return Shredded(
        holds=tuple(over), proofs=proofs, inputs=inputs, standing=len(ended), open=tuple(open_), in_use=in_use
    )


def _before(tx: Transaction, until: int, at_once: int) -> Shredded:
    rows = tx.db.execute(
        f"SELECT id FROM holds WHERE {_OVER} AND ended_at <= ? ORDER BY ended_at LIMIT ?",  # noqa: S608 - constants
        (until, at_once),
    ).fetchall()
    for (hold,) in rows:
        shred_hold(tx, HoldId(hold), tx.now)
    inputs = tx.db.execute(
        "DELETE FROM inputs WHERE number IN (SELECT number FROM inputs WHERE at <= ? ORDER BY at LIMIT ?)",
        (until, at_once),
    ).rowcount
    return Shredded(
        holds=tuple(HoldId(hold) for (hold,) in rows),
        proofs=_proofs(tx, until, at_once),
        inputs=inputs,
        standing=_standing(tx, until, at_once),
    )


def shred_hold(tx: Transaction, hold: HoldId, at: int) -> None:
    """Arguments, result, tasks and statements of the hold are gone, and so is its digest: it has no key."""
    tx.db.execute(
        "UPDATE holds SET arguments = x'', result = NULL, digest = zeroblob(32), shredded_at = ? WHERE id = ?",
        (at, hold),
    )
    tx.db.execute("DELETE FROM tasks WHERE hold_id = ?", (hold,))
    for name, standing in tx.db.execute("SELECT statement, standing FROM verdicts WHERE hold_id = ?", (hold,)):
        if standing is None or not _stands(tx, standing):
            evidence.release(tx, name)
    tx.db.execute("UPDATE verdicts SET statement = '' WHERE hold_id = ? AND statement NOT LIKE 'sha256:%'", (hold,))


def _proofs(tx: Transaction, until: int, at_once: int) -> int:
    return tx.db.execute(
        """DELETE FROM evidence WHERE number IN
        (SELECT number FROM evidence WHERE kind = 'call-proof' AND at <= ? ORDER BY at LIMIT ?)""",
        (until, at_once),
    ).rowcount


def _standing(tx: Transaction, until: int, at_once: int) -> int:
    """How many standing approvals that had ended then, and that no kept call rests on, are gone."""
    rows = tx.db.execute(
        f"SELECT id, statement FROM standing_approvals WHERE expires_at <= ? AND {_UNUSED} LIMIT ?",  # noqa: S608
        (min(until, tx.now), at_once),
    ).fetchall()
    return sum(_drop(tx, *row) for row in rows)


def _drop(tx: Transaction, standing: str, statement: str) -> bool:
    """Whether the standing approval is gone: it counts no more, and no call that is kept rests on it."""
    dropped = tx.db.execute(
        f"DELETE FROM standing_approvals WHERE id = ? AND NOT ({_COUNTS}) AND {_UNUSED}",  # noqa: S608 - constants
        (standing, tx.now),
    ).rowcount
    if dropped:
        evidence.release(tx, statement)
    return bool(dropped)


def _stands(tx: Transaction, standing: str) -> bool:
    """Whether the statement of this standing approval is another's, too: of itself, or of a call that is kept."""
    (stands,) = tx.db.execute(
        """SELECT EXISTS (SELECT 1 FROM standing_approvals WHERE id = :id) OR EXISTS (
            SELECT 1 FROM verdicts JOIN holds ON holds.id = verdicts.hold_id
            WHERE standing = :id AND shredded_at IS NULL)""",
        {"id": standing},
    ).fetchone()
    return bool(stands)
