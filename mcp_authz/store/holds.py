"""Held calls in a transaction: each transition is one compare-and-swap by the table of `rules.hold`.

A hold whose time is up reads as expired at once. Its row and its record follow with the next write of any kind, which
first moves every hold that is due (`expire_due`); no background job, and no writer ever sees a stale state.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mcp_authz.errors import Conflict, NotFound
from mcp_authz.model import Assurance, Hazard, HeldCall, HoldId, HoldState, ToolName, Verdict
from mcp_authz.principals import AgentName, Mode, PersonName, SessionId
from mcp_authz.rules import strict_json
from mcp_authz.rules.hold import EDGES, may_follow, may_speak
from mcp_authz.store import evidence
from mcp_authz.store.ports import Event
from mcp_authz.store.records import append, records
from mcp_authz.store.rows import Row, approval_rules, columns, insert, micros, rules_text, text, when
from mcp_authz.store.transaction import Transaction

_COLUMNS: Final = (
    "id", "state", "digest", "tool", "server", "arguments", "hazard", "session_id", "purpose", "subject", "owner",
    "actor", "chain", "interactive", "rules", "asked_at", "expires_at", "ended_at", "result",
    "ends_with", "mode", "bound", "shredded_at",
)  # fmt: skip
_VERDICT: Final = (
    "hold_id",
    "position",
    "person",
    "approve",
    "assurance",
    "statement",
    "signed_by",
    "reason",
    "given_at",
    "terms",
    "sent_back",
    "standing",
)

_SELECT: Final = f"SELECT {columns(_COLUMNS)} FROM holds"  # noqa: S608 - constants

WAITING: Final = (HoldState.PENDING, HoldState.APPROVED)


def hold(tx: Transaction, hold_id: HoldId) -> HeldCall | None:
    """The hold as it stands at the transaction's time."""
    row = tx.db.execute(f"{_SELECT} WHERE id = ?", (hold_id,)).fetchone()
    return None if row is None else _held(tx, row)


def holds(tx: Transaction, states: Sequence[HoldState] | None) -> tuple[HeldCall, ...]:
    """The holds in one of these states (None: in any), oldest first."""
    if states is None:
        return tuple(_held(tx, row) for row in tx.db.execute(f"{_SELECT} ORDER BY position").fetchall())
    # Rows that still say pending or approved may be expired by now.
    stored = {*states, *(WAITING if HoldState.EXPIRED in states else ())}
    marks = ", ".join("?" * len(stored))
    rows = tx.db.execute(f"{_SELECT} WHERE state IN ({marks}) ORDER BY position", tuple(stored)).fetchall()
    return tuple(held for row in rows if (held := _held(tx, row)).state in states)


def hold_ids(tx: Transaction) -> tuple[HoldId, ...]:
    """The ids of all holds there ever were."""
    return tuple(HoldId(id_) for (id_,) in tx.db.execute("SELECT id FROM holds"))


def find_hold(tx: Transaction, *, digest: bytes, session: SessionId, actor: AgentName) -> HeldCall | None:
    """The newest hold over exactly this call of this session and actor."""
    row = tx.db.execute(
        f"{_SELECT} WHERE session_id = ? AND actor = ? AND digest = ? ORDER BY position DESC LIMIT 1",
        (session, actor, digest),
    ).fetchone()
    return None if row is None else _held(tx, row)


def latest_holds(tx: Transaction, limit: int) -> tuple[HeldCall, ...]:
    """The holds that were asked for last, newest first."""
    rows = tx.db.execute(f"{_SELECT} ORDER BY position DESC LIMIT ?", (limit,)).fetchall()
    return tuple(_held(tx, row) for row in rows)


def moved_holds(tx: Transaction, after: int) -> tuple[int, tuple[HoldId, ...]]:
    """The number of the newest move, and the holds that made one after `after`."""
    (newest,) = tx.db.execute("SELECT ifnull(max(moved), 0) FROM holds").fetchone()
    rows = tx.db.execute("SELECT id FROM holds WHERE moved > ?", (after,)).fetchall()
    return newest, tuple(HoldId(id_) for (id_,) in rows)


def approved_like(tx: Transaction, held: HeldCall, limit: int) -> tuple[HeldCall, ...]:
    """Other holds of the same tool, actor, subject and mode whose rules were met, newest first."""
    rows = tx.db.execute(
        f"""{_SELECT} WHERE actor = ? AND state IN ('approved', 'claimed', 'done', 'failed', 'unknown')
        AND tool = ? AND subject = ? AND mode = ? AND id != ? AND shredded_at IS NULL
        ORDER BY position DESC LIMIT ?""",
        (held.actor, held.tool, held.subject, held.mode, held.id, limit),
    ).fetchall()
    return tuple(_held(tx, row) for row in rows)


DUE: Final = """EXISTS (SELECT 1 FROM holds INDEXED BY holds_that_wait
    WHERE state IN ('pending', 'approved') AND expires_at <= :now)"""


def expire_due(tx: Transaction) -> None:
    """Every hold whose time is up is expired, each with its record."""
    due = tx.db.execute(
        """SELECT id, session_id, actor, expires_at FROM holds INDEXED BY holds_that_wait
        WHERE state IN ('pending', 'approved') AND expires_at <= ? ORDER BY position""",
        (tx.now,),
    ).fetchall()
    for hold_id, session_id, actor, expires_at in due:
        _set_state(tx, hold_id, HoldState.EXPIRED, ended_at=expires_at)
        fields = {"hold": hold_id, "state": HoldState.EXPIRED.value, "session": session_id, "actor": f"agent:{actor}"}
        append(tx, Event(kind="approval", at=tx.at, fields=fields))


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """How many holds may be pending at once, or have been called off before their time was up."""

    per_session: int
    per_agent: int


def open_hold(tx: Transaction, held: HeldCall, event: Event, room: Room) -> HeldCall:
    """The hold is pending, or the identical one that waits already."""
    same = find_hold(tx, digest=held.digest, session=held.session, actor=held.actor)
    if same is not None and same.state in WAITING:
        return same
    _require_live_owner(tx, held)
    # Requests for a session stand in none: those of one agent have the room of a session together.
    of_session = "session_id = ? AND (session_id != '' OR actor = ?)"
    for where, values, most in (
        (of_session, (held.session, held.actor), room.per_session),
        ("actor = ?", (held.actor,), room.per_agent),
    ):
        (waiting,) = tx.db.execute(
            # What was called off keeps its place: who could call off and ask again would be heard of without end.
            f"""SELECT count(*) FROM holds WHERE {where} AND state IN ('pending', 'cancelled')
                AND (state = 'pending' OR expires_at > ?)""",  # noqa: S608 - constants
            (*values, tx.now),
        ).fetchone()
        if waiting >= most:
            raise Conflict(f"{most} calls wait for a person already; wait for their verdicts")
    tx.db.execute(insert("holds", _COLUMNS), _row(tx, held))
    append(tx, event)
    return _known(tx, held.id)


def give_verdict(tx: Transaction, verdict: Verdict, *, after: int, to: HoldState, event: Event) -> HeldCall:
    """The verdict counts as the one after the first `after`, and the hold has moved on with it."""
    held = _known(tx, verdict.hold)
    if len(held.verdicts) != after:
        raise Conflict(f"somebody has answered hold `{held.id}` meanwhile; look at it again")
    if not may_speak(held, verdict):
        raise Conflict(f"hold `{held.id}` is {held.state}; it takes no such answer of {verdict.person} any more")
    if to is not held.state and not may_follow(held.state, to):
        raise Conflict(f"a hold that is {held.state} does not become {to}")
    row = (
        verdict.hold, after, verdict.person, int(verdict.approve), int(verdict.assurance),
        evidence.keep(tx, "verdict", verdict.statement), verdict.signed_by, verdict.reason, micros(verdict.given_at),
        text(dict(verdict.terms)), int(verdict.sent_back), verdict.standing,
    )  # fmt: skip
    tx.db.execute(insert("verdicts", _VERDICT), row)
    if to is not held.state:
        _set_state(tx, held.id, to, ended_at=None if EDGES[to] else tx.now)
    append(tx, event)
    return _known(tx, held.id)


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One transition of one hold, with the outcome if it brings one."""

    hold: HoldId
    come_from: HoldState
    to: HoldState
    result: Mapping[str, Any] | None = None


def move_hold(tx: Transaction, move: Move, event: Event | None) -> bool:
    """Whether this transaction made the transition.

    Raises:
        Conflict: the table of `rules.hold` has no such edge.
    """
    if not may_follow(move.come_from, move.to):
        raise Conflict(f"a hold that is {move.come_from} does not become {move.to}")
    result = None if move.result is None else _seal(tx, move.hold, "result", move.result)
    moved = tx.db.execute(
        """UPDATE holds SET state = ?, ended_at = ?, result = ifnull(?, result), claimed_by = ifnull(?, claimed_by)
        WHERE id = ? AND state = ?""",
        (
            move.to, None if EDGES[move.to] else tx.now, result,
            tx.instance if move.to is HoldState.CLAIMED else None, move.hold, move.come_from,
        ),
    )  # fmt: skip
    if moved.rowcount != 1:
        return False
    if event is not None:
        append(tx, event)
    return True


def undo_claim(tx: Transaction, hold_id: HoldId, claim: Event) -> None:
    """Who claimed the hold with this record, and was told that it could not, runs nothing by it: it has failed.

    What is not there was not claimed by that, and stays as it is.
    """
    about = records(tx, after=0, limit=100, call=claim.call, kind=claim.kind)
    if claim.call is None or all(one.event.fields.get("decision") != claim.fields.get("decision") for one in about):
        return
    if not _end_claim(tx, hold_id, tx.instance, HoldState.FAILED):
        return
    told = {key: value for key, value in claim.fields.items() if key in {"actor", "tool", "subject", "session"}}
    said = "the store failed while the decision was written; nothing was done"
    fields = {**told, "outcome": "error", "ended_by": "store", "hold": hold_id, "summary": said}
    append(tx, Event(kind="outcome", at=tx.at, call=claim.call, fields=fields))


def abandon(tx: Transaction, hold_id: HoldId, event: Event) -> bool:
    """Whether the hold that this process runs is `unknown` from now on; one that another goes on with is left alone."""
    if not lose(tx, hold_id, tx.instance):
        return False
    append(tx, event)
    return True


def cancel(tx: Transaction, where: str, *values: str) -> tuple[HoldId, ...]:
    """The ids of the waiting holds that `where` names, which are cancelled now."""
    rows = tx.db.execute(
        f"SELECT id FROM holds WHERE state IN ('pending', 'approved') AND ({where}) ORDER BY position",  # noqa: S608
        values,
    ).fetchall()
    for (hold_id,) in rows:
        _set_state(tx, hold_id, HoldState.CANCELLED, ended_at=tx.now)
    return tuple(HoldId(hold_id) for (hold_id,) in rows)


def give_up(tx: Transaction, event_for: Callable[[HeldCall], Event], gone: frozenset[str]) -> tuple[HoldId, ...]:
    """The holds that the instances in `gone` had claimed: they are `unknown`, for nobody can say how they ended."""
    claimed = tx.db.execute("SELECT id, claimed_by FROM holds WHERE state = 'claimed' ORDER BY position").fetchall()
    lost = tuple(HoldId(hold_id) for hold_id, claimant in claimed if claimant in gone and lose(tx, hold_id, claimant))
    for hold_id in lost:
        append(tx, event_for(_known(tx, hold_id)))
    return lost


def lose(tx: Transaction, hold_id: HoldId, claimant: str) -> bool:
    """Whether the hold that this instance had claimed is `unknown` from now on."""
    return _end_claim(tx, hold_id, claimant, HoldState.UNKNOWN)


def _end_claim(tx: Transaction, hold_id: HoldId, claimant: str, to: HoldState) -> bool:
    ended = tx.db.execute(
        "UPDATE holds SET state = ?, ended_at = ? WHERE id = ? AND state = ? AND claimed_by = ?",
        (to, tx.now, hold_id, HoldState.CLAIMED, claimant),
    )
    return ended.rowcount == 1


def claimants(tx: Transaction) -> frozenset[str]:
    """The instances that have claimed a hold which has not ended."""
    return frozenset(name for (name,) in tx.db.execute("SELECT DISTINCT claimed_by FROM holds WHERE state = 'claimed'"))


def _seal(tx: Transaction, hold_id: HoldId, column: str, value: Mapping[str, Any]) -> bytes:
    return tx.sealer.seal(strict_json.dump(dict(value)), _context(hold_id, column))


def _context(hold_id: HoldId, column: str) -> bytes:
    return f"holds:{hold_id}:{column}".encode()


def _unseal(tx: Transaction, hold_id: HoldId, column: str, sealed: bytes) -> Any:
    return json.loads(tx.unseal(sealed, _context(hold_id, column)))


def _known(tx: Transaction, hold_id: HoldId) -> HeldCall:
    held = hold(tx, hold_id)
    if held is None:
        raise NotFound(f"there is no hold `{hold_id}`")
    return held


def _set_state(tx: Transaction, hold_id: HoldId, state: HoldState, *, ended_at: int | None) -> None:
    tx.db.execute("UPDATE holds SET state = ?, ended_at = ? WHERE id = ?", (state, ended_at, hold_id))


def _require_live_owner(tx: Transaction, held: HeldCall) -> None:
    """Nothing waits for what was revoked meanwhile; a request for a session has none yet, and is let through."""
    (dead,) = tx.db.execute(
        """SELECT EXISTS (SELECT 1 FROM agents WHERE name = :actor AND status != 'active')
            OR EXISTS (SELECT 1 FROM people WHERE name = :subject AND status != 'active')
            OR EXISTS (SELECT 1 FROM sessions JOIN grants ON grants.id = grant_id WHERE sessions.id = :session
                AND (sessions.status != 'active' OR grants.status != 'active'))""",
        {"actor": held.actor, "subject": held.subject, "session": held.session},
    ).fetchone()
    if dead:
        raise Conflict("the agent, the person or the session of this call was revoked")


def _row(tx: Transaction, held: HeldCall) -> Row:
    return (
        held.id, HoldState.PENDING, held.digest, held.tool, held.server,
        _seal(tx, held.id, "arguments", held.arguments), held.hazard, held.session,
        held.purpose, held.subject, held.owner, held.actor, text(list(held.chain)), int(held.interactive),
        rules_text(held.rules), micros(held.asked_at), micros(held.expires_at), None, None, held.ends_with,
        held.mode, text(dict(held.bound)), None,
    )  # fmt: skip


def _held(tx: Transaction, row: Row) -> HeldCall:
    (
        id_, state, digest, tool, server, arguments, hazard, session_id, purpose, subject, owner,
        actor, chain, interactive, rules, asked_at, expires_at, ended_at, result,
        ends_with, mode, bound, shredded_at,
    ) = row  # fmt: skip
    if state in WAITING and tx.now >= expires_at:
        state, ended_at = HoldState.EXPIRED, expires_at
    return HeldCall(
        id=HoldId(id_),
        state=HoldState(state),
        digest=digest,
        tool=ToolName(tool),
        server=server,
        arguments={} if shredded_at is not None else _unseal(tx, id_, "arguments", arguments),
        hazard=Hazard(hazard),
        session=SessionId(session_id),
        purpose=purpose,
        subject=PersonName(subject),
        owner=PersonName(owner),
        actor=AgentName(actor),
        chain=tuple(json.loads(chain)),
        interactive=bool(interactive),
        rules=approval_rules(rules),
        asked_at=when(asked_at),
        expires_at=when(expires_at),
        verdicts=_verdicts(tx, id_),
        ended_at=None if ended_at is None else when(ended_at),
        result=None if result is None else _unseal(tx, id_, "result", result),
        ends_with=ends_with,
        mode=Mode(mode),
        bound=json.loads(bound),
        shredded_at=None if shredded_at is None else when(shredded_at),
    )


def _verdicts(tx: Transaction, hold_id: HoldId) -> tuple[Verdict, ...]:
    rows = tx.db.execute(
        f"SELECT {columns(_VERDICT)} FROM verdicts WHERE hold_id = ? ORDER BY position",  # noqa: S608 - constants
        (hold_id,),
    )
    return tuple(
        Verdict(
            hold=HoldId(hold),
            person=PersonName(person),
            approve=bool(approve),
            assurance=Assurance(assurance),
            statement=evidence.statement(tx, statement),
            signed_by=signed_by,
            reason=reason,
            given_at=when(given_at),
            terms=json.loads(terms),
            sent_back=bool(sent_back),
            standing=standing,
        )
        for (
            hold, _, person, approve, assurance, statement, signed_by, reason, given_at, terms, sent_back, standing
        ) in rows
    )  # fmt: skip
