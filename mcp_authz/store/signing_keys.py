"""The gateway's own signing keys in a transaction: their seeds sealed, each for its row and use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final

from mcp_authz.errors import Conflict, StoreError
from mcp_authz.principals import Thumbprint
from mcp_authz.rules.keys import PrivateKey, PublicKey
from mcp_authz.signing_key import KeyUse, SigningKey
from mcp_authz.store.ports import Event
from mcp_authz.store.records import append
from mcp_authz.store.rows import columns, insert, micros, when
from mcp_authz.store.transaction import Transaction, known_secret, secret

_COLUMNS: Final = ("kid", "purpose", "seed", "made_at", "signs_from", "retires_at", "status", "public")
_BEFORE: Final[dict[KeyUse, str]] = {"issuer": "issuer-key", "context": "context-key"}  # secrets, up to schema 6

EventFor = Callable[[Sequence[SigningKey]], Event]


def signing_keys(tx: Transaction, use: KeyUse) -> tuple[SigningKey, ...]:
    """Every key of this use, oldest first."""
    found = tx.db.execute(
        f"SELECT {columns(_COLUMNS)} FROM signing_keys WHERE purpose = ? ORDER BY made_at, kid",  # noqa: S608
        (use,),
    )
    return tuple(_read(tx, *row) for row in found.fetchall())


def begin_signing(tx: Transaction, use: KeyUse, make: Callable[[], bytes]) -> tuple[SigningKey, ...]:
    """Every key of this use; where there is none the secret that was it before becomes the first, or a new one is.

    The first one is on record: whoever verifies what it signed far from the gateway knows by that whose it is.
    """
    if not (known := signing_keys(tx, use)):
        before = _BEFORE.get(use, "")
        seed = known_secret(tx, before) or make()
        tx.db.execute("DELETE FROM secrets WHERE name = ?", (before,))
        kid = Thumbprint(PrivateKey.from_seed(seed).public.thumbprint)
        _add(tx, SigningKey(kid=kid, use=use, made_at=tx.at, signs_from=tx.at, seed=seed))
        fields = {"summary": f"the first {use} key of this gateway", "by": "gateway", "use": use, "key": kid}
        append(tx, Event(kind="administration", at=tx.at, fields=fields))
        known = signing_keys(tx, use)
    return known


def begin_secret(
    tx: Transaction, name: str, make: Callable[[], bytes], event_for: Callable[[bytes, datetime], Event] | None
) -> bytes:
    """The named secret; whoever makes it puts that on record, once."""
    known = known_secret(tx, name)
    if known is None:
        known = secret(tx, name, make)
        if event_for is not None:
            append(tx, event_for(known, tx.at))
    return known


def rotate_signing_key(tx: Transaction, new: SigningKey, event_for: EventFor, retire_others_at: datetime) -> None:
    """The key is published, and signs when its time comes; every other one of its use ends at `retire_others_at`."""
    known = signing_keys(tx, new.use)
    if (waiting := next((key for key in known if key.signs_from > tx.at and key.counts(tx.at)), None)) is not None:
        raise Conflict(f"key `{waiting.kid}` does not sign yet, only from {waiting.signs_from:%H:%M:%S} UTC on")
    tx.db.execute(
        """UPDATE signing_keys SET retires_at = min(ifnull(retires_at, :end), :end)
        WHERE purpose = :use AND status = 'active'""",
        {"end": micros(retire_others_at), "use": new.use},
    )
    _add_in_place_of(tx, new, known, event_for)


def replace_signing_keys(tx: Transaction, new: SigningKey, event_for: EventFor) -> None:
    """The key signs, and no other one of its use counts any more."""
    known = signing_keys(tx, new.use)
    tx.db.execute(
        """UPDATE signing_keys SET status = 'revoked'
        WHERE purpose = :use AND (retires_at IS NULL OR retires_at > :now)""",
        {"use": new.use, "now": tx.now},
    )
    _add_in_place_of(tx, new, known, event_for)


def signing_since(tx: Transaction) -> dict[str, datetime]:
    """Since when the key that signs does so, for each use that has one; nothing sealed is read."""
    found = tx.db.execute("SELECT purpose, max(signs_from) FROM signing_keys WHERE status = 'active' GROUP BY purpose")
    return {use: when(at) for use, at in found.fetchall()}


def _add_in_place_of(tx: Transaction, new: SigningKey, known: Sequence[SigningKey], event_for: EventFor) -> None:
    _add(tx, new)
    for key in known:
        tx.db.execute("UPDATE signing_keys SET public = ? WHERE kid = ?", (key.public, key.kid))
    tx.db.execute(  # what is over signs nothing, and nothing of it is verified: nobody needs its private half
        "UPDATE signing_keys SET seed = NULL WHERE purpose = ? AND (status = 'revoked' OR retires_at <= ?)",
        (new.use, tx.now),
    )
    append(tx, event_for([key for key in known if key.counts(tx.at)]))


def _add(tx: Transaction, new: SigningKey) -> None:
    if new.seed is None:
        raise StoreError("a new signing key has a seed")
    sealed = tx.sealer.seal(new.seed, _context(new.use, new.kid))
    public = PrivateKey.from_seed(new.seed).public.raw
    row = (new.kid, new.use, sealed, micros(new.made_at), micros(new.signs_from), None, new.status, public)
    tx.db.execute(insert("signing_keys", _COLUMNS), row)


def _read(tx: Transaction, kid: str, use: KeyUse, sealed: bytes | None, *rest: Any) -> SigningKey:
    made_at, signs_from, retires_at, status, public = rest
    seed = None if sealed is None else tx.unseal(sealed, _context(use, kid))
    if seed is not None:
        public = PrivateKey.from_seed(seed).public.raw
    if public is not None and PublicKey.from_raw(public).thumbprint != kid:
        raise StoreError(f"`{_context(use, kid).decode()}` of the store is another key's")
    return SigningKey(
        kid=Thumbprint(kid),
        use=use,
        made_at=when(made_at),
        signs_from=when(signs_from),
        retires_at=None if retires_at is None else when(retires_at),
        status=status,
        seed=seed,
        public=public,
    )


def _context(use: KeyUse, kid: str) -> bytes:
    return f"signing_keys:{use}:{kid}:seed".encode()
