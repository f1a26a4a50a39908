"""What was signed, in a transaction: kept once by its digest, sealed, until what it is about is shredded."""

from __future__ import annotations

from typing import Literal

from mcp_authz.rules.evidence_name import digest_of, name_of
from mcp_authz.store.transaction import Transaction

Kind = Literal["call-proof", "verdict"]


def keep(tx: Transaction, kind: Kind, text: str) -> str:
    """The name by which records and rows have what was signed; it is kept once, however often it is named."""
    name = name_of(text)
    digest = digest_of(name)
    assert digest is not None  # noqa: S101 - it was made on the line above
    sealed = tx.sealer.seal(text.encode(), _context(digest))
    tx.db.execute(
        "INSERT INTO evidence (digest, kind, at, body) VALUES (?, ?, ?, ?) ON CONFLICT (digest) DO NOTHING",
        (digest, kind, tx.now, sealed),
    )
    return name


def signed(tx: Transaction, name: str) -> str | None:
    """What was signed under this name, None where it is not kept.

    Raises:
        StoreError: it does not open: it was altered, or stood under another digest.
    """
    digest = digest_of(name)
    if digest is None:
        return None
    row = tx.db.execute("SELECT body FROM evidence WHERE digest = ?", (digest,)).fetchone()
    return None if row is None else tx.unseal(row[0], _context(digest)).decode()


def statement(tx: Transaction, kept: str) -> str:
    """The statement that a row has by name, or in itself (as before there was evidence); empty once it is shredded."""
    return (signed(tx, kept) or "") if digest_of(kept) is not None else kept


def release(tx: Transaction, name: str) -> int:
    """How much is gone: what was signed under this name, if anything was kept."""
    digest = digest_of(name)
    return 0 if digest is None else tx.db.execute("DELETE FROM evidence WHERE digest = ?", (digest,)).rowcount


def _context(digest: bytes) -> bytes:
    return f"evidence:{digest.hex()}:body".encode()
