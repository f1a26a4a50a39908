"""Standing approvals in a transaction: given with one verdict, used up call by call, counted nowhere else."""

from __future__ import annotations

import json
from typing import Final

from mcp_authz import limits
from mcp_authz.errors import Conflict, InputError, SignatureRefused
from mcp_authz.model import Assurance, HeldCall, HoldId, HoldState, StandingId, Verdict
from mcp_authz.principals import PersonName
from mcp_authz.rules import jose, strict_json
from mcp_authz.rules.evidence_name import name_of
from mcp_authz.rules.keys import b64url
from mcp_authz.rules.standing_approval import StandingApproval, StandingTerms, parse_pattern
from mcp_authz.store import evidence, holds
from mcp_authz.store.ports import Event
from mcp_authz.store.records import append
from mcp_authz.store.rows import Row, approval_rules, columns, insert, micros, rules_text, when
from mcp_authz.store.standing_port import StandingUse
from mcp_authz.store.transaction import Transaction

_COLUMNS: Final = (
    "id", "person", "hold_id", "session_id", "actor", "pattern", "rules", "assurance", "statement",
    "signed_by", "passkey", "reason", "given_at", "expires_at", "most", "used", "status",
)  # fmt: skip
_SELECT: Final = f"SELECT {columns(_COLUMNS)} FROM standing_approvals"  # noqa: S608 - constants

# What was taken away from who gave it, or with what they gave it, takes it away too.
_ENDED: Final = """(standing_approvals.status != 'active'
    OR EXISTS (SELECT 1 FROM people WHERE name = standing_approvals.person AND people.status != 'active')
    OR EXISTS (SELECT 1 FROM keys WHERE thumbprint = signed_by AND keys.status = 'revoked')
    OR EXISTS (SELECT 1 FROM passkeys WHERE credential = passkey AND passkeys.status = 'revoked'))"""

# A call that it let through runs while it lasts; the one that it was made from is approved as by any verdict.
RESTS_ON_ENDED: Final = f"""EXISTS (SELECT 1 FROM verdicts JOIN standing_approvals ON standing_approvals.id = standing
    WHERE verdicts.hold_id = holds.id AND ({_ENDED.replace("signed_by", "standing_approvals.signed_by")}
        OR (standing_approvals.hold_id != holds.id AND standing_approvals.expires_at <= ?)))"""  # noqa: S608

_ANSWERS: Final = frozenset({HoldState.APPROVED, HoldState.CLAIMED})
_RAN: Final = frozenset({HoldState.DONE, HoldState.FAILED, HoldState.UNKNOWN})


def standing_approval(tx: Transaction, standing: StandingId) -> StandingApproval | None:
    """The standing approval, in whatever state."""
    row = tx.db.execute(f"{_SELECT} WHERE id = ?", (standing,)).fetchone()
    return None if row is None else _standing(tx, row)


def standing_approvals(tx: Transaction, hold: HoldId | None) -> tuple[StandingApproval, ...]:
    """Every standing approval, or those that were made from one held call; oldest first."""
    rows = tx.db.execute(f"{_SELECT} WHERE hold_id = ifnull(?, hold_id) ORDER BY given_at, id", (hold,)).fetchall()
    return tuple(_standing(tx, row) for row in rows)


def live_standing(tx: Transaction, held: HeldCall) -> tuple[StandingApproval, ...]:
    """Those that a call of this session and actor could use now; newest first."""
    rows = tx.db.execute(
        f"""{_SELECT} WHERE session_id = ? AND actor = ? AND used < most AND expires_at > ? AND NOT {_ENDED}
        ORDER BY given_at DESC, id""",
        (held.session, held.actor, tx.now),
    ).fetchall()
    return tuple(_standing(tx, row) for row in rows)


def rests_on_ended(tx: Transaction, hold: HoldId, at: int) -> bool:
    """Whether an approval is a standing one that counted no more at `at`, or by a key or passkey that was revoked."""
    (ended,) = tx.db.execute(
        f"""SELECT EXISTS (SELECT 1 FROM holds WHERE id = ? AND {RESTS_ON_ENDED})
            OR EXISTS (SELECT 1 FROM verdicts JOIN keys ON thumbprint = signed_by
                WHERE hold_id = ? AND approve = 1 AND keys.status = 'revoked')""",  # noqa: S608 - constants
        (hold, at, hold),
    ).fetchone()
    return bool(ended) or _is_by_ended_passkey(tx, hold)


def _is_by_ended_passkey(tx: Transaction, hold: HoldId) -> bool:
    shown = tx.db.execute(
        "SELECT person, statement FROM verdicts WHERE hold_id = ? AND approve = 1 AND assurance = ?",
        (hold, int(Assurance.PASSKEY)),
    ).fetchall()
    return any(
        status != "active" and is_by_passkey(evidence.statement(tx, statement), credential)
        for person, statement in shown
        for credential, status in tx.db.execute("SELECT credential, status FROM passkeys WHERE person = ?", (person,))
    )


def is_by_passkey(statement: str, credential: bytes) -> bool:
    """Whether this signed statement says that this passkey was shown; yes, where it cannot be read any more."""
    try:
        proof = jose.read(statement).claims.get("proof")
    except (SignatureRefused, InputError):
        return True
    return isinstance(proof, dict) and proof.get("credential") == b64url(credential)


def give(
    tx: Transaction, standing: StandingApproval, verdict: Verdict, *, after: int, to: HoldState, event: Event
) -> HeldCall:
    """The standing approval counts from now on, and as this verdict of its hold."""
    held = holds.give_verdict(tx, verdict, after=after, to=to, event=event)
    tx.db.execute(insert("standing_approvals", _COLUMNS), _row(tx, standing, held))
    if standing.terms.id not in {one.terms.id for one in live_standing(tx, held)}:
        raise Conflict(f"`{standing.terms.person}`, their key or passkey was revoked, or the time is up")
    return held


def use(tx: Transaction, use: StandingUse) -> HeldCall:
    """The hold is approved by exactly these, each with one call less; or it is one that answers already."""
    asked = use.held
    same = holds.find_hold(tx, digest=asked.digest, session=asked.session, actor=asked.actor)
    if same is not None and same.id != asked.id:
        if _answers(tx, same):
            return same
        if same.state is HoldState.PENDING:
            raise Conflict(f"hold `{same.id}` waits for the same call")
    if same is not None and same.id == asked.id:
        if strict_json.dump(dict(same.arguments)) != strict_json.dump(dict(asked.arguments)):
            raise Conflict(f"hold `{same.id}` is written in another way than what was approved")  # 1.0 is 1 in RFC 8785
        append(tx, use.decision)
        held = same
    else:
        held = holds.open_hold(tx, asked, use.decision, _ROOM)
    for number, (verdict, event) in enumerate(use.verdicts):
        _take(tx, verdict)
        last = number == len(use.verdicts) - 1
        to = HoldState.APPROVED if last else HoldState.PENDING
        held = holds.give_verdict(tx, verdict, after=len(asked.verdicts) + number, to=to, event=event)
    return held


_ROOM: Final = holds.Room(per_session=limits.HOLDS_PER_SESSION, per_agent=limits.HOLDS_PER_AGENT)


def _take(tx: Transaction, verdict: Verdict) -> None:
    taken = tx.db.execute(
        f"""UPDATE standing_approvals SET used = used + 1
        WHERE id = ? AND person = ? AND used < most AND expires_at > ? AND NOT {_ENDED}""",  # noqa: S608 - constants
        (verdict.standing, verdict.person, tx.now),
    )
    if taken.rowcount != 1:
        raise Conflict(f"standing approval `{verdict.standing}` has ended or is used up")


def _answers(tx: Transaction, held: HeldCall) -> bool:
    """Whether this hold is what its call gets: it came to be, or ended, while standing approvals were looked for."""
    if held.state in _RAN:
        return held.ended_at is not None and tx.at - held.ended_at <= limits.REPLAY_WINDOW
    return held.state in _ANSWERS or (held.state is HoldState.DENIED and tx.at < held.expires_at)


def _context(standing: StandingId) -> bytes:
    return f"standing_approvals:{standing}:pattern".encode()


def _row(tx: Transaction, it: StandingApproval, held: HeldCall) -> Row:
    terms = it.terms
    pattern = tx.sealer.seal(strict_json.dump(terms.pattern.to_json()), _context(terms.id))
    return (
        terms.id, terms.person, terms.hold, held.session, held.actor, pattern, rules_text(terms.rules),
        int(it.assurance), name_of(it.statement), it.signed_by, it.passkey, terms.reason, micros(it.given_at),
        micros(terms.expires_at), terms.most, it.used, it.status,
    )  # fmt: skip


def _standing(tx: Transaction, row: Row) -> StandingApproval:
    (
        id_, person, hold_id, _, _, pattern, rules, assurance, statement,
        signed_by, passkey, reason, given_at, expires_at, most, used, status,
    ) = row  # fmt: skip
    terms = StandingTerms(
        id=StandingId(id_),
        hold=HoldId(hold_id),
        person=PersonName(person),
        pattern=parse_pattern(json.loads(tx.unseal(pattern, _context(id_)))),
        rules=approval_rules(rules),
        most=most,
        expires_at=when(expires_at),
        reason=reason,
    )
    return StandingApproval(
        terms=terms,
        assurance=Assurance(assurance),
        statement=evidence.statement(tx, statement),
        signed_by=signed_by,
        given_at=when(given_at),
        passkey=passkey,
        used=used,
        status=status,
    )
