"""What has run out is expired, forgotten or shredded with the next write of any kind, some of it with each.

Each batch of writes looks for such things first. Mostly there are none, which one statement tells: each part of the
store says in its `DUE` when its own has something to do, which may be more often than it does anything.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final, NamedTuple

from mcp_authz import limits
from mcp_authz.store import admission, authorizations, holds, inputs, shredding, tasks
from mcp_authz.store.rows import micros
from mcp_authz.store.transaction import Transaction

_CODES_KEPT: Final = timedelta(days=1)  # beyond their end: who uses one again is found out

_DUE: Final = f"SELECT {holds.DUE}, {admission.DUE}, {authorizations.DUE}, {inputs.DUE}, {tasks.DUE}, {shredding.DUE}"


class Kept(NamedTuple):
    """How long what has argument values is kept: what calls were decided upon, and everything."""

    inputs: timedelta
    evidence: timedelta


def tidy(tx: Transaction, *, kept: Kept) -> None:
    """Every hold whose time is up is expired, and some of whatever else has run out is gone."""
    codes, inputs_kept = micros(tx.at - _CODES_KEPT), min(kept.inputs, kept.evidence)
    bounds = {
        "now": tx.now,
        "once": micros(tx.at - limits.ONCE_KEPT),
        "codes": codes,
        "inputs": micros(tx.at - inputs_kept),
        "evidence": micros(tx.at - kept.evidence),
        "replay": micros(tx.at - limits.REPLAY_WINDOW),
        "inputs_most": limits.INPUTS_KEPT,
        "proofs_most": limits.PROOFS_KEPT,
    }
    expired, spent, unused, old, ended, over = tx.db.execute(_DUE, bounds).fetchone()
    if expired:
        holds.expire_due(tx)
    if spent:
        admission.forget(tx)
    if unused:
        authorizations.forget(tx, codes)
    if old:
        inputs.forget(tx, inputs_kept)
    if ended:
        tasks.forget(tx)
    if over:
        shredding.shred_due(tx, kept.evidence)
