"""The store's epoch: how often a backup took its place, and all that was open in the backup made void.

What a token, a question or a cookie was sealed or signed with is made anew, what was approved and not used is
cancelled, and what is dated earlier does not count where it counts once: the store forgot whether it was used.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Final

from mcp_authz.model import HoldState
from mcp_authz.principals import Thumbprint
from mcp_authz.rules.keys import PrivateKey, random_bytes
from mcp_authz.signing_key import USES, KeyUse, SigningKey
from mcp_authz.store.ports import Event
from mcp_authz.store.signing_keys import replace_signing_keys
from mcp_authz.store.transaction import Transaction

RENEWED: Final = frozenset(
    {"state-key", "dpop-nonce-key", "other-half-key", "provider-sign-in-key", "issuer-key", "context-key"}
)
"""Secrets that are over with an epoch: what they seal or sign is open, or was."""

KEPT: Final = frozenset({"sealing-key-check", "verdict-key", "evidence-key", "pairwise-key", "user-handle-key"})
"""Secrets that outlive it: records, passkeys and tool servers know people, values and verdicts by them."""

ENDS: Final[Mapping[HoldState, HoldState]] = {
    HoldState.PENDING: HoldState.CANCELLED,
    HoldState.APPROVED: HoldState.CANCELLED,
    HoldState.CLAIMED: HoldState.UNKNOWN,
}
"""What becomes of a hold that was open."""

_VOID: Final[Mapping[str, str]] = {
    "sessions": "UPDATE sessions SET status = 'revoked' WHERE status = 'active'",
    "links": "UPDATE links SET status = 'revoked' WHERE status = 'active'",
    "standing_approvals": "UPDATE standing_approvals SET status = 'revoked' WHERE status = 'active'",
    "refresh_tokens": "UPDATE refresh_tokens SET expires_at = :now WHERE used_at IS NULL AND expires_at > :now",
    "codes": "UPDATE codes SET expires_at = :now WHERE used_at IS NULL AND expires_at > :now",
    "enrolment_codes": "UPDATE enrolments SET expires_at = :now WHERE used_at IS NULL AND expires_at > :now",
    "invitations": "UPDATE invitations SET expires_at = :now WHERE used_at IS NULL AND expires_at > :now",
    "sign_ins": "UPDATE sign_ins SET ended_at = :now WHERE ended_at IS NULL AND expires_at > :now",
    "tasks": "UPDATE tasks SET expires_at = :now WHERE expires_at > :now",
}

_REASON: Final = "a backup was put back"


def epoch_of(db: sqlite3.Connection) -> int | None:
    """The number of the epoch; None where the store never had a witness beside it."""
    if db.execute("SELECT 1 FROM sqlite_schema WHERE name = 'epochs'").fetchone() is None:
        return None
    (number,) = db.execute("SELECT max(number) FROM epochs").fetchone()
    return None if number is None else int(number)


def was_at(db: sqlite3.Connection, number: int, sequence: int) -> bool:
    """Whether the store was at this record of this epoch once, as far as its epochs tell: there are branches."""
    begun = dict(db.execute("SELECT number, sequence FROM epochs ORDER BY number").fetchall())
    left = next((behind for later, behind in begun.items() if later > number), None)
    return (number == 0 or number in begun) and (left is None or sequence <= left)


def dated_from(tx: Transaction) -> int:
    """The time before which nothing counts that counts once."""
    (at,) = tx.db.execute("SELECT ifnull(max(dated_from), 0) FROM epochs").fetchone()
    return int(at)


def begin_first(tx: Transaction) -> None:
    """The store is in epoch 0 from now on, which has a witness."""
    tx.db.execute("INSERT INTO epochs VALUES (0, ?, 0, 0, 'witnessed from now on') ON CONFLICT DO NOTHING", (tx.now,))


def begin(tx: Transaction, *, number: int, dated_from: int, sequence: int, reason: str) -> dict[str, int]:
    """The epoch has begun, everything that was open is void; returns how much of each."""
    tx.db.execute("INSERT INTO epochs VALUES (?, ?, ?, ?, ?)", (number, tx.now, dated_from, sequence, reason))
    voided = {"holds": sum(_end_holds(tx, state, end) for state, end in ENDS.items())}
    voided |= {name: tx.db.execute(statement, {"now": tx.now}).rowcount for name, statement in _VOID.items()}
    for name in sorted(RENEWED):
        tx.db.execute("DELETE FROM secrets WHERE name = ?", (name,))
    for use in USES:
        _replace_key(tx, use)
    return voided


def _end_holds(tx: Transaction, state: HoldState, end: HoldState) -> int:
    return tx.db.execute("UPDATE holds SET state = ?, ended_at = ? WHERE state = ?", (end, tx.now, state)).rowcount


def _replace_key(tx: Transaction, use: KeyUse) -> None:
    seed = random_bytes(32)
    kid = Thumbprint(PrivateKey.from_seed(seed).public.thumbprint)
    new = SigningKey(kid=kid, use=use, made_at=tx.at, signs_from=tx.at, seed=seed)
    summary = f"the {use} key was replaced, because {_REASON}: what it signed does not count any more"
    fields = {"summary": summary, "use": use, "key": kid, "reason": _REASON}
    replace_signing_keys(
        tx,
        new,
        lambda before: Event(
            kind="administration", at=tx.at, fields={**fields, "replaces": [key.kid for key in before]}
        ),
    )
