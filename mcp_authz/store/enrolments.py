"""One-time codes in a transaction: an agent that was announced registers its first key with one."""

from __future__ import annotations

from typing import Final

from mcp_authz.errors import Conflict
from mcp_authz.model import AgentName, Key
from mcp_authz.store import registry
from mcp_authz.store.ports import Enrolment, Event
from mcp_authz.store.records import append
from mcp_authz.store.rows import insert, micros, when
from mcp_authz.store.transaction import Transaction

_COLUMNS: Final = ("digest", "agent", "made_at", "expires_at", "used_at")


def add_enrolment(tx: Transaction, new: Enrolment, event: Event) -> None:
    """The code can be used; earlier ones of the agent cannot any more."""
    _require_keyless(tx, new.agent)
    tx.db.execute(
        "UPDATE enrolments SET expires_at = min(expires_at, :now) WHERE agent = :agent AND used_at IS NULL",
        {"now": tx.now, "agent": new.agent},
    )
    tx.db.execute(
        insert("enrolments", _COLUMNS), (new.digest, new.agent, micros(new.made_at), micros(new.expires_at), None)
    )
    append(tx, event)


def enrol(tx: Transaction, code: bytes, key: Key, event: Event) -> None:
    """The agent has its key, and the code is used."""
    known = enrolment(tx, code)
    if known is None or known.used_at is not None or tx.at >= known.expires_at or key.holder != f"agent:{known.agent}":
        raise Conflict("the enrolment code is unknown, used or expired")
    _require_keyless(tx, known.agent)
    tx.db.execute("UPDATE enrolments SET used_at = ? WHERE digest = ?", (tx.now, code))
    registry.add_key(tx, key, event, retire_others_at=None)


def enrolment(tx: Transaction, code: bytes) -> Enrolment | None:
    """The enrolment with this digest."""
    row = tx.db.execute(
        "SELECT digest, agent, made_at, expires_at, used_at FROM enrolments WHERE digest = ?", (code,)
    ).fetchone()
    if row is None:
        return None
    digest, agent, made_at, expires_at, used_at = row
    return Enrolment(
        digest=digest,
        agent=AgentName(agent),
        made_at=when(made_at),
        expires_at=when(expires_at),
        used_at=None if used_at is None else when(used_at),
    )


def _require_keyless(tx: Transaction, name: AgentName) -> None:
    agent = registry.agent(tx, name)
    if agent is None or agent.status != "active":
        raise Conflict(f"there is no active agent `{name}`")
    if any(key.status == "active" for key in registry.keys_of(tx, f"agent:{name}")):
        raise Conflict(f"agent `{name}` has a key already; `agent rotate` gives it another")
