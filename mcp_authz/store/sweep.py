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
    "grant": ("subject = ?", "granted_at"),
    "session": ("subject = ?", "started_at"),
    "key": ("holder = 'user:' || ?", "added_at"),
    "approval": ("person = ?", "given_at"),
}
_OF_AGENT: Final[dict[RevocableKind, tuple[str, str]]] = {
    "grant": ("agent = ?", "granted_at"),
    "session": ("agent = ?", "started_at"),
    "link": ("holder = ?", "issued_at"),
    "key": ("holder = 'agent:' || ?", "added_at"),
    "approval": ("actor = ?", "given_at"),
}


class Rehearsed(Exception):
    """What a sweep would end; raised so that the savepoint is rolled back."""

    def __init__(self, swept: Swept) -> None:
        super().__init__()
        self.swept = swept


def sweep(tx: Transaction, subject: str, before: datetime, event: Event) -> Swept:
    """What ended; where nothing did, nothing is recorded."""
    kind, _, name = subject.partition(":")
    of, until = (_OF_PERSON if kind == "user" else _OF_AGENT), micros(before)
    ids: dict[str, tuple[str, ...]] = {}
    holds: list[HoldId] = []
    for thing, (whose, made) in of.items():
        table, column = TABLE[thing]
        rows = tx.db.execute(
            f"SELECT {column} FROM {table} WHERE {whose} AND {made} < ? AND status = 'active'",  # noqa: S608 - constants
            (name, until),
        ).fetchall()
        ids[thing] = tuple(id_ for (id_,) in rows)
        for id_ in ids[thing]:
            holds += end(tx, thing, id_)
    swept = Swept(
        ids=ids,
        sign_ins=_sign_out(tx, name, until) if kind == "user" else 0,
        codes=_use_up(tx, name, until) if kind == "agent" else 0,
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


def _use_up(tx: Transaction, agent: str, until: int) -> int:
    """How many enrolment codes cannot be used any more."""
    return tx.db.execute(
        "UPDATE enrolments SET used_at = ? WHERE agent = ? AND made_at < ? AND used_at IS NULL AND expires_at > ?",
        (tx.now, agent, until, tx.now),
    ).rowcount


def _told(swept: Swept) -> dict[str, object]:
    counts = {f"{kind}s": len(ids) for kind, ids in swept.ids.items()} | {"sign_ins": swept.sign_ins}
    return {"ended": counts, "ids": {kind: list(ids[:_NAMED]) for kind, ids in swept.ids.items() if ids}}
