"""An excerpt of the log: some records with what shows that they are in it, to be verified far from the gateway.

Each record stands in it as its canonical bytes. One that a checkpoint covers comes with its path up the checkpoint's
tree; one that is newer than the last checkpoint is the gateway's word alone, and the verifier says so.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from mcp_authz.errors import InputError
from mcp_authz.rules.checkpoint import Checkpoint, read_checkpoint
from mcp_authz.rules.keys import PublicKey
from mcp_authz.rules.log import record_bytes, record_hash
from mcp_authz.rules.merkle import path, root_of

FORMAT: Final = "mcp-authz audit excerpt 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Excerpted:
    """One record of an excerpt, and what stands behind it."""

    sequence: int
    kind: str
    body: Mapping[str, Any]
    checkpoint: Checkpoint | None  # that covers it; None: nothing outside of the log vouches for it


class ExcerptBroken(InputError):
    """The excerpt is not what it says."""

    code = "excerpt_broken"


def entry(body: bytes, *, sequence: int, after: int, hashes: Sequence[bytes]) -> dict[str, Any]:
    """A record as an excerpt has it, whose checkpoint's tree is over `hashes`, of the records behind `after`."""
    return {"record": body.decode(), "path": [one.hex() for one in path(sequence - after - 1, hashes)]}


def excerpt(
    covered: Mapping[str, Sequence[Mapping[str, Any]]],
    uncovered: Sequence[bytes],
    *,
    gateway: str,
    evidence: Mapping[str, Any],
) -> dict[str, Any]:
    """The excerpt of records that checkpoints cover, by the checkpoint's text, and of those that none covers yet.

    `gateway` is its public URL; `evidence` is what was signed (`rules.evidence_checks`).
    """
    return {
        "format": FORMAT,
        "checkpoints": [{"checkpoint": text, "records": list(entries)} for text, entries in covered.items()],
        "uncovered": [body.decode() for body in uncovered],
        "gateway": gateway,
        "evidence": dict(evidence),
    }


def verify_excerpt(document: Mapping[str, Any], keys: Mapping[str, PublicKey]) -> tuple[Excerpted, ...]:
    """Return the records of an excerpt by their numbers, once all that it says of itself is known to hold.

    `keys` are the gateway's checkpoint keys by thumbprint, from somewhere else than the excerpt.

    Raises:
        ExcerptBroken: it is no excerpt, or a record is not in the tree that its checkpoint signs.
        SignatureRefused: a checkpoint is not by one of the keys.
    """
    if document.get("format") != FORMAT:
        raise ExcerptBroken(f"this is no excerpt of a log: `format` is not `{FORMAT}`")
    _require_members(document, ("format", "checkpoints", "uncovered", "gateway", "evidence"))
    found: list[Excerpted] = []
    issuers, chains = set[str](), list[set[bytes]]()
    try:
        for part in document["checkpoints"]:
            _require_members(part, ("checkpoint", "records"))
            checkpoint = read_checkpoint(part["checkpoint"], keys)
            found += [_covered(one, checkpoint) for one in part["records"]]
            issuers.add(checkpoint.issuer)
            chains.append({head.chain for head in checkpoint.heads})
        if issuers and document["gateway"] not in issuers:
            raise ExcerptBroken("the excerpt is of another gateway than its checkpoints")
        if chains and not set.intersection(*chains):
            raise ExcerptBroken("the excerpt is of more than one log")
        found += [_record(body, None) for body in document["uncovered"]]
    except (KeyError, TypeError, AttributeError):
        raise ExcerptBroken("the excerpt lacks something, or has something of another kind in its place") from None
    if len({one.sequence for one in found}) != len(found):
        raise ExcerptBroken("a record is in the excerpt twice")
    return tuple(sorted(found, key=lambda one: one.sequence))


def _covered(one: Mapping[str, Any], checkpoint: Checkpoint) -> Excerpted:
    _require_members(one, ("record", "path"))
    record = _record(one["record"], checkpoint)
    hash_ = record_hash(one["record"].encode())
    try:
        audit_path = [bytes.fromhex(text) for text in one["path"]]
        if [step.hex() for step in audit_path] != one["path"]:
            raise ValueError("another spelling")
    except ValueError:
        raise ExcerptBroken(f"the path of record {record.sequence} is none") from None
    for head in checkpoint.heads:
        index, size = record.sequence - head.after - 1, head.sequence - head.after
        if root_of(hash_, index=index, size=size, audit_path=audit_path) == head.root:
            return record
    raise ExcerptBroken(f"record {record.sequence} is not in the log that checkpoint {checkpoint.number} signs")


def _require_members(it: Mapping[str, Any], names: Sequence[str]) -> None:
    if set(it) != set(names):
        raise ExcerptBroken(f"the excerpt has other members than {', '.join(names)}")


def _record(text: str, checkpoint: Checkpoint | None) -> Excerpted:
    """The record that is written like this, and in no other way."""
    try:
        body = json.loads(text)
        at, previous = datetime.fromisoformat(body["at"]), bytes.fromhex(body["prev"])
        said = {"kind": body["kind"], "at": at, "call": body["call"], "fields": body["fields"]}
        written = record_bytes(sequence=body["seq"], previous=previous, **said)
    except (ValueError, RecursionError, OverflowError, InputError):
        raise ExcerptBroken("a record cannot be read") from None
    named = isinstance(body["kind"], str) and isinstance(body["call"], str | None)
    if not named or type(body["seq"]) is not int or body["seq"] < 1 or not isinstance(body["fields"], dict):
        raise ExcerptBroken("a record has no number, or no kind")
    if written.decode() != text:
        raise ExcerptBroken("a record is not written as a log writes it")
    return Excerpted(sequence=body["seq"], kind=body["kind"], body=body, checkpoint=checkpoint)
