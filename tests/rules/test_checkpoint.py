"""Checkpoints: what is signed, how they follow from one another, and what they find in a log that was changed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from mcp_authz.errors import SignatureRefused
from mcp_authz.rules import jose
from mcp_authz.rules.checkpoint import (
    FIRST,
    TYP,
    Checkpoint,
    Head,
    checkpoint_digest,
    first_disagreement,
    first_gap,
    read_checkpoint,
    sign_checkpoint,
)
from mcp_authz.rules.keys import PrivateKey

KEY = PrivateKey.from_seed(bytes(range(32)))
KEYS = {KEY.public.thumbprint: KEY.public}
AT = datetime(2026, 11, 21, 12, tzinfo=UTC)
CHAIN = bytes([7]) * 32
HEAD = {"chain": "ab" * 32, "seq": 1, "hash": "ab" * 32, "after": 0, "root": "ab" * 32}


def hash_at(sequence: int) -> bytes | None:
    """The log of these tests: a hundred records."""
    return CHAIN if sequence == 1 else bytes([sequence]) * 32 if 1 < sequence <= 100 else None


def kept(*sequences: int) -> tuple[list[str], list[Checkpoint]]:
    """Checkpoints at these records, each following from the one before."""
    texts, checkpoints, previous = list[str](), list[Checkpoint](), FIRST
    for number, sequence in enumerate(sequences, start=1):
        head = Head(chain=CHAIN, sequence=sequence, hash=hash_at(sequence) or b"", after=0, root=bytes(32))
        at = AT + number * timedelta(minutes=10)
        one = Checkpoint(number=number, previous=previous, issuer="https://authz.example.com", at=at, heads=(head,))
        checkpoints.append(one)
        texts.append(sign_checkpoint(one, KEY))
        previous = checkpoint_digest(texts[-1])
    return texts, checkpoints


def test_a_checkpoint_is_read_as_it_was_signed() -> None:
    texts, checkpoints = kept(10, 20, 100)
    assert [read_checkpoint(text, KEYS) for text in texts] == checkpoints
    assert first_gap(texts, checkpoints) is None
    assert first_disagreement(checkpoints, chain=CHAIN, hash_at=hash_at) is None


def test_no_checkpoint_counts_that_another_key_signed_or_that_was_altered_anywhere() -> None:
    (text,), (checkpoint,) = kept(10)
    with pytest.raises(SignatureRefused, match="not among those given"):
        read_checkpoint(sign_checkpoint(checkpoint, PrivateKey.from_seed(bytes(32))), KEYS)
    for position in range(len(text)):
        other = "A" if text[position] != "A" else "B"
        with pytest.raises(SignatureRefused):
            read_checkpoint(text[:position] + other + text[position + 1 :], KEYS)


@pytest.mark.parametrize(
    "claims",
    [
        {"heads": []},
        {"heads": [1]},
        {"n": True},
        {"n": -1},
        {"prev": "00"},
        {"prev": "G" * 64},
        {"heads": [{**HEAD, "chain": "AB" * 32}]},
        {"heads": [{**HEAD, "seq": "1"}]},
        {"heads": [{**HEAD, "root": None}]},
        {"heads": [{**HEAD, "after": -1}]},
        {"iss": ""},
    ],
    ids=str,
)
def test_what_is_signed_but_no_checkpoint_is_refused(claims: dict[str, object]) -> None:
    whole = {
        "iss": "https://authz.example.com",
        "iat": 1,
        "n": 1,
        "prev": FIRST.hex(),
        "heads": [HEAD],
    }
    good = jose.sign(whole, typ=TYP, key=KEY, kid=KEY.public.thumbprint)
    assert read_checkpoint(good, KEYS).number == 1
    text = jose.sign({**whole, **claims}, typ=TYP, key=KEY, kid=KEY.public.thumbprint)
    with pytest.raises(SignatureRefused):
        read_checkpoint(text, KEYS)


def test_a_checkpoint_that_was_left_out_repeated_or_swapped_shows() -> None:
    texts, checkpoints = kept(10, 20, 30, 40)
    for order in ([0, 2, 3], [0, 1, 1, 2], [1, 0, 2, 3], [0, 1, 3]):
        found = first_gap([texts[i] for i in order], [checkpoints[i] for i in order])
        assert found is not None, order
    assert first_gap(texts[2:], checkpoints[2:]) is None  # the first ones may not have been kept
    forged = replace(checkpoints[0], previous=bytes([1]) * 32)
    assert first_gap([texts[0]], [forged]) is not None


def test_a_checkpoint_of_a_fork_with_the_same_number_shows() -> None:
    texts, checkpoints = kept(10, 20, 30)
    fork = replace(checkpoints[1], at=AT)
    assert first_gap([texts[0], sign_checkpoint(fork, KEY), texts[2]], [checkpoints[0], fork, checkpoints[2]])


def test_a_log_that_was_cut_written_anew_or_exchanged_is_not_what_the_checkpoint_says() -> None:
    _, checkpoints = kept(10, 20, 100)

    def cut(sequence: int) -> bytes | None:
        return hash_at(sequence) if sequence < 100 else None

    def anew(sequence: int) -> bytes | None:
        return hash_at(sequence) if sequence < 15 else bytes([200]) * 32

    found = first_disagreement(checkpoints, chain=CHAIN, hash_at=cut)
    assert found is not None and found.sequence == 100 and "cut" in found.why
    found = first_disagreement(checkpoints, chain=CHAIN, hash_at=anew)
    assert found is not None and found.sequence == 20 and "anew" in found.why
    found = first_disagreement(checkpoints, chain=bytes(32), hash_at=hash_at)
    assert found is not None and "another log" in found.why
