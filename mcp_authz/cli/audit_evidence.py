"""What checkpoints and excerpts in files prove: the log of a store, or some records far from any store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mcp_authz.errors import InputError, SignatureRefused
from mcp_authz.rules import strict_json
from mcp_authz.rules.checkpoint import Checkpoint, first_disagreement, first_gap, read_checkpoint
from mcp_authz.rules.evidence_checks import check_evidence, printable
from mcp_authz.rules.excerpt import Excerpted, verify_excerpt
from mcp_authz.rules.keys import PublicKey
from mcp_authz.rules.log import Break
from mcp_authz.rules.verdict_checks import Finding
from mcp_authz.store.offline import log_file
from mcp_authz.web.passkeys import verify_kept

_LARGEST = 64 * 1024 * 1024  # bytes of a file that is read


@dataclass(frozen=True, slots=True, kw_only=True)
class Covered:
    """How far checkpoints vouch for a log, and where it is another than they say."""

    checkpoints: int
    until: int  # the number of the last record that they cover
    broken: Break | None


def read_keys(path: Path) -> dict[str, PublicKey]:
    """The public keys of a JWK Set, by thumbprint.

    Raises:
        InputError: the file cannot be read, or is none.
    """
    listed = strict_json.parse_object(_read(path)).get("keys")
    if not isinstance(listed, list) or not listed:
        raise InputError(f"`{path}` is no JWK Set; `mcp-authz audit keys` prints one")
    found = [PublicKey.from_jwk(one) for one in listed]
    return {key.thumbprint: key for key in found}


def covered(store: Path, file: Path, keys: Mapping[str, PublicKey]) -> Covered:
    """What the checkpoints in `file` say of the log in `store`.

    Raises:
        InputError: the file cannot be read.
        StoreError: the store cannot be read.
    """
    texts = _read(file).decode("utf-8", "replace").split()
    checkpoints: list[Checkpoint] = []
    for number, text in enumerate(texts, start=1):
        try:
            checkpoints.append(read_checkpoint(text, keys))
        except (SignatureRefused, InputError) as error:
            return Covered(
                checkpoints=len(texts), until=0, broken=Break(sequence=0, why=f"checkpoint {number}: {error}")
            )
    if (gap := first_gap(texts, checkpoints)) is not None:
        return Covered(checkpoints=len(texts), until=0, broken=Break(sequence=0, why=gap))
    with log_file(store) as log:
        first = log.after(0, 1)

        def hash_at(sequence: int) -> bytes | None:
            rows = log.after(sequence - 1, 1)
            return rows[0].hash if rows and rows[0].sequence == sequence else None

        chain = first[0].hash if first else b""
        broken = first_disagreement(checkpoints, chain=chain, hash_at=hash_at)
    until = max((head.sequence for one in checkpoints for head in one.heads if head.chain == chain), default=0)
    return Covered(checkpoints=len(texts), until=0 if broken else until, broken=broken)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """What a bundle shows: its records, and what was found about the evidence."""

    records: tuple[Excerpted, ...]
    findings: tuple[Finding, ...]

    @property
    def is_wrong(self) -> bool:
        """Whether anything in it is not as it says."""
        return any(one.verdict == "wrong" for one in self.findings)


def excerpted(path: Path, keys: Mapping[str, PublicKey]) -> Shown:
    """What an excerpt in a file shows, once its records hold.

    Raises:
        InputError, SignatureRefused: they do not.
    """
    document = strict_json.parse_object(_read(path), max_bytes=_LARGEST)
    records = verify_excerpt(document, keys)
    passkey = partial(verify_kept, public_url=str(document["gateway"]))
    return Shown(records=records, findings=printable(check_evidence(records, document["evidence"], passkey)))


def _read(path: Path) -> bytes:
    try:
        if path.stat().st_size > _LARGEST:
            raise InputError(f"`{path}` is larger than {_LARGEST} bytes")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"`{path}` cannot be read: {error.strerror}") from None
