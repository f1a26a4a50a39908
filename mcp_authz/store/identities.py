"""People as OpenID providers know them, in a transaction."""

from __future__ import annotations

from typing import Final

from mcp_authz.authorization import Identity
from mcp_authz.errors import Conflict
from mcp_authz.principals import Person, PersonName
from mcp_authz.store import registry
from mcp_authz.store.ports import Event
from mcp_authz.store.records import append
from mcp_authz.store.rows import columns, insert, micros, person_row, text_set, when
from mcp_authz.store.transaction import Transaction

_IDENTITY: Final = ("issuer", "subject", "person", "linked_at")


def identity(tx: Transaction, issuer: str, subject: str) -> Identity | None:
    """Who this is here, if it is anybody."""
    row = tx.db.execute(
        f"SELECT {columns(_IDENTITY)} FROM identities WHERE issuer = ? AND subject = ?",  # noqa: S608 - constants
        (issuer, subject),
    ).fetchone()
    return None if row is None else _read(*row)


def identities_of(tx: Transaction, person: PersonName) -> tuple[Identity, ...]:
    """Everything that providers know the person as."""
    found = tx.db.execute(
        f"SELECT {columns(_IDENTITY)} FROM identities WHERE person = ? ORDER BY issuer, subject",  # noqa: S608
        (person,),
    )
    return tuple(_read(*row) for row in found.fetchall())


def link_identity(tx: Transaction, new: Identity, person: Person | None, event: Event) -> None:
    """The provider's subject is this person, who comes to be if `person` is given, and has to be there otherwise."""
    if identity(tx, new.issuer, new.subject) is not None:
        raise Conflict("the provider's subject is somebody here already")
    there = registry.person(tx, new.person)
    if person is not None:
        if there is not None or person.name != new.person:
            raise Conflict(f"there is a person `{new.person}` already, whom this provider does not know")
        tx.db.execute(insert("people", ("name", "member_of", "status")), person_row(person))
    elif there is None or there.status != "active":
        raise Conflict(f"there is no active person `{new.person}`")
    tx.db.execute(
        insert("identities", _IDENTITY),
        (new.issuer, new.subject, new.person, micros(new.linked_at)),
    )
    append(tx, event)


def set_groups(tx: Transaction, person: PersonName, groups: frozenset[str], event: Event) -> None:
    """The person is in these groups and no others; where that is so already nothing is recorded."""
    there = registry.person(tx, person)
    if there is None or there.groups == groups:
        return
    tx.db.execute("UPDATE people SET member_of = ? WHERE name = ?", (text_set(groups), person))
    append(tx, event)


def _read(issuer: str, subject: str, person: str, linked_at: int) -> Identity:
    return Identity(issuer=issuer, subject=subject, person=PersonName(person), linked_at=when(linked_at))
