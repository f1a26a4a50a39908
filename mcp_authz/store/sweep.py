"""All that a subject has, and that was made before a time, ended in one transaction with one record of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Final

from mcp_authz.model import HoldId
from mcp_authz.store.ports import Event, RevocableKind
from mcp_authz.store.records import append
from mcp_authz.store.revoke import TABLE, end
from mcp_authz.store.rows import micros
from mcp_authz.store.switch_port import Swept
from mcp_authz.store.transaction import Transaction

_NAMED: Final = 200  # ids of each kind that the record has; the others end all the same

# Whose each thing is, and when it was made. Tokens of every kind end with the grants and links that they are for.
_OF_PERSON: Final[dict[RevocableKind, tuple[str, str]]] = {
    "grant": ("subject = ?1", "granted_at"),
    "session": ("subject = ?1", "started_at"),
    "key": ("holder = 'user:' || ?1", "added_at"),
    "approval": ("person = ?1", "given_at"),
}
_AGENTS: Final = "(SELECT name FROM agents WHERE client_id = ?1)"
_GRANTS: Final = f"client_id = ?1 OR agent IN {_AGENTS}"  # also to other agents, through it
_OF_CLIENT: Final[dict[RevocableKind, tuple[str, str]]] = {
    "grant": (_GRANTS, "granted_at"),
    "session": (f"grant_id IN (SELECT id FROM grants WHERE {_GRANTS})", "started_at"),  # noqa: S608 - constants
    "approval": (f"actor IN {_AGENTS}", "given_at"),
}
_OF_AGENT: Final[dict[RevocableKind, tuple[str, str]]] = {
    "grant": ("agent = ?1", "granted_at"),
    "session": ("agent = ?1", "started_at"),
    "link": ("holder = ?1", "issued_at"),
    "key": ("holder = 'agent:' || ?1", "added_at"),
    "approval": ("actor = ?1", "given_at"),
}
_OF: Final = {"user": _OF_PERSON, "agent": _OF_AGENT, "client": _OF_CLIENT}
_CODES: Final = {"agent": ("enrolments", "agent"), "user": ("invitations", "person")}  # whose each one-time code is


class Rehearsed(Exception):
    """What a sweep would end; raised so that the savepoint is rolled back."""

    def __init__(self, swept: Swept) -> None:
        super().__init__()
        self.swept = swept


def sweep(tx: Transaction, subject: str, before: datetime, event: Event) -> Swept:
    """What ended; where nothing did, nothing is recorded."""
    kind, _, name = subject.partition(":")
    of, until = _OF[kind], micros(before)
    ids: dict[str, tuple[str, ...]] = {}
    holds: list[HoldId] = []
    for thing, (whose, made) in of.items():
        table, column = TABLE[thing]
        rows = tx.db.execute(
            f"SELECT {column} FROM {table} WHERE ({whose}) AND {made} < ?2 AND status = 'active'",  # noqa: S608
            (name, until),
        ).fetchall()
        ids[thing] = tuple(id_ for (id_,) in rows)
        for id_ in ids[thing]:
            holds += end(tx, thing, id_)
    swept = Swept(
        ids=ids,
        sign_ins=_sign_out(tx, name, until) if kind == "user" else 0,
        codes=_use_up(tx, kind, name, until) if kind in _CODES else 0,
        holds=tuple(dict.fromkeys(holds)),
    )
    if not swept.is_nothing:
        append(tx, replace(event, fields={**event.fields, **_told(swept)}))
    return swept


def rehearse(tx: Transaction, subject: str, before: datetime, event: Event) -> None:
    """Nothing is true that was not before.

    Raises:
        Rehearsed: always, with what would end.
    """
    raise Rehearsed(sweep(tx, subject, before, event))


def _sign_out(tx: Transaction, person: str, until: int) -> int:
    """How many sign-ins ended."""
    return tx.db.execute(
        "UPDATE sign_ins SET ended_at = ? WHERE person = ? AND began_at < ? AND ended_at IS NULL AND expires_at > ?",
        (tx.now, person, until, tx.now),
    ).rowcount


def _use_up(tx: Transaction, kind: str, name: str, until: int) -> int:
    """How many one-time codes, by which a key or a passkey would be registered, cannot be used any more."""
    table, whose = _CODES[kind]
    return tx.db.execute(
        f"""UPDATE {table} SET used_at = ?
        WHERE {whose} = ? AND made_at < ? AND used_at IS NULL AND expires_at > ?""",  # noqa: S608 - constants
        (tx.now, name, until, tx.now),
    ).rowcount


def _told(swept: Swept) -> dict[str, object]:
    counts = {f"{kind}s": len(ids) for kind, ids in swept.ids.items()} | {"sign_ins": swept.sign_ins}
    return {"ended": counts, "ids": {kind: list(ids[:_NAMED]) for kind, ids in swept.ids.items() if ids}}
