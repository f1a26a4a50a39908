"""Excerpts of a log: what is in it is shown with public keys alone, and nothing else passes for it."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import Any

import pytest

from mcp_authz.errors import InputError, SignatureRefused
from mcp_authz.rules.checkpoint import FIRST, Checkpoint, Head, sign_checkpoint
from mcp_authz.rules.excerpt import ExcerptBroken, entry, excerpt, verify_excerpt
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.log import GENESIS, record_bytes, record_hash
from mcp_authz.rules.merkle import root

KEY = PrivateKey.from_seed(bytes(range(32)))
KEYS = {KEY.public.thumbprint: KEY.public}
AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
AFTER, UNTIL = 3, 10


def a_log() -> list[bytes]:
    """Twelve records, of which a checkpoint covers 4 to 10."""
    records, previous = list[bytes](), GENESIS
    for sequence in range(1, 13):
        kind, fields = ("decision", "outcome")[sequence % 2], {"number": sequence}
        records.append(
            record_bytes(sequence=sequence, previous=previous, kind=kind, at=AT, call=f"c_{sequence}", fields=fields)
        )
        previous = record_hash(records[-1])
    return records


def an_excerpt(*sequences: int) -> dict[str, Any]:
    log = a_log()
    hashes = [record_hash(body) for body in log]
    covered = hashes[AFTER:UNTIL]
    head = Head(chain=hashes[0], sequence=UNTIL, hash=hashes[UNTIL - 1], after=AFTER, root=root(covered))
    made = Checkpoint(number=2, previous=FIRST, issuer="https://authz.example.com", at=AT, heads=(head,))
    entries = [
        entry(log[one - 1], sequence=one, after=AFTER, hashes=covered) for one in sequences if AFTER < one <= UNTIL
    ]
    newer = [log[one - 1] for one in sequences if one > UNTIL]
    return excerpt({sign_checkpoint(made, KEY): entries}, newer, gateway=made.issuer, evidence={})


def test_what_a_checkpoint_covers_is_shown_and_what_is_newer_is_said_to_be_the_gateways_word() -> None:
    shown = verify_excerpt(json.loads(json.dumps(an_excerpt(4, 7, 10, 12))), KEYS)
    assert [one.sequence for one in shown] == [4, 7, 10, 12]
    assert [one.checkpoint.number if one.checkpoint else None for one in shown] == [2, 2, 2, None]
    assert shown[1].body["fields"] == {"number": 7} and shown[1].kind == "outcome"


def test_every_byte_of_a_covered_record_and_of_its_path_matters() -> None:
    whole = an_excerpt(7)
    (part,) = whole["checkpoints"]
    (one,) = part["records"]
    for name in ("record", "path"):
        texts = [one[name]] if name == "record" else one[name]
        for index, text in enumerate(texts):
            for position in range(len(text)):
                altered = copy.deepcopy(whole)
                changed = text[:position] + ("0" if text[position] != "0" else "1") + text[position + 1 :]
                place = altered["checkpoints"][0]["records"][0]
                if name == "record":
                    place[name] = changed
                else:
                    place[name][index] = changed
                with pytest.raises(InputError):
                    verify_excerpt(altered, KEYS)


def test_a_record_of_elsewhere_a_record_twice_and_a_checkpoint_by_another_key_are_refused() -> None:
    whole, log = an_excerpt(7), a_log()
    foreign = copy.deepcopy(whole)
    foreign["checkpoints"][0]["records"][0]["record"] = log[1].decode()
    with pytest.raises(ExcerptBroken, match="is not in the log"):
        verify_excerpt(foreign, KEYS)
    twice = copy.deepcopy(whole)
    twice["checkpoints"][0]["records"] *= 2
    with pytest.raises(ExcerptBroken, match="twice"):
        verify_excerpt(twice, KEYS)
    with pytest.raises(SignatureRefused):
        verify_excerpt(whole, {})


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"format": "another"},
        {"format": "mcp-authz audit excerpt 1"},
        {"format": "mcp-authz audit excerpt 1", "checkpoints": 5, "uncovered": []},
        {"format": "mcp-authz audit excerpt 1", "checkpoints": [{}], "uncovered": []},
        {"format": "mcp-authz audit excerpt 1", "checkpoints": [], "uncovered": ["["]},
        {"format": "mcp-authz audit excerpt 1", "checkpoints": [], "uncovered": ["[]"]},
        {"format": "mcp-authz audit excerpt 1", "checkpoints": [], "uncovered": ['{"seq":true,"kind":"x"}']},
    ],
    ids=str,
)
def test_what_is_no_excerpt_is_refused_with_a_sentence(document: Any) -> None:
    with pytest.raises(ExcerptBroken):
        verify_excerpt(document, KEYS)
