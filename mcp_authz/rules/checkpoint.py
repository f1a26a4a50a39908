"""A checkpoint: the gateway's signature over where the log ends, for a place where whoever can write the log cannot.

Each names the one before it by digest, so that a checkpoint that was left out shows, too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from mcp_authz.errors import SignatureRefused
from mcp_authz.rules import jose
from mcp_authz.rules.keys import PrivateKey, PublicKey
from mcp_authz.rules.log import GENESIS, Break

TYP: Final = "audit-checkpoint+jwt"
FIRST: Final = bytes(32)
"""What the first checkpoint names as its predecessor."""

_HASH_HEX: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """Where one chain ends; a chain is known by the hash of its first record.

    `root` is that of the tree (`rules.merkle`) over the hashes of the records behind `after`, up to `sequence`: by it
    one record is shown to be in the log without the others.
    """

    chain: bytes
    sequence: int
    hash: bytes
    after: int
    root: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Restore:
    """What a record says of a backup that took the store's place: the epoch that began, and what was lost."""

    epoch: int
    at: str
    by: str
    of: int  # the epoch of the backup
    sequence: int  # of its last record, behind which the log goes on
    lost: tuple[int, int, bytes] | None  # epoch, number and hash of the last record there was; None: nobody knows


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """What is signed: the heads of all chains at one moment, and which checkpoint this follows."""

    number: int  # 1, 2, 3 ... without a gap
    previous: bytes  # `checkpoint_digest` of the one before; 32 zero bytes for the first
    issuer: str
    at: datetime
    heads: tuple[Head, ...]
    epoch: int = 0  # of the store; one that was never restored is in epoch 0, and its checkpoints do not say so


def sign_checkpoint(checkpoint: Checkpoint, key: PrivateKey) -> str:
    """Return the compact JWS of the checkpoint, its payload in canonical form."""
    claims = {
        "iss": checkpoint.issuer,
        "iat": int(checkpoint.at.timestamp()),
        "n": checkpoint.number,
        "prev": checkpoint.previous.hex(),
        "heads": [
            {
                "chain": head.chain.hex(),
                "seq": head.sequence,
                "hash": head.hash.hex(),
                "after": head.after,
                "root": head.root.hex(),
            }
            for head in checkpoint.heads
        ],
        **({"epoch": checkpoint.epoch} if checkpoint.epoch else {}),
    }
    return jose.sign(claims, typ=TYP, key=key, kid=key.public.thumbprint)


def checkpoint_digest(text: str) -> bytes:
    """SHA-256 over the compact JWS as it stands, 32 bytes: what the next checkpoint names."""
    return hashlib.sha256(text.encode()).digest()


def read_checkpoint(text: str, keys: Mapping[str, PublicKey]) -> Checkpoint:
    """Return what the checkpoint says, once one of `keys` (by thumbprint) is known to have signed it.

    Raises:
        SignatureRefused: it is no checkpoint, or not by a key that is known.
    """
    unverified = jose.read(text)
    key = keys.get(str(unverified.kid))
    if key is None:
        raise SignatureRefused("the checkpoint is signed by a key that is not among those given")
    claims = unverified.verify(key, typ=TYP)
    heads = claims.get("heads")
    if not isinstance(heads, list) or not heads:
        raise SignatureRefused("the checkpoint names no chain")
    return Checkpoint(
        number=_number(claims, "n"),
        previous=_hash(claims, "prev"),
        issuer=jose.require_text(claims, "iss"),
        at=datetime.fromtimestamp(_number(claims, "iat"), UTC),
        heads=tuple(_head(head) for head in heads),
        epoch=_number(claims, "epoch") if "epoch" in claims else 0,
    )


def first_gap(texts: Sequence[str], checkpoints: Sequence[Checkpoint]) -> str | None:
    """Why these checkpoints do not follow from one another, in the order in which they were kept; None when they do.

    The first may follow one that was not kept: what was before it is not covered. The first of a new epoch follows the
    last that the backup knew of, whatever was kept behind that one.
    """
    digests = {(one.number, checkpoint_digest(text)) for text, one in zip(texts, checkpoints, strict=True)}
    for text, before, after in zip(texts, checkpoints, checkpoints[1:], strict=False):
        if after.epoch < before.epoch:
            return f"checkpoint {after.number} of epoch {after.epoch} comes after one of epoch {before.epoch}"
        if after.epoch > before.epoch:
            kept = after.number > checkpoints[0].number
            if kept and (after.number - 1, after.previous) not in digests:
                return f"checkpoint {after.number} of epoch {after.epoch} follows another one than was kept"
            continue
        if after.number != before.number + 1:
            return f"checkpoint {after.number} comes after checkpoint {before.number}"
        if after.previous != checkpoint_digest(text):
            return f"checkpoint {after.number} follows another checkpoint {before.number} than the one that was kept"
    if checkpoints and checkpoints[0].number == 1 and checkpoints[0].previous != FIRST:
        return "checkpoint 1 names one before it"
    return None


def first_disagreement(
    checkpoints: Sequence[Checkpoint],
    *,
    chain: bytes,
    hash_at: Callable[[int], bytes | None],
    after: int = 0,
    restores: Sequence[Restore] = (),
) -> Break | None:
    """Where the log is another than a checkpoint says, or None; `hash_at` gives the hash of a record, None: not there.

    `chain` is the hash of the log's first record, which must be in every checkpoint. Of a log that was pruned, records
    before number `after` are not at hand, and checkpoints that end there are not looked at. Nor are those of the part
    that was lost by one of `restores`: they cannot fit the log that goes on from a backup.
    """
    for checkpoint in checkpoints:
        head = next((head for head in checkpoint.heads if head.chain == chain), None)
        if head is None:
            return Break(sequence=1, why=f"checkpoint {checkpoint.number} is of another log: the first record differs")
        if (restore := lost_by(checkpoint, head, restores)) is not None:
            if _excuses(restore, checkpoint.epoch, head):
                continue
            why = f"checkpoint {checkpoint.number} ends behind what the restore of {restore.at} says was lost"
            return Break(sequence=head.sequence, why=why)
        if head.sequence < after:
            continue
        found = GENESIS if head.sequence == 0 else hash_at(head.sequence)
        if found is None:
            why = f"the log was cut: checkpoint {checkpoint.number} says that there was a record {head.sequence}"
            return Break(sequence=head.sequence, why=why)
        if found != head.hash:
            why = (
                f"the log was written anew: checkpoint {checkpoint.number} says another hash of record {head.sequence}"
            )
            return Break(sequence=head.sequence, why=why)
    return None


def lost_by(checkpoint: Checkpoint, head: Head, restores: Iterable[Restore]) -> Restore | None:
    """The restore by which the end of the log that the checkpoint names was lost; None where it was not.

    A checkpoint ends in the epoch in which it was made. The first restore of a later one tells what is left of that: as
    much as the backup had, or nothing where the backup is of another.
    """
    first = min((it for it in restores if it.epoch > checkpoint.epoch), key=lambda it: it.epoch, default=None)
    if first is None or (first.of == checkpoint.epoch and head.sequence <= first.sequence):
        return None
    return first


def _excuses(restore: Restore, epoch: int, head: Head) -> bool:
    """Whether this end is no further than what the restore says was lost.

    Of an epoch before the last one that was lost nobody knows where it ended: the record of its own end was lost too.
    """
    if restore.lost is None:
        return True
    last_epoch, last, hash_ = restore.lost
    return epoch < last_epoch or head.sequence < last or (head.sequence, head.hash) == (last, hash_)


def chain_through(checkpoints: Iterable[Checkpoint], sequence: int, hash_: bytes) -> bytes | None:
    """The chain that has this record as one of these checkpoints says; None where none says so.

    A log that was pruned begins behind such a record: without a checkpoint anybody could have cut it there.
    """
    heads = (head for checkpoint in checkpoints for head in checkpoint.heads)
    return next((head.chain for head in heads if (head.sequence, head.hash) == (sequence, hash_)), None)


def _head(value: Any) -> Head:
    if not isinstance(value, dict):
        raise SignatureRefused("the checkpoint names no chain")
    return Head(
        chain=_hash(value, "chain"),
        sequence=_number(value, "seq"),
        hash=_hash(value, "hash"),
        after=_number(value, "after"),
        root=_hash(value, "root"),
    )


def _number(claims: Mapping[str, Any], name: str) -> int:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise SignatureRefused(f"claim `{name}` of the checkpoint is no number")
    return value


def _hash(claims: Mapping[str, Any], name: str) -> bytes:
    value = claims.get(name)
    if not isinstance(value, str) or len(value) != _HASH_HEX or value != value.lower():
        raise SignatureRefused(f"claim `{name}` of the checkpoint is no SHA-256 in hexadecimal")
    try:
        return bytes.fromhex(value)
    except ValueError:
        raise SignatureRefused(f"claim `{name}` of the checkpoint is no SHA-256 in hexadecimal") from None
