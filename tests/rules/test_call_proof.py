"""Proofs of one call: whatever of the call, the signer or the moment is another, the proof is of nothing."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mcp_authz.errors import SignatureRefused
from mcp_authz.rules import jose
from mcp_authz.rules.call_proof import TYP, CallProof, Proved, prove_call, read_call_proof
from mcp_authz.rules.canonical import canonical
from mcp_authz.rules.keys import PrivateKey, b64url
from mcp_authz.rules.strict_json import dump

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
KEY, OTHER = PrivateKey.from_seed(b"\x01" * 32), PrivateKey.from_seed(b"\x02" * 32)
CALL = Proved(
    link="0199a3c0-0000-7000-8000-000000000001",
    tool="acme__deploy",
    arguments={"repo": "api", "environment": "staging", "count": 2, "when": {"at": None}},
    audience="https://gateway.example/mcp",
)


def read(proof: str, call: Proved = CALL, *, now: datetime = NOW, key: PrivateKey = KEY) -> CallProof:
    return read_call_proof(proof, call, holder=key.public, now=now)


def test_a_proof_is_of_exactly_its_call() -> None:
    proof = prove_call(CALL, id="p1", at=NOW, key=KEY)
    assert read(proof) == CallProof(id="p1", expires_at=NOW + timedelta(seconds=30))
    same = replace(CALL, arguments={"when": {"at": None}, "count": 2.0, "environment": "staging", "repo": "api"})
    assert read(proof, same).id == "p1"  # another order, another spelling of the same number


def test_the_bytes_of_a_proof_are_pinned() -> None:
    proof = prove_call(CALL, id="p1", at=NOW, key=KEY)
    claims = jose.read(proof).claims
    assert claims.keys() == {"jti", "iat", "aat_id", "aat_tool", "aat_aud", "hta"}
    assert hashlib.sha256(proof.encode()).hexdigest()[:32] == PINNED


PINNED = "1d147c2321116a2d0af367efd9778b87"  # of SHA-256, hex


@pytest.mark.parametrize(
    "change",
    [
        {"link": "0199a3c0-0000-7000-8000-000000000002"},
        {"tool": "acme__delete"},
        {"audience": "https://other.example/mcp"},
        {"arguments": {**CALL.arguments, "environment": "production"}},
        {"arguments": {**CALL.arguments, "count": 3}},
        {"arguments": {**CALL.arguments, "more": 1}},
        {"arguments": {"repo": "api"}},
        {"arguments": {}},
    ],
    ids=["link", "tool", "audience", "value", "number", "more", "fewer", "none"],
)
def test_a_proof_of_one_call_is_none_of_another(change: dict[str, Any]) -> None:
    proof = prove_call(CALL, id="p1", at=NOW, key=KEY)
    with pytest.raises(SignatureRefused, match="another call"):
        read(proof, replace(CALL, **change))


def test_a_proof_of_somebody_else_is_none() -> None:
    with pytest.raises(SignatureRefused):
        read(prove_call(CALL, id="p1", at=NOW, key=OTHER))


@pytest.mark.parametrize("seconds", [-31, 31], ids=["old", "of-the-future"])
def test_a_proof_is_of_this_moment(seconds: int) -> None:
    proof = prove_call(CALL, id="p1", at=NOW + timedelta(seconds=seconds), key=KEY)
    with pytest.raises(SignatureRefused, match="just now"):
        read(proof)


def test_a_token_of_another_kind_is_no_proof() -> None:
    claims = jose.read(prove_call(CALL, id="p1", at=NOW, key=KEY)).claims
    for typ in ("aat+jwt", "at+jwt", "dpop+jwt", "JWT"):
        with pytest.raises(SignatureRefused, match="typ"):
            read(jose.sign(claims, typ=typ, key=KEY))


@pytest.mark.parametrize("spoilt", [{"jti": None}, {"jti": ""}, {"iat": None}, {"iat": True}, {"extra": 1}])
def test_a_claim_too_few_or_too_many_is_refused(spoilt: dict[str, Any]) -> None:
    claims = {**jose.read(prove_call(CALL, id="p1", at=NOW, key=KEY)).claims, **spoilt}
    with pytest.raises(SignatureRefused):
        read(jose.sign({k: v for k, v in claims.items() if v is not None}, typ=TYP, key=KEY))


def test_a_proof_in_another_spelling_is_refused() -> None:
    claims = jose.read(prove_call(CALL, id="p1", at=NOW, key=KEY)).claims
    header, payload = dump({"alg": "EdDSA", "typ": TYP}), dump(dict(reversed(claims.items())))
    assert payload != canonical(dict(claims))
    signed = f"{b64url(header)}.{b64url(payload)}"
    with pytest.raises(SignatureRefused, match="canonical"):
        read(f"{signed}.{b64url(KEY.sign(signed.encode()))}")


def test_large_arguments_are_proved_by_their_digest() -> None:
    large = replace(CALL, arguments={"content": "x" * 100_000})
    proof = prove_call(large, id="p1", at=NOW, key=KEY)
    assert len(proof) < 1_000 and read(proof, large).id == "p1"
    with pytest.raises(SignatureRefused, match="another call"):
        read(proof, replace(CALL, arguments={"content": "x" * 99_999 + "y"}))
    small = jose.read(prove_call(CALL, id="p1", at=NOW, key=KEY)).claims
    digest = {**small, "hta_s256": b64url(hashlib.sha256(canonical(dict(CALL.arguments))).digest())}
    del digest["hta"]
    with pytest.raises(SignatureRefused, match="another call"):  # one form for one call
        read(jose.sign(digest, typ=TYP, key=KEY))
