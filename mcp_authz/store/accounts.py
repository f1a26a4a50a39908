"""Passkeys, invitations and sign-ins in a transaction: each use reads whose they are, and that the person is active."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.errors import Conflict, NotFound
from mcp_authz.model import Assurance
from mcp_authz.passkey import Invitation, Passkey, SignIn
from mcp_authz.principals import PersonName
from mcp_authz.store.holds import cancel
from mcp_authz.store.ports import Event
from mcp_authz.store.records import append
from mcp_authz.store.rows import Row, authentication, authentication_row, columns, insert, micros, when
from mcp_authz.store.transaction import Transaction

_PASSKEY: Final = (
    "credential", "person", "public_key", "sign_count", "label", "added_at", "last_used_at", "status",
)  # fmt: skip
_INVITATION: Final = ("digest", "person", "made_at", "expires_at", "used_at")
_SIGN_IN: Final = (
    "digest", "person", "credential", "began_at", "expires_at", "ended_at", "last_used_at", "auth_at", "amr",
    "auth_issuer",
)  # fmt: skip
_IDLE: Final = int(limits.SIGN_IN_IDLE.total_seconds() * 1_000_000)

_BY_PASSKEY: Final = f"""EXISTS (SELECT 1 FROM verdicts
    WHERE hold_id = holds.id AND approve = 1 AND person = ? AND assurance = {int(Assurance.PASSKEY)})"""  # noqa: S608

# A person who was revoked has no passkey that counts, whatever the row of the passkey says.
_ACTIVE: Final = "passkeys.status = 'active' AND people.status = 'active'"


def passkey(tx: Transaction, credential: bytes) -> Passkey | None:
    """The passkey, if it and its person are active."""
    found = _passkeys(tx, f"WHERE credential = ? AND {_ACTIVE}", credential)
    return found[0] if found else None


def passkeys_of(tx: Transaction, person: PersonName) -> tuple[Passkey, ...]:
    """Every passkey of the person, oldest first, revoked ones included."""
    return _passkeys(tx, "WHERE person = ? ORDER BY added_at, credential", person)


def add_invitation(tx: Transaction, new: Invitation, event: Event) -> None:
    """The invitation is the only one of its person that can be used."""
    _require_active(tx, new.person)
    if _active(tx, new.person):
        raise Conflict(f"`{new.person}` has a passkey already; sign in with it to add another")
    tx.db.execute(
        "UPDATE invitations SET expires_at = min(expires_at, ?) WHERE person = ? AND used_at IS NULL",
        (tx.now, new.person),
    )
    row = (new.digest, new.person, micros(new.made_at), micros(new.expires_at), None)
    tx.db.execute(insert("invitations", _INVITATION), row)
    append(tx, event)


def invitation(tx: Transaction, digest: bytes) -> Invitation | None:
    """The invitation, used and expired ones included."""
    row = tx.db.execute(
        f"SELECT {columns(_INVITATION)} FROM invitations WHERE digest = ?",  # noqa: S608 - constants
        (digest,),
    ).fetchone()
    if row is None:
        return None
    digest, person, made_at, expires_at, used_at = row
    return Invitation(
        digest=digest,
        person=PersonName(person),
        made_at=when(made_at),
        expires_at=when(expires_at),
        used_at=_when(used_at),
    )


def add_invited(tx: Transaction, new: Passkey, digest: bytes, event: Event) -> None:
    """The person has the passkey, and the invitation is used: one compare-and-swap."""
    used = tx.db.execute(
        "UPDATE invitations SET used_at = ? WHERE digest = ? AND person = ? AND used_at IS NULL AND expires_at > ?",
        (tx.now, digest, new.person, tx.now),
    )
    if used.rowcount != 1:
        raise Conflict("this link was used already, or its time is up; ask for a new one")
    if _active(tx, new.person):
        raise Conflict(f"`{new.person}` has a passkey already; sign in with it to add another")
    _add(tx, new, event)


def add_further(tx: Transaction, new: Passkey, signed_in: bytes, event: Event) -> None:
    """The person has this passkey besides those there are, and was signed in in the same transaction."""
    who = sign_in(tx, signed_in)
    if who is None or who.person != new.person:
        raise Conflict("you are not signed in any more; sign in again")
    if _active(tx, new.person) >= limits.PASSKEYS_PER_PERSON:
        raise Conflict(f"a person has at most {limits.PASSKEYS_PER_PERSON} passkeys")
    _add(tx, new, event)


def use_passkey(tx: Transaction, credential: bytes, sign_count: int) -> None:
    """The passkey was used now, and its counter stands at `sign_count`.

    An authenticator that counts counts up (WebAuthn Level 3 section 6.1.1); one that does not says 0 each time.
    """
    used = tx.db.execute(
        f"""UPDATE passkeys SET sign_count = ?, last_used_at = ? FROM people
        WHERE credential = ? AND people.name = person AND {_ACTIVE}
            AND (sign_count < ? OR (sign_count = 0 AND ? = 0))""",  # noqa: S608 - a constant
        (sign_count, tx.now, credential, sign_count, sign_count),
    )
    if used.rowcount != 1:
        raise Conflict("this passkey was revoked, or its counter went backwards: it may have been copied")


def open_sign_in(tx: Transaction, new: SignIn, sign_count: int | None, event: Event) -> None:
    """The person is signed in: by a passkey of theirs that was used or registered just now, or by their provider."""
    if new.credential is None:
        _require_active(tx, new.person)
    else:
        _require_shown(tx, new.credential, new.person, sign_count)
    row = (
        new.digest, new.person, new.credential, micros(new.began_at), micros(new.expires_at), None,
        micros(new.last_used_at), *authentication_row(new.authentication),
    )  # fmt: skip
    tx.db.execute(insert("sign_ins", _SIGN_IN), row)
    append(tx, event)


def _require_shown(tx: Transaction, credential: bytes, person: PersonName, sign_count: int | None) -> None:
    found = passkey(tx, credential)
    if found is None or found.person != person:
        raise Conflict("this passkey was revoked, or is somebody else's")
    if sign_count is not None:
        use_passkey(tx, credential, sign_count)


def sign_in(tx: Transaction, digest: bytes) -> SignIn | None:
    """The sign-in, if it has not ended and was not idle for too long, and its passkey and its person are active."""
    found = _sign_ins(tx, "digest = :value", digest)
    return found[0] if found else None


def sign_ins_of(tx: Transaction, person: PersonName) -> tuple[SignIn, ...]:
    """Every such sign-in of the person, the one that was used last first."""
    return _sign_ins(tx, "sign_ins.person = :value ORDER BY last_used_at DESC, began_at DESC", person)


def _sign_ins(tx: Transaction, which: str, value: bytes | str) -> tuple[SignIn, ...]:
    rows = tx.db.execute(
        f"""SELECT {columns(_SIGN_IN, "sign_ins")} FROM sign_ins JOIN people ON people.name = sign_ins.person
        WHERE ended_at IS NULL AND expires_at > :now AND last_used_at > :now - :idle AND people.status = 'active'
            AND (credential IS NULL OR EXISTS (
                SELECT 1 FROM passkeys WHERE passkeys.credential = sign_ins.credential
                    AND passkeys.person = sign_ins.person AND passkeys.status = 'active'))
            AND {which}""",  # noqa: S608 - constants
        {"value": value, "now": tx.now, "idle": _IDLE},
    )
    return tuple(map(_read_sign_in, rows.fetchall()))


def _read_sign_in(row: Row) -> SignIn:
    digest, person, credential, began_at, expires_at, ended_at, last_used_at, *shown = row
    authenticated = authentication(shown)
    assert authenticated is not None  # noqa: S101 - the columns are NOT NULL
    return SignIn(
        digest=digest,
        person=PersonName(person),
        credential=credential,
        authentication=authenticated,
        began_at=when(began_at),
        last_used_at=when(last_used_at),
        expires_at=when(expires_at),
        ended_at=_when(ended_at),
    )


def use_sign_in(tx: Transaction, digest: bytes) -> None:
    """The browser was used now; a sign-in that has ended, or was idle for too long, stays as it is."""
    tx.db.execute(
        "UPDATE sign_ins SET last_used_at = ? WHERE digest = ? AND ended_at IS NULL AND last_used_at > ?",
        (tx.now, digest, tx.now - _IDLE),
    )


def end_sign_ins(tx: Transaction, person: PersonName, event: Event) -> int:
    """How many browsers the person was signed in with: they are signed out, all of them."""
    ended = tx.db.execute(
        "UPDATE sign_ins SET ended_at = ? WHERE person = ? AND ended_at IS NULL AND expires_at > ?",
        (tx.now, person, tx.now),
    ).rowcount
    if ended:
        append(tx, event)
    return ended


def end_sign_in(tx: Transaction, digest: bytes, event: Event) -> None:
    """The sign-in has ended; where it had ended before, nothing is recorded."""
    ended = tx.db.execute("UPDATE sign_ins SET ended_at = ? WHERE digest = ? AND ended_at IS NULL", (tx.now, digest))
    if ended.rowcount:
        append(tx, event)


def revoke_passkeys(tx: Transaction, person: PersonName, event: Event) -> int:
    """How many passkeys of the person were active: they are revoked, and the sign-ins by them have ended.

    What was approved with one and has not run is cancelled, as with a key: nobody knows who had it.
    """
    revoked = tx.db.execute(
        "UPDATE passkeys SET status = 'revoked' WHERE person = ? AND status = 'active'", (person,)
    ).rowcount
    if revoked:
        tx.db.execute("UPDATE sign_ins SET ended_at = ? WHERE person = ? AND ended_at IS NULL", (tx.now, person))
        cancel(tx, _BY_PASSKEY, person)
        append(tx, event)
    return revoked


def passkeys_replaced(tx: Transaction, person: PersonName, since: datetime) -> datetime | None:
    """When `revoke_passkeys` last took passkeys of the person away, if it was after `since`; read from the log."""
    row = tx.db.execute(
        """SELECT json_extract(CAST(body AS TEXT), '$.at') FROM log
        WHERE kind = 'revocation' AND json_extract(CAST(body AS TEXT), '$.fields.passkeys_of') = ?
        ORDER BY sequence DESC LIMIT 1""",
        (f"user:{person}",),
    ).fetchone()
    if row is None:
        return None
    at = datetime.fromisoformat(row[0])
    return at if at > since else None


def _passkeys(tx: Transaction, where: str, *values: Any) -> tuple[Passkey, ...]:
    rows = tx.db.execute(
        f"SELECT {columns(_PASSKEY, 'passkeys')} FROM passkeys JOIN people ON people.name = person {where}",  # noqa: S608
        values,
    )
    return tuple(map(_read, rows.fetchall()))


def _read(row: Row) -> Passkey:
    credential, person, public_key, sign_count, label, added_at, last_used_at, status = row
    return Passkey(
        credential=credential,
        person=PersonName(person),
        public_key=public_key,
        sign_count=sign_count,
        label=label,
        added_at=when(added_at),
        last_used_at=_when(last_used_at),
        status=status,
    )


def _add(tx: Transaction, new: Passkey, event: Event) -> None:
    _require_active(tx, new.person)
    if tx.db.execute("SELECT 1 FROM passkeys WHERE credential = ?", (new.credential,)).fetchone() is not None:
        raise Conflict("this passkey is registered already")
    row = (
        new.credential, new.person, new.public_key, new.sign_count, new.label, micros(new.added_at), None, "active",
    )  # fmt: skip
    tx.db.execute(insert("passkeys", _PASSKEY), row)
    append(tx, event)


def _active(tx: Transaction, person: PersonName) -> int:
    (count,) = tx.db.execute(
        "SELECT count(*) FROM passkeys WHERE person = ? AND status = 'active'", (person,)
    ).fetchone()
    return int(count)


def _require_active(tx: Transaction, person: PersonName) -> None:
    row = tx.db.execute("SELECT status FROM people WHERE name = ?", (person,)).fetchone()
    if row is None:
        raise NotFound(f"there is no person `{person}`")
    if row[0] != "active":
        raise Conflict(f"person `{person}` is revoked; a passkey does not bring them back")


def _when(stored: int | None) -> datetime | None:
    return None if stored is None else when(stored)
