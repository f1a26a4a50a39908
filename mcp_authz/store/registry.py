"""Agents, people, keys, grants, sessions and links in a transaction."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from functools import cache
from typing import Final

from mcp_authz import limits
from mcp_authz.errors import Conflict, NotFound
from mcp_authz.principals import (
    Agent,
    AgentName,
    Grant,
    GrantId,
    Key,
    Link,
    LinkId,
    Person,
    PersonName,
    Session,
    SessionId,
    Thumbprint,
)
from mcp_authz.store import rows
from mcp_authz.store.lineage import lineage
from mcp_authz.store.ports import Event
from mcp_authz.store.records import append
from mcp_authz.store.rows import AGENT, GRANT, KEY, LINK, PERSON, SESSION, Row, columns, insert, micros
from mcp_authz.store.transaction import Transaction

ACTIVE_KEYS: Final = 2  # the one in use and the one that replaces it (DESIGN section 6)


def _one(tx: Transaction, table: str, names: tuple[str, ...], value: str | None) -> Row | None:
    """The row whose first column is `value`."""
    row: Row | None = tx.db.execute(f"{_select(table, names)} WHERE {names[0]} = ?", (value,)).fetchone()
    return row


def _all(tx: Transaction, table: str, names: tuple[str, ...], where: str = "", *values: str | int) -> list[Row]:
    return tx.db.execute(f"{_select(table, names)} {where}", values).fetchall()


@cache
def _select(table: str, names: tuple[str, ...]) -> str:
    return f"SELECT {columns(names)} FROM {table}"  # noqa: S608 - constants


def agent(tx: Transaction, name: AgentName) -> Agent | None:
    row = _one(tx, "agents", AGENT, name)
    return None if row is None else rows.agent(row)


def agents(tx: Transaction) -> tuple[Agent, ...]:
    return tuple(map(rows.agent, _all(tx, "agents", AGENT, "ORDER BY name")))


def agent_at(tx: Transaction, metadata_url: str) -> Agent | None:
    found = _all(tx, "agents", AGENT, "WHERE metadata_url = ? ORDER BY status = 'active' DESC LIMIT 1", metadata_url)
    return rows.agent(found[0]) if found else None


def add_agent(tx: Transaction, new: Agent, key_: Key | None, event: Event) -> None:
    if agent(tx, new.name) is not None:
        raise Conflict(f"there is an agent `{new.name}` already")
    tx.db.execute(insert("agents", AGENT), rows.agent_row(new))
    if key_ is not None:
        _require_holder(tx, key_)
        if key_.holder != f"agent:{new.name}":
            raise Conflict(f"key `{key_.thumbprint}` is for another holder than agent `{new.name}`")
        tx.db.execute(insert("keys", KEY), rows.key_row(key_))
    append(tx, event)


def update_agent(tx: Transaction, changed: Agent, event: Event) -> None:
    """The agent is as given. Its status only `revoke` changes, so that no stale value brings one back."""
    before = agent(tx, changed.name)
    if before is None:
        raise NotFound(f"there is no agent `{changed.name}`")
    if before.status != changed.status:
        raise Conflict(f"agent `{changed.name}` is {before.status}; `revoke` is what changes that")
    assignments = ", ".join(f"{name} = ?" for name in AGENT[1:])
    tx.db.execute(
        f"UPDATE agents SET {assignments} WHERE name = ?",  # noqa: S608 - constants
        (*rows.agent_row(changed)[1:], changed.name),
    )
    inherited = ("owner", "labels", "ceiling")  # what a child has, its parent has
    tx.db.execute(
        f"UPDATE agents SET ({columns(inherited)}) = (SELECT {columns(inherited)} FROM agents WHERE name = :parent)"  # noqa: S608 - constants
        " WHERE parent = :parent",
        {"parent": changed.name},
    )
    append(tx, event)


def key(tx: Transaction, thumbprint: Thumbprint) -> Key | None:
    row = _one(tx, "keys", KEY, thumbprint)
    return None if row is None else rows.key(row)


def keys_of(tx: Transaction, holder: str) -> tuple[Key, ...]:
    return tuple(map(rows.key, _all(tx, "keys", KEY, "WHERE holder = ? ORDER BY added_at, thumbprint", holder)))


def add_key(tx: Transaction, new: Key, event: Event, *, retire_others_at: datetime | None) -> None:
    _require_holder(tx, new)
    if retire_others_at is not None:
        tx.db.execute(
            """UPDATE keys SET retires_at = min(ifnull(retires_at, :end), :end)
            WHERE holder = :holder AND status = 'active'""",
            {"end": micros(retire_others_at), "holder": new.holder},
        )
    (active,) = tx.db.execute(
        "SELECT count(*) FROM keys WHERE holder = ? AND status = 'active' AND (retires_at IS NULL OR retires_at > ?)",
        (new.holder, tx.now),
    ).fetchone()
    if active >= ACTIVE_KEYS:
        raise Conflict(f"`{new.holder}` has {active} active keys; revoke one, or wait until one has retired")
    tx.db.execute(insert("keys", KEY), rows.key_row(new))
    append(tx, event)


def require_free(tx: Transaction, thumbprint: Thumbprint) -> None:
    """Nobody has the key; one that a document declares, and that was never proved, is not its agent's any more."""
    held = key(tx, thumbprint)
    if held is None:
        return
    if held.proved or held.status != "active":
        raise Conflict(f"key `{thumbprint}` belongs to somebody already")
    tx.db.execute("DELETE FROM keys WHERE thumbprint = ?", (thumbprint,))


def _require_holder(tx: Transaction, new: Key) -> None:
    require_free(tx, new.thumbprint)
    kind, _, name = new.holder.partition(":")
    table = {"agent": "agents", "user": "people"}.get(kind)
    if table is None or _one(tx, table, ("name",), name) is None:
        raise NotFound(f"there is no `{new.holder}` that could hold a key")


def person(tx: Transaction, name: PersonName | None) -> Person | None:
    row = _one(tx, "people", PERSON, name)
    return None if row is None else rows.person(row)


def people(tx: Transaction) -> tuple[Person, ...]:
    return tuple(map(rows.person, _all(tx, "people", PERSON, "ORDER BY name")))


def add_person(tx: Transaction, new: Person, event: Event) -> None:
    if person(tx, new.name) is not None:
        raise Conflict(f"there is a person `{new.name}` already")
    tx.db.execute(insert("people", PERSON), rows.person_row(new))
    append(tx, event)


def grant(tx: Transaction, grant_id: GrantId | None) -> Grant | None:
    row = _one(tx, "grants", GRANT, grant_id)
    return None if row is None else rows.grant(row)


def grants(tx: Transaction, of_agent: AgentName | None) -> tuple[Grant, ...]:
    where, values = ("", ()) if of_agent is None else ("WHERE agent = ?", (of_agent,))
    return tuple(map(rows.grant, _all(tx, "grants", GRANT, f"{where} ORDER BY granted_at, id", *values)))


def add_grant(tx: Transaction, new: Grant, event: Event) -> None:
    tx.db.execute(insert("grants", GRANT), rows.grant_row(new))
    append(tx, event)


def session(tx: Transaction, session_id: SessionId | None) -> Session | None:
    row = _one(tx, "sessions", SESSION, session_id)
    return None if row is None else rows.session(row)


def sessions(tx: Transaction) -> tuple[Session, ...]:
    return tuple(map(rows.session, _all(tx, "sessions", SESSION, "ORDER BY started_at, id")))


def open_session(tx: Transaction, new: Session, root: Link, event: Event) -> None:
    """The session and its root link exist; the grant was active and unexpired in the same transaction.

    A purpose is redacted as records are, before anything that shows it or signs it has read it.
    """
    given = grant(tx, new.grant)
    if given is None or given.status != "active" or tx.at >= given.expires_at:
        raise Conflict(f"grant `{new.grant}` is not active any more")
    if (root.session, root.parent, root.holder) != (new.id, None, new.agent):
        raise Conflict(f"link `{root.id}` is not the root of session `{new.id}`")
    new = replace(new, purpose=tx.redact.text(new.purpose))
    tx.db.execute(insert("sessions", SESSION), rows.session_row(new))
    tx.db.execute(insert("links", LINK), rows.link_row(root))
    append(tx, event)


def link(tx: Transaction, link_id: LinkId) -> Link | None:
    row = _one(tx, "links", LINK, link_id)
    return None if row is None else rows.link(row)


def links(tx: Transaction, of_session: SessionId) -> tuple[Link, ...]:
    return tuple(
        map(rows.link, _all(tx, "links", LINK, "WHERE session_id = ? ORDER BY depth, issued_at, id", of_session))
    )


def add_link(tx: Transaction, new: Link, event: Event) -> None:
    insert_below(tx, new)
    append(tx, event)


def insert_below(tx: Transaction, new: Link) -> None:
    """The link is there, under a link of its session that is open.

    Raises:
        Conflict: there is no such link above it, or no room for this one.
    """
    above = None if new.parent is None else lineage(tx, new.parent, tx.now)
    if above is None or above.session != new.session:
        raise Conflict(f"link `{new.id}` does not stand under a link of its session")
    if above.ended is not None:
        raise Conflict("the parent link, or what it descends from, is not active any more")
    insert_link(tx, new)


def insert_link(tx: Transaction, new: Link) -> None:
    """The link is there, unless its session has as many as it may have.

    What it is for is redacted as records are, unless its delegator signed it.
    """
    (there,) = tx.db.execute("SELECT count(*) FROM links WHERE session_id = ?", (new.session,)).fetchone()
    if there >= limits.LINKS_PER_SESSION:
        raise Conflict(f"session `{new.session}` has {there} delegations, and no room for more; start another")
    (held,) = tx.db.execute(
        "SELECT count(*) FROM links WHERE session_id = ? AND holder = ? AND status = 'active' AND expires_at > ?",
        (new.session, new.holder, tx.now),
    ).fetchone()
    if held >= limits.LINKS_PER_HOLDER:
        raise Conflict(f"agent `{new.holder}` has {held} open delegations in this session; revoke one, or let one end")
    if new.statement is None:
        new = replace(new, reason=tx.redact.text(new.reason))
    tx.db.execute(insert("links", LINK), rows.link_row(new))


def open_links(tx: Transaction, holder: AgentName, at: int, since: int) -> tuple[tuple[Session, Link], ...]:
    """The links of the holder that could carry a call at `at`; one whose budget is used up could not."""
    held = _all(
        tx,
        "links",
        LINK,
        "WHERE holder = ? AND expires_at > ? AND issued_at >= ? AND status = 'active' ORDER BY issued_at, id",
        holder,
        at,
        since,
    )
    found = []
    for one in map(rows.link, held):
        chain, of_session = lineage(tx, one.id, at), session(tx, one.session)
        if chain is not None and chain.ended is None and not chain.spent and of_session is not None:
            found.append((of_session, one))
    return tuple(found)


def worked_for(tx: Transaction, holder: AgentName, since: int) -> frozenset[str]:
    found = tx.db.execute(
        """SELECT DISTINCT iif(subject = '', 'agent:' || agent, 'user:' || subject)
        FROM links JOIN sessions ON sessions.id = links.session_id WHERE links.holder = ? AND last_used_at >= ?""",
        (holder, since),
    )
    return frozenset(principal for (principal,) in found)
