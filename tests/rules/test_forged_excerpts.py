"""Excerpts that somebody made up: of two logs, or with records that no log has written; refused in a sentence."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from mcp_authz.rules.checkpoint import FIRST, Checkpoint, Head, sign_checkpoint
from mcp_authz.rules.excerpt import FORMAT, ExcerptBroken, entry, excerpt, verify_excerpt
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.log import GENESIS, record_bytes, record_hash
from mcp_authz.rules.merkle import root

AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
KEYS = [PrivateKey.generate() for _ in range(2)]
TRUSTED = {key.public.thumbprint: key.public for key in KEYS}
GATEWAY = "https://authz.example.com"


def body(sequence: int, **fields: Any) -> bytes:
    return record_bytes(sequence=sequence, previous=GENESIS, kind="enrolment", at=AT, call=None, fields=fields)


def covered(key: PrivateKey, record: bytes, *, chain: bytes, after: int) -> tuple[str, list[dict[str, Any]]]:
    """A checkpoint of a log of which the record is the only new one."""
    hashes = [record_hash(record)]
    head = Head(chain=chain, sequence=after + 1, hash=hashes[0], after=after, root=root(hashes))
    made = Checkpoint(number=after + 1, previous=FIRST, issuer=GATEWAY, at=AT, heads=(head,))
    return sign_checkpoint(made, key), [dict(entry(record, sequence=after + 1, after=after, hashes=hashes))]


@pytest.mark.parametrize("of", ["one log", "two logs"])
def test_records_of_two_logs_are_not_taken_for_one(of: str) -> None:
    chains = [b"a" * 32, b"a" * 32 if of == "one log" else b"b" * 32]
    parts = dict(
        covered(key, body(number + 1, key="k"), chain=chain, after=number)
        for number, (key, chain) in enumerate(zip(KEYS, chains, strict=True))
    )
    document = excerpt(parts, [], gateway=GATEWAY, evidence={})
    if of == "one log":
        assert len(verify_excerpt(document, TRUSTED)) == 2
        return
    with pytest.raises(ExcerptBroken, match="more than one log"):
        verify_excerpt(document, TRUSTED)


RECORD = json.loads(body(7, agent="agent:coder", key="k"))


def spelled(**other: Any) -> str:
    return json.dumps({**RECORD, **other}, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def uncovered(text: Any) -> dict[str, Any]:
    return {"format": FORMAT, "checkpoints": [], "uncovered": [text], "gateway": GATEWAY, "evidence": {}}


def test_a_record_as_a_log_writes_it_can_be_read() -> None:
    (one,) = verify_excerpt(uncovered(spelled()), {})
    assert (one.sequence, one.kind, one.checkpoint) == (7, "enrolment", None)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        "[1]",
        "7",
        "{}",
        7,
        None,
        '{"kind":"enrolment","seq":7}',
        spelled(seq=-7),
        spelled(seq=0),
        spelled(seq=True),
        spelled(seq=7.0),
        spelled(seq=10**30),
        spelled(kind=["enrolment"]),
        spelled(at="yesterday"),
        spelled(at=7),
        spelled(at="2026-11-21T12:00:00+00:00"),
        spelled(at="2026-11-21"),
        spelled(call=7),
        spelled(prev="00"[:1]),
        spelled(fields=[]),
        spelled(fields={"a": "\ud800"}),
        spelled(more=1),
        spelled().replace('"kind"', '"kind":"sign-in","kind"'),
        f" {spelled()}",
        json.dumps(RECORD),
    ],
    ids=lambda it: str(it)[:90],
)
def test_a_record_that_no_log_has_written_is_refused(text: Any) -> None:
    with pytest.raises(ExcerptBroken):
        verify_excerpt(uncovered(text), {})
