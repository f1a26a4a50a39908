"""What a store that is newer than a backup knows to have ended: the backup has all of it ended as well.

Only what takes something away is carried over. What was added since, a key or a wider ceiling, is not: the newer store
was replaced for some reason.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from mcp_authz.model import HoldId
from mcp_authz.principals import Agent
from mcp_authz.rules.keys import b64url
from mcp_authz.rules.scope import Scope, covered
from mcp_authz.store import registry, rows
from mcp_authz.store.revoke import TABLE
from mcp_authz.store.rows import columns
from mcp_authz.store.shredding import shred_hold
from mcp_authz.store.transaction import Transaction

_NOT_CARRIED: Final = frozenset({"link", "session", "approval"})  # all of these are void anyway
_COPIED: Final[Mapping[str, str]] = {  # what was used up stays so
    "once": "INSERT INTO once (kind, id, expires_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
    "spent": """INSERT INTO spent (budget, account, amount, expires_at) VALUES (?, ?, ?, ?)
        ON CONFLICT DO UPDATE SET amount = max(amount, excluded.amount)""",
    "counted": "INSERT INTO counted (key, at, expires_at) VALUES (?, ?, ?)",
}
_COLUMNS: Final[Mapping[str, str]] = {
    "once": "kind, id, expires_at",
    "spent": "budget, account, amount, expires_at",
    "counted": "key, at, expires_at",
}


@dataclass(slots=True, kw_only=True)
class Carried:
    """What a newer store knew: what has ended here with it, and what exists there alone."""

    ended: dict[str, list[str]] = field(default_factory=dict)  # ids by kind
    missing: dict[str, list[str]] = field(default_factory=dict)  # made after the backup: they do not exist here

    def end(self, kind: str, names: Iterable[str]) -> None:
        """These ended."""
        known = self.ended.setdefault(kind, [])
        known += [name for name in names if name not in known]
        if not known:
            del self.ended[kind]


def carry_over(tx: Transaction, newer: sqlite3.Connection, carried: Carried) -> None:
    """Whatever has ended in `newer`, a store of the same schema, has ended here; `carried` tells of it."""
    there = replace(tx, db=newer)
    _revoke(tx, newer, carried)
    _retire_keys(tx, newer, carried)
    _narrow_people(tx, there, carried)
    _narrow_agents(tx, there, carried)
    _switch_off(tx, newer, carried)
    _quarantine(tx, newer, carried)
    _shred(tx, newer, carried)
    for table, statement in _COPIED.items():
        tx.db.executemany(statement, newer.execute(f"SELECT {_COLUMNS[table]} FROM {table}"))  # noqa: S608 - constants


def carry_losses(tx: Transaction, later: sqlite3.Connection, carried: Carried) -> None:
    """What is not in `later` any more, a later state of this store, is not here either."""
    _unlink(tx, later, carried)
    for table, column in (("evidence", "digest"), ("inputs", "sequence"), ("standing_approvals", "id")):
        asked = f"SELECT {column} FROM {table}"  # noqa: S608 - constants
        gone = {*tx.db.execute(asked).fetchall()} - {*later.execute(asked).fetchall()}
        tx.db.executemany(f"DELETE FROM {table} WHERE {column} = ?", gone)  # noqa: S608 - constants


def _revoke(tx: Transaction, newer: sqlite3.Connection, carried: Carried) -> None:
    for kind, (table, column) in TABLE.items():
        if kind in _NOT_CARRIED:
            continue
        here = dict(tx.db.execute(f"SELECT {column}, status FROM {table}").fetchall())  # noqa: S608 - constants
        there = dict(newer.execute(f"SELECT {column}, status FROM {table}").fetchall())  # noqa: S608 - constants
        ended = [name for name, status in there.items() if status == "revoked" and here.get(name) == "active"]
        tx.db.executemany(f"UPDATE {table} SET status = 'revoked' WHERE {column} = ?", [(name,) for name in ended])  # noqa: S608
        carried.end(kind, map(_named, ended))
        if kind != "grant" and (new := sorted(_named(name) for name in there.keys() - here.keys())):
            carried.missing[kind] = sorted({*carried.missing.get(kind, []), *new})


def _retire_keys(tx: Transaction, newer: sqlite3.Connection, carried: Carried) -> None:
    found = newer.execute("SELECT thumbprint, retires_at FROM keys WHERE retires_at IS NOT NULL").fetchall()
    for thumbprint, at in found:
        changed = tx.db.execute(
            "UPDATE keys SET retires_at = ? WHERE thumbprint = ? AND (retires_at IS NULL OR retires_at > ?)",
            (at, thumbprint, at),
        )
        if changed.rowcount:
            carried.end("key", [thumbprint])


def _narrow_people(tx: Transaction, there: Transaction, carried: Carried) -> None:
    newer = {person.name: person for person in registry.people(there)}
    for here in registry.people(tx):
        if (other := newer.get(here.name)) is None or here.groups <= other.groups:
            continue
        narrowed = replace(here, groups=here.groups & other.groups)
        tx.db.execute("UPDATE people SET member_of = ? WHERE name = ?", (rows.person_row(narrowed)[1], here.name))
        carried.end("group", (f"{group} of user:{here.name}" for group in sorted(here.groups - other.groups)))


def _narrow_agents(tx: Transaction, there: Transaction, carried: Carried) -> None:
    newer = {agent.name: agent for agent in registry.agents(there)}
    for here in registry.agents(tx):
        if (other := newer.get(here.name)) is None or (narrowed := _narrowed(here, other)) == here:
            continue
        row = dict(zip(rows.AGENT, rows.agent_row(narrowed), strict=True))
        del row["name"], row["status"]
        tx.db.execute(
            f"UPDATE agents SET {', '.join(f'{name} = ?' for name in row)} WHERE name = ?",  # noqa: S608 - constants
            (*row.values(), here.name),
        )
        carried.end("authority", [f"agent:{here.name}"])


def _narrowed(here: Agent, other: Agent) -> Agent:
    """The agent with no more than both have."""
    ends = [at for at in (here.ends_at, other.ends_at) if at is not None]
    return replace(
        here,
        ceiling=_common(here.ceiling, other.ceiling),
        roles=here.roles & other.roles,
        delegates_to=here.delegates_to & other.delegates_to,
        depth=min(here.depth, other.depth),
        interactive=here.interactive and other.interactive,
        ends_at=min(ends) if ends else None,
    )


def _common(some: frozenset[Scope], others: frozenset[Scope]) -> frozenset[Scope]:
    return frozenset(
        {*(scope for scope in some if covered(scope, others)), *(scope for scope in others if covered(scope, some))}
    )


def _unlink(tx: Transaction, newer: sqlite3.Connection, carried: Carried) -> None:
    """Who was unlinked from somebody at a provider is not linked here."""
    asked = "SELECT issuer, subject, person FROM identities"
    gone = {*tx.db.execute(asked).fetchall()} - {*newer.execute(asked).fetchall()}
    tx.db.executemany("DELETE FROM identities WHERE issuer = ? AND subject = ? AND person = ?", gone)
    carried.end("identity", sorted(f"user:{person}" for _, _, person in gone))


def _switch_off(tx: Transaction, newer: sqlite3.Connection, carried: Carried) -> None:
    for row in newer.execute("SELECT server, tool, since, by, reason FROM switched_off").fetchall():
        made = tx.db.execute("INSERT INTO switched_off VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", row)
        if made.rowcount:
            carried.end("switch", ["/".join(name for name in row[:2] if name) or "everything"])


def _quarantine(tx: Transaction, newer: sqlite3.Connection, carried: Carried) -> None:
    """What was in quarantine there is so here; a tool that was first seen since is known as it was then."""
    asked = f"SELECT {columns(rows.PIN)} FROM pins"  # noqa: S608 - constants
    here = {row[:2]: row for row in tx.db.execute(asked).fetchall()}
    for row in newer.execute(asked).fetchall():
        server, tool, *_, changed, digest = row
        if (server, tool) not in here:
            tx.db.execute(rows.insert("pins", rows.PIN), row)
        elif changed is not None and here[(server, tool)][-1] is None:
            found = "UPDATE pins SET changed = ?, changed_digest = ? WHERE server = ? AND tool = ?"
            tx.db.execute(found, (changed, digest, server, tool))
            carried.end("definition", [f"{server}/{tool}"])


def _shred(tx: Transaction, newer: sqlite3.Connection, carried: Carried) -> None:
    """What was shredded there has no values here either."""
    shredded = newer.execute("SELECT id, shredded_at FROM holds WHERE shredded_at IS NOT NULL").fetchall()
    kept = {id_ for (id_,) in tx.db.execute("SELECT id FROM holds WHERE shredded_at IS NULL")}
    for id_, at in shredded:
        if id_ in kept:
            shred_hold(tx, HoldId(id_), at)
            carried.end("values", [id_])


def end_all_ways_in(tx: Transaction, good: frozenset[str], reason: str) -> Carried:
    """Nobody but those in `good` (`user:NAME`, `agent:NAME`) has a key, a passkey or a sign-in elsewhere any more.

    Grants have ended, agents that are hosted elsewhere are revoked, and all calls are stopped until `start-all`.
    """
    carried = Carried()
    keys = tx.db.execute("SELECT thumbprint, holder FROM keys WHERE status = 'active'").fetchall()
    _end_some(tx, carried, "key", [thumbprint for thumbprint, holder in keys if holder not in good])
    passkeys = tx.db.execute("SELECT credential, person FROM passkeys WHERE status = 'active'").fetchall()
    _end_some(tx, carried, "passkey", [one for one, person in passkeys if f"user:{person}" not in good])
    grants = tx.db.execute("SELECT id, agent FROM grants WHERE status = 'active'").fetchall()
    _end_some(tx, carried, "grant", [one for one, agent in grants if f"agent:{agent}" not in good])
    hosted = tx.db.execute("SELECT name FROM agents WHERE metadata_url IS NOT NULL AND status = 'active'").fetchall()
    _end_some(tx, carried, "agent", [name for (name,) in hosted if f"agent:{name}" not in good])
    people = {person for (person,) in tx.db.execute("SELECT DISTINCT person FROM identities")}
    strangers = sorted(person for person in people if f"user:{person}" not in good)
    tx.db.executemany("DELETE FROM identities WHERE person = ?", [(person,) for person in strangers])
    carried.end("identity", [f"user:{person}" for person in strangers])
    stop = "INSERT INTO switched_off VALUES ('', '', ?, 'restore', ?) ON CONFLICT DO NOTHING"
    if tx.db.execute(stop, (tx.now, reason)).rowcount:
        carried.end("switch", ["everything"])
    return carried


def _end_some(tx: Transaction, carried: Carried, kind: str, names: list[Any]) -> None:
    table, column = next(where for of, where in TABLE.items() if of == kind)
    tx.db.executemany(f"UPDATE {table} SET status = 'revoked' WHERE {column} = ?", [(name,) for name in names])  # noqa: S608
    carried.end(kind, map(_named, names))


def without_a_key(tx: Transaction) -> tuple[str, ...]:
    """The active agents that had a key once, and cannot sign in any more: they enrol anew."""
    found = tx.db.execute(
        """SELECT name FROM agents WHERE status = 'active' AND client_id IS NULL
        AND EXISTS (SELECT 1 FROM keys WHERE holder = 'agent:' || name) AND NOT EXISTS (SELECT 1 FROM keys
            WHERE holder = 'agent:' || name AND status = 'active' AND (retires_at IS NULL OR retires_at > ?))
        ORDER BY name""",
        (tx.now,),
    )
    return tuple(name for (name,) in found)


def _named(name: Any) -> str:
    return b64url(name) if isinstance(name, bytes) else str(name)
