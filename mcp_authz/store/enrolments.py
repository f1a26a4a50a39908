"""How agents come to keys in a transaction: by a one-time code, or by what their document elsewhere declares."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from mcp_authz.errors import Conflict
from mcp_authz.principals import AgentName, Key, Thumbprint
from mcp_authz.store import registry
from mcp_authz.store.ports import Enrolment, Event
from mcp_authz.store.records import append
from mcp_authz.store.rows import KEY, insert, key_row, micros, when
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
    if agent.client is not None:
        raise Conflict(f"agent `{name}` is a client's, and has no key: {agent.owner} signs in for it")
    if agent.metadata_url is not None:
        raise Conflict(f"the keys of agent `{name}` are those of {agent.metadata_url}; `agent refresh` reads them")
    if agent.parent is not None:
        raise Conflict(f"agent `{name}` is a child: its key comes with the link that agent `{agent.parent}` signs")
    if any(key.status == "active" for key in registry.keys_of(tx, f"agent:{name}")):
        raise Conflict(f"agent `{name}` has a key already; `mcp-authz agent rotate {name}` gives it another")


def declare_keys(
    tx: Transaction, holder: str, declared: Sequence[Key], event: Event, retire_others_at: datetime
) -> None:
    """The holder's current keys are those declared, as far as they are not revoked; the event, if that is a change."""
    agent = registry.agent(tx, AgentName(holder.removeprefix("agent:")))
    if agent is None or agent.status != "active":
        raise Conflict(f"there is no active `{holder}`")
    held = {key.thumbprint: key for key in registry.keys_of(tx, holder)}
    before = dict(held)
    for key in declared:
        known = registry.key(tx, key.thumbprint)
        if known is not None and known.holder != holder:
            registry.require_free(tx, key.thumbprint)
            known = None
        if (
            known is not None
            and known.status == "active"
            and known.retires_at is not None
            and tx.at >= known.retires_at
        ):
            raise Conflict(f"key `{key.thumbprint}` was replaced before; a new one is needed")
        held[key.thumbprint] = key if known is None else replace(known, retires_at=None)
    shown = {key.thumbprint for key in declared}
    for thumbprint, key in held.items():
        if thumbprint not in shown and key.retires_at is None:
            held[thumbprint] = replace(key, retires_at=retire_others_at)
    _require_few(tx, holder, held.values(), shown)
    changed = [key for thumbprint, key in held.items() if before.get(thumbprint) != key and key.status == "active"]
    for key in changed:
        _keep(tx, key, is_new=key.thumbprint not in before)
    if changed:
        append(tx, event)


def prove_key(tx: Transaction, thumbprint: Thumbprint, holder: str) -> bool:
    """Whether the key is the holder's, from now on whatever other documents declare."""
    done = tx.db.execute(
        "UPDATE keys SET proved = 1 WHERE thumbprint = ? AND holder = ? AND status = 'active' AND retires_at IS NULL",
        (thumbprint, holder),
    )
    return done.rowcount == 1


def _require_few(tx: Transaction, holder: str, keys: Iterable[Key], shown: set[Thumbprint]) -> None:
    active = [key for key in keys if key.status == "active" and (key.retires_at is None or key.retires_at > tx.at)]
    if not any(key.thumbprint in shown for key in active):
        raise Conflict(f"every key that `{holder}` declares was revoked")
    if len(active) > registry.ACTIVE_KEYS:
        raise Conflict(f"`{holder}` would have {len(active)} active keys; wait until one has retired, or revoke one")


def _keep(tx: Transaction, key: Key, *, is_new: bool) -> None:
    if is_new:
        tx.db.execute(insert("keys", KEY), key_row(key))
        return
    retires_at = None if key.retires_at is None else micros(key.retires_at)
    tx.db.execute("UPDATE keys SET retires_at = ? WHERE thumbprint = ?", (retires_at, key.thumbprint))
