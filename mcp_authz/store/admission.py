"""Step 14 of the road: everything that must still be true, and everything that is used up, in one transaction.

The order decides which reason a caller reads: what was taken away comes before what has run out, and both before
what a faster caller was given.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from mcp_authz import limits
from mcp_authz.model import HoldState
from mcp_authz.store import begun
from mcp_authz.store.epoch import dated_from
from mcp_authz.store.lineage import Lineage, lineage
from mcp_authz.store.ports import Admission, Lost, LostReason, Once, Rate, Spending
from mcp_authz.store.records import append
from mcp_authz.store.rows import micros
from mcp_authz.store.standing import RESTS_ON_ENDED
from mcp_authz.store.switches import why_off
from mcp_authz.store.transaction import Transaction

_KEPT: Final = int(limits.ONCE_KEPT.total_seconds() * 1_000_000)


class NotAdmitted(Exception):
    """The call was not admitted; raised so that the savepoint is rolled back."""

    def __init__(self, reason: LostReason, *, wait: timedelta | None = None, budget: str = "") -> None:
        super().__init__(reason)
        self.lost = Lost(reason=reason, wait=wait, budget=budget)


def admit(tx: Transaction, admission: Admission) -> int:
    """The sequence number of the decision record of a call that may be forwarded.

    Raises:
        NotAdmitted: something changed since the call was evaluated.
    """
    if (off := why_off(tx, admission.server, admission.tool)) is not None:
        raise NotAdmitted(off)
    chain = lineage(tx, admission.links[-1], tx.now) if admission.links else None
    if chain is None or not _is_of(chain, admission):
        raise NotAdmitted("revoked")
    key_ended = _why_key_ended(tx, admission)
    ended = "revoked" if key_ended == "revoked" else chain.ended or key_ended
    if ended is not None:
        raise NotAdmitted(ended)
    _require_pinned(tx, admission)
    for once in admission.once:
        if not remember(tx, once):
            raise NotAdmitted("replayed")
    _claim(tx, admission)
    _go_on(tx, admission)
    if chain.spent:
        raise NotAdmitted("budget")
    for rate in admission.rates:
        _count(tx, rate)
    for spending in admission.budgets:
        _spend(tx, spending)
    _take_from_budgets(tx, chain)
    begun.begin(tx, admission)
    return append(tx, admission.event).sequence


def _is_of(chain: Lineage, admission: Admission) -> bool:
    return (chain.links, chain.holder, chain.session, chain.grant, chain.subject) == (
        admission.links,
        admission.agent,
        admission.session,
        admission.grant,
        admission.subject or "",
    )


def _why_key_ended(tx: Transaction, admission: Admission) -> LostReason | None:
    if admission.key is None:  # a client agent has none, and nobody else may come without
        found = tx.db.execute("SELECT client_id FROM agents WHERE name = ?", (admission.agent,)).fetchone()
        return None if found is not None and found[0] is not None else "revoked"
    row = tx.db.execute("SELECT holder, status, retires_at FROM keys WHERE thumbprint = ?", (admission.key,)).fetchone()
    if row is None or row[0] != f"agent:{admission.agent}" or row[1] != "active":
        return "revoked"
    return "expired" if row[2] is not None and tx.now >= row[2] else None


def _require_pinned(tx: Transaction, admission: Admission) -> None:
    row = tx.db.execute(
        "SELECT digest, changed_digest FROM pins WHERE server = ? AND tool = ?", (admission.server, admission.tool)
    ).fetchone()
    if row != (admission.definition_digest, None):
        raise NotAdmitted("definition")


def remember(tx: Transaction, once: Once) -> bool:
    """Whether this is the first use.

    What is so old that it may have been forgotten is not a first use, nor what is of a time that a restore took away.
    """
    expires_at = micros(once.expires_at)
    if tx.now >= expires_at + _KEPT or (once.issued_at is not None and micros(once.issued_at) < dated_from(tx)):
        return False
    inserted = tx.db.execute(
        "INSERT INTO once (kind, id, expires_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
        (once.kind, once.id, expires_at),
    )
    return inserted.rowcount == 1


DUE: Final = """(EXISTS (SELECT 1 FROM once WHERE expires_at <= :once)
    OR EXISTS (SELECT 1 FROM counted WHERE expires_at <= :now)
    OR EXISTS (SELECT 1 FROM spent WHERE expires_at <= :once))"""


def forget(tx: Transaction) -> None:
    """Some of what could not be accepted any more anyway, and of what counts for nothing any more, is forgotten."""
    tx.db.execute(
        "DELETE FROM once WHERE (kind, id) IN (SELECT kind, id FROM once WHERE expires_at <= ? LIMIT 100)",
        (tx.now - _KEPT,),
    )
    tx.db.execute(
        "DELETE FROM counted WHERE rowid IN (SELECT rowid FROM counted WHERE expires_at <= ? LIMIT 100)", (tx.now,)
    )
    tx.db.execute(
        """DELETE FROM spent WHERE (budget, account) IN
        (SELECT budget, account FROM spent WHERE expires_at <= ? LIMIT 100)""",
        (tx.now - _KEPT,),
    )


def _count(tx: Transaction, rate: Rate) -> None:
    """The call counts towards the limit, which slides: no stretch of time has more calls, wherever it begins."""
    per = int(rate.per.total_seconds() * 1_000_000)
    tx.db.execute("DELETE FROM counted WHERE key = ? AND at <= ?", (rate.key, tx.now - per))
    nth = tx.db.execute(
        "SELECT at FROM counted WHERE key = ? ORDER BY at DESC LIMIT 1 OFFSET ?", (rate.key, rate.count - 1)
    ).fetchone()
    if nth is not None:
        raise NotAdmitted("rate", wait=timedelta(microseconds=nth[0] + per - tx.now))
    tx.db.execute("INSERT INTO counted (key, at, expires_at) VALUES (?, ?, ?)", (rate.key, tx.now, tx.now + per))


def _spend(tx: Transaction, it: Spending) -> None:
    """The amount is taken, and stays taken whatever becomes of the call."""
    where = (it.budget, it.account)
    row = tx.db.execute("SELECT amount FROM spent WHERE budget = ? AND account = ?", where).fetchone()
    amount = it.amount + (0 if row is None else row[0])
    if amount > it.limit:
        raise NotAdmitted("spent", budget=it.budget)
    tx.db.execute(
        """INSERT INTO spent (budget, account, amount, expires_at) VALUES (?, ?, ?, ?)
        ON CONFLICT DO UPDATE SET amount = excluded.amount, expires_at = max(expires_at, excluded.expires_at)""",
        (*where, amount, micros(it.expires_at)),
    )


def _go_on(tx: Transaction, admission: Admission) -> None:
    """The run that its tool server's question interrupted goes on in this process, if nobody has given it up."""
    if admission.continues is None:
        return
    goes_on = tx.db.execute(
        "UPDATE holds SET claimed_by = ? WHERE id = ? AND state = ? AND session_id = ? AND actor = ?",
        (tx.instance, admission.continues, HoldState.CLAIMED, admission.session, admission.agent),
    )
    if goes_on.rowcount != 1:
        raise NotAdmitted("claimed")


def _claim(tx: Transaction, admission: Admission) -> None:
    if admission.claim is None:
        return
    claimed = tx.db.execute(
        f"""UPDATE holds SET state = ?, claimed_by = ?
        WHERE id = ? AND state = ? AND expires_at > ? AND NOT {RESTS_ON_ENDED}
            AND session_id = ? AND actor = ? AND ? IN (subject, '') AND server = ?""",  # noqa: S608 - constants
        (
            HoldState.CLAIMED, tx.instance, admission.claim, HoldState.APPROVED, tx.now, tx.now,
            admission.session, admission.agent, admission.subject or "", admission.server,
        ),
    )  # fmt: skip
    if claimed.rowcount != 1:
        raise NotAdmitted("claimed")


def _take_from_budgets(tx: Transaction, chain: Lineage) -> None:
    tx.db.executemany("UPDATE links SET calls_made = calls_made + 1 WHERE id = ?", [(link,) for link in chain.links])
    tx.db.execute(
        "UPDATE sessions SET calls_made = calls_made + 1, last_used_at = max(last_used_at, ?) WHERE id = ?",
        (tx.now, chain.session),
    )
