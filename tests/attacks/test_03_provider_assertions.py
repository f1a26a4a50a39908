"""Row 3, for what an identity provider signs: the key is the provider's own, and the key says which algorithm."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc.jwk import ECKey, Key, OKPKey

from mcp_authz.errors import SignatureRefused
from mcp_authz.rules.assertion_keys import read_keys
from mcp_authz.rules.id_jag import Expected, read_assertion
from mcp_authz.rules.keys import b64url
from tests.identity_provider import EC, ED, OTHER_RSA, RSA, IdentityProvider, public, signed

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
PROVIDER = IdentityProvider(issuer="https://login.example.com", clock=lambda: NOW)
EXPECTED = Expected(
    issuer=PROVIDER.issuer,
    audience="https://gate.example.com",
    resource="https://gate.example.com/mcp",
    client="cursor",
    tenant=None,
)
PUBLISHED = [public(RSA), public(EC), public(ED)]
CLAIMS = PROVIDER.claims("U1", EXPECTED.audience, "cursor")


def believed(text: str) -> bool:
    keys = read_keys(json.dumps({"keys": PUBLISHED}).encode())
    try:
        read_assertion(text, keys=keys, expected=EXPECTED, now=NOW)
    except SignatureRefused:
        return False
    return True


def by_hand(header: dict[str, Any], secret: bytes | None = None) -> str:
    """A token with this header, and a MAC over it with this secret, or nothing for a signature."""
    head = {"typ": "oauth-id-jag+jwt", "kid": "rsa-1", **header}
    text = f"{b64url(json.dumps(head).encode())}.{b64url(json.dumps(CLAIMS).encode())}"
    mac = b"" if secret is None else hmac.new(secret, text.encode(), hashlib.sha256).digest()
    return f"{text}.{b64url(mac)}"


def test_what_the_provider_signs_is_believed() -> None:
    assert believed(signed(CLAIMS))
    assert believed(signed(CLAIMS, key=EC, alg="ES256")) and believed(signed(CLAIMS, key=ED, alg="EdDSA"))


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "", None, "RS256", "HS256"])
def test_without_a_signature_nothing_is_believed(alg: Any) -> None:
    assert not believed(by_hand({"alg": alg}))


@pytest.mark.parametrize("alg", ["HS256", "RS256", "PS256", "ES256", "EdDSA"])
@pytest.mark.parametrize("form", ["pem", "der", "jwk", "n"])
def test_a_public_key_is_nobodys_secret(alg: str, form: str) -> None:
    n = str(public(RSA)["n"])
    secret = {
        "pem": RSA.as_pem(private=False),
        "der": RSA.as_der(private=False),
        "jwk": json.dumps(RSA.as_dict(private=False)).encode(),
        "n": n.encode(),
    }[form]
    assert not believed(by_hand({"alg": alg}, secret))


@pytest.mark.parametrize(
    ("key", "alg"),
    [(RSA, "PS256"), (RSA, "RS512"), (ECKey.generate_key("P-384", parameters={"kid": "ec-1"}), "ES384")],
    ids=["ps256", "rs512", "es384"],
)
def test_a_key_signs_by_no_other_algorithm_than_its_own(key: Key, alg: str) -> None:
    assert not believed(signed(CLAIMS, key=key, alg=alg))


@pytest.mark.parametrize(("alg", "accepted"), [("RS256", True), ("PS256", False), ("ES256", False), ("EdDSA", False)])
def test_a_right_signature_under_the_name_of_another_algorithm_does_not_count(alg: str, accepted: bool) -> None:
    text = by_hand({"alg": alg}).removesuffix(".")
    signature = RSA.get_op_key("sign").sign(text.encode(), PKCS1v15(), SHA256())  # of RS256, whatever the header says
    assert believed(f"{text}.{b64url(signature)}") is accepted


@pytest.mark.parametrize("alg", ["RS256", "PS256", "ES256", "EdDSA", "Ed25519"])
@pytest.mark.parametrize("kid", ["rsa-1", "ec-1", "ed-1"])
def test_a_key_of_somebody_else_counts_under_no_name(alg: str, kid: str) -> None:
    forger: Key = OTHER_RSA
    if alg == "ES256":
        forger = ECKey.generate_key("P-256")
    elif alg in {"EdDSA", "Ed25519"}:
        forger = OKPKey.generate_key("Ed25519")
    assert not believed(signed(CLAIMS, key=forger, alg=alg, kid=kid))


@pytest.mark.parametrize(
    "header",
    [
        {"jwk": public(OTHER_RSA)},
        {"jku": "https://login.example.com.evil.example/keys"},
        {"x5u": "https://evil.example/chain"},
        {"x5c": ["MIIB"]},
        {"crit": ["exp"]},
        {"crit": []},
        {"zip": "DEF"},
        {"enc": "A256GCM"},
    ],
    ids=lambda header: next(iter(header)),
)
@pytest.mark.parametrize("signer", [RSA, OTHER_RSA], ids=["theirs", "another"])
def test_an_assertion_brings_no_key_and_no_rule_of_its_own(header: dict[str, Any], signer: Key) -> None:
    assert not believed(signed(CLAIMS, key=signer, **{"kid": "rsa-1", **header}))


@pytest.mark.parametrize("key", [RSA, EC, ED], ids=["rsa", "ec", "ed"])
def test_a_signature_has_one_spelling(key: Key) -> None:
    alg = {"rsa-1": "RS256", "ec-1": "ES256", "ed-1": "EdDSA"}[str(key.kid)]
    text = signed(CLAIMS, key=key, alg=alg)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(text[-1])
    assert believed(text)
    for other in (text + "=", text + "==", text + "A", text[:-1] + alphabet[last ^ 1], " " + text, text + "\n"):
        assert not believed(other)
    head, claims, signature = text.split(".")
    assert not believed(f"{head}.{claims}.{signature}.{signature}")
    assert not believed(f"{head}=.{claims}.{signature}")
    assert not believed(f"{head}.{claims}.")
    assert not believed(f"{head}.{claims}.{b64url(bytes(256))}")
