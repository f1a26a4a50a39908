"""Row 3: nothing in a token chooses the algorithm, the key or what the rest of it means."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from typing import Any

import pytest

from mcp_authz.errors import AuthzError, KeyRefused, SignatureRefused
from mcp_authz.rules import jose, strict_json
from mcp_authz.rules.dpop import read_proof
from mcp_authz.rules.keys import PrivateKey, PublicKey, b64url

KEY = PrivateKey.from_seed(bytes(range(32)))
ATTACKER = PrivateKey.from_seed(bytes(32))
CLAIMS = {"sub": "user:alice", "scope": "deploy"}


def token(header: dict[str, Any], *, signer: PrivateKey = KEY, claims: object = CLAIMS) -> str:
    """Return a token with this very header, whose signature over it is right."""
    signing_input = f"{b64url(strict_json.dump(header))}.{b64url(strict_json.dump(claims))}"
    return f"{signing_input}.{b64url(signer.sign(signing_input.encode()))}"


def believed(text: str, *, allow_jwk: bool = False) -> dict[str, Any]:
    return jose.read(text, allow_jwk=allow_jwk).verify(KEY.public, typ="at+jwt")


@pytest.mark.parametrize("alg", ["EdDSA", "Ed25519"])
def test_both_names_of_the_one_algorithm_are_believed(alg: str) -> None:
    assert believed(token({"alg": alg, "typ": "at+jwt"})) == CLAIMS


@pytest.mark.parametrize(
    "alg",
    [
        "none",
        "None",
        "nOnE",
        "",
        "HS256",
        "HS512",
        "RS256",
        "PS256",
        "ES256",
        "ES256K",
        "ES512",
        "Ed448",
        "eddsa",
        "EDDSA",
        "EdDSA ",
        "ed25519",
        None,
        0,
        True,
        [],
        ["EdDSA"],
        {"EdDSA": 1},
    ],
    ids=str,
)
def test_every_other_algorithm_is_refused_though_the_signature_is_right(alg: object) -> None:
    with pytest.raises(SignatureRefused, match="alg"):
        jose.read(token({"alg": alg, "typ": "at+jwt"}))


def test_a_token_without_an_algorithm_is_refused() -> None:
    with pytest.raises(SignatureRefused, match="alg"):
        jose.read(token({"typ": "at+jwt"}))


@pytest.mark.parametrize("alg", ["none", "EdDSA"])
def test_a_token_without_a_signature_is_refused(alg: str) -> None:
    unsigned = token({"alg": alg, "typ": "at+jwt"}).rpartition(".")[0]
    for text in (unsigned, unsigned + ".", unsigned + "." + b64url(bytes(64))):
        with pytest.raises(SignatureRefused):
            believed(text)


@pytest.mark.parametrize("alg", ["HS256", "EdDSA"])
@pytest.mark.parametrize(
    "secret",
    [
        KEY.public.raw,
        KEY.public.jwk["x"].encode(),
        strict_json.dump(KEY.public.jwk),
        KEY.public.thumbprint.encode(),
        b"",
    ],
)
def test_a_mac_keyed_with_the_public_key_is_refused(alg: str, secret: bytes) -> None:
    signing_input = token({"alg": alg, "typ": "at+jwt"}).rpartition(".")[0]
    for mac in (hmac.digest(secret, signing_input.encode(), name) for name in (hashlib.sha256, hashlib.sha512)):
        with pytest.raises(SignatureRefused):
            believed(f"{signing_input}.{b64url(mac)}")


@pytest.mark.parametrize(
    "jwk",
    [
        {"kty": "OKP", "crv": "Ed448", "x": b64url(bytes(57))},
        {"kty": "OKP", "crv": "X25519", "x": KEY.public.jwk["x"]},
        {"kty": "EC", "crv": "P-256", "x": b64url(bytes(32)), "y": b64url(bytes(32))},
        {"kty": "oct", "k": KEY.public.jwk["x"]},
        {"kty": "RSA", "n": "AQAB", "e": "AQAB"},
        KEY.to_jwk(),
    ],
    ids=lambda jwk: f"{jwk['kty']} {jwk.get('crv', '')}",
)
def test_a_key_of_another_curve_or_kind_is_no_key_even_where_a_key_may_be_shown(jwk: dict[str, str]) -> None:
    shown = jose.read(token({"alg": "EdDSA", "typ": "dpop+jwt", "jwk": jwk}), allow_jwk=True)
    with pytest.raises(KeyRefused):
        PublicKey.from_jwk(shown.header["jwk"])


@pytest.mark.parametrize(
    "brought",
    [
        {"jwk": ATTACKER.public.jwk},
        {"jku": "https://attacker.example/keys"},
        {"x5u": "https://attacker.example/cert"},
        {"x5c": ["MIIB"]},
        {"jwk": None},
        {"jku": None},
        {"x5u": ""},
        {"x5c": []},
    ],
    ids=str,
)
def test_a_token_that_brings_its_own_key_is_refused(brought: dict[str, object]) -> None:
    for signer in (ATTACKER, KEY):
        with pytest.raises(SignatureRefused, match="keys come from the registry"):
            jose.read(token({"alg": "EdDSA", "typ": "at+jwt", **brought}, signer=signer))


@pytest.mark.parametrize("brought", [{"jku": "https://attacker.example"}, {"x5u": "x"}, {"x5c": []}], ids=str)
def test_where_a_key_may_be_shown_no_other_source_of_keys_is_accepted(brought: dict[str, object]) -> None:
    header = {"alg": "EdDSA", "typ": "dpop+jwt", "jwk": KEY.public.jwk, **brought}
    with pytest.raises(SignatureRefused):
        jose.read(token(header), allow_jwk=True)


@pytest.mark.parametrize("jwk", [None, "x", [KEY.public.jwk], 1], ids=str)
def test_a_shown_key_is_an_object(jwk: object) -> None:
    with pytest.raises(SignatureRefused):
        jose.read(token({"alg": "EdDSA", "jwk": jwk}), allow_jwk=True)


def test_a_shown_key_is_not_the_key_that_verifies() -> None:
    forged = token({"alg": "EdDSA", "typ": "at+jwt", "jwk": ATTACKER.public.jwk}, signer=ATTACKER)
    with pytest.raises(SignatureRefused, match="not made with this key"):
        believed(forged, allow_jwk=True)


@pytest.mark.parametrize(
    "extension",
    [
        {"crit": []},
        {"crit": ["exp"]},
        {"crit": ["b64"], "b64": False},
        {"b64": False},
        {"b64": True},
        {"zip": "DEF"},
        {"enc": "A256GCM"},
        {"crit": None},
    ],
    ids=str,
)
def test_an_extension_that_changes_the_meaning_is_refused(extension: dict[str, object]) -> None:
    with pytest.raises(SignatureRefused, match="not supported"):
        jose.read(token({"alg": "EdDSA", "typ": "at+jwt", **extension}))


def test_a_header_parameter_that_means_nothing_here_is_ignored() -> None:
    assert believed(token({"alg": "EdDSA", "typ": "at+jwt", "cty": "x", "x5t": "y", "new": {"a": 1}})) == CLAIMS


@pytest.mark.parametrize("kid", ["../../etc/passwd", "' OR 1=1 --", "\u202e", "a" * 1024])
def test_a_key_id_is_text_that_is_only_looked_up(kid: str) -> None:
    assert jose.read(token({"alg": "EdDSA", "kid": kid})).kid == kid


@pytest.mark.parametrize("kid", [None, 1, ["a"], {"a": 1}, True, "a" * 1025], ids=lambda kid: type(kid).__name__)
def test_a_key_id_that_is_no_sensible_text_is_refused(kid: object) -> None:
    with pytest.raises(SignatureRefused, match="kid"):
        jose.read(token({"alg": "EdDSA", "kid": kid}))


TWO_SUBJECTS = b64url(b'{"sub":"bob","sub":"alice"}')
GOOD = token({"alg": "EdDSA", "typ": "at+jwt"})
HEADER, PAYLOAD, SIGNATURE = GOOD.split(".")


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "...",
        GOOD + ".",
        "." + GOOD,
        f"{GOOD}.{SIGNATURE}",
        f"{HEADER}..{SIGNATURE}",
        f"{HEADER}=.{PAYLOAD}.{SIGNATURE}",
        f"{HEADER}.{PAYLOAD}.{SIGNATURE}==",
        f"{HEADER}.{PAYLOAD}.{SIGNATURE[:-1]}",
        f"{HEADER}.{PAYLOAD}.{SIGNATURE}\n",
        f" {GOOD}",
        GOOD.replace(".", " . "),
        f"{HEADER}.{PAYLOAD}.{b64url(bytes(63))}",
        f"{b64url(b'[]')}.{PAYLOAD}.{SIGNATURE}",
        f"{HEADER}.{b64url(b'null')}.{SIGNATURE}",
        f"{HEADER}.{b64url(b'{}x')}.{SIGNATURE}",
        f"\u00e9{GOOD}",
        '{"payload":"e30","protected":"e30","signature":""}',
        "a.b.c.d.e",
        "." * 10_000,
    ],
)
def test_what_is_no_compact_jws_in_its_one_spelling_is_refused(text: str) -> None:
    with pytest.raises(SignatureRefused):
        jose.read(text)


def test_a_signature_with_a_superfluous_bit_is_refused() -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    at = alphabet.index(SIGNATURE[-1])
    respelt = {alphabet[at & 0b110000 | bits] for bits in range(16)} - {SIGNATURE[-1]}
    assert len(respelt) == 15
    for last in respelt:
        with pytest.raises(SignatureRefused):
            jose.read(GOOD[:-1] + last)


@pytest.mark.parametrize(
    "header", [b'{"alg":"none","alg":"EdDSA"}', b'{"alg":"EdDSA","alg":"EdDSA"}', b'{"alg":"EdDSA","\\u0061lg":"none"}']
)
def test_a_header_with_two_algorithms_is_refused(header: bytes) -> None:
    with pytest.raises(SignatureRefused, match="same key twice"):
        jose.read(f"{b64url(header)}.{PAYLOAD}.{SIGNATURE}")


def test_claims_with_a_key_twice_are_refused() -> None:
    with pytest.raises(SignatureRefused, match="same key twice"):
        jose.read(f"{HEADER}.{TWO_SUBJECTS}.{SIGNATURE}")


@pytest.mark.parametrize("part", [0, 1, 2])
def test_a_token_with_a_part_of_another_token_is_refused(part: int) -> None:
    parts = GOOD.split(".")
    parts[part] = token({"alg": "Ed25519", "typ": "at+jwt"}, claims={"sub": "user:bob"}).split(".")[part]
    with pytest.raises(AuthzError):
        believed(".".join(parts))


def test_a_token_is_bounded_before_it_is_read() -> None:
    with pytest.raises(SignatureRefused, match="longer than 10 bytes"):
        jose.read(GOOD, max_bytes=10)
    assert jose.read(GOOD, max_bytes=len(GOOD)).claims == CLAIMS


SHOWN = {"alg": "EdDSA", "typ": "dpop+jwt", "jwk": KEY.public.jwk}
NOW = datetime(2026, 9, 1, tzinfo=UTC)
ONE_REQUEST = {"jti": "1", "htm": "POST", "htu": "https://gate.example/token", "iat": int(NOW.timestamp())}


def possessed(header: dict[str, Any], *, signer: PrivateKey = KEY) -> str:
    """The key that a proof of possession with this header shows."""
    text = token(header, signer=signer, claims=ONE_REQUEST)
    url = "https://gate.example/token"
    return read_proof(text, method="POST", url=url, now=NOW, access_token=None, nonces=None).key


@pytest.mark.parametrize(
    "header",
    [
        {"alg": "none"},
        {"alg": "HS256"},
        {"alg": "RS256"},
        {"alg": "ES256"},
        {"alg": "Ed448"},
        {"alg": ["EdDSA"]},
        {"jwk": ATTACKER.public.jwk},
        {"jwk": KEY.to_jwk()},
        {"jwk": {"kty": "oct", "k": KEY.public.jwk["x"]}},
        {"jwk": {"kty": "RSA", "n": "AQAB", "e": "AQAB"}},
        {"jwk": None},
        {"jku": "https://attacker.example/keys"},
        {"x5u": "https://attacker.example/cert"},
        {"x5c": ["MIIB"]},
        {"crit": ["jwk"]},
        {"b64": False},
        {"kid": 1},
    ],
    ids=str,
)
def test_the_header_of_a_proof_of_possession_chooses_no_more_than_one_public_key(header: dict[str, Any]) -> None:
    assert possessed(SHOWN) == KEY.public.thumbprint
    with pytest.raises(SignatureRefused):
        possessed({**SHOWN, **header})


def test_a_key_id_beside_the_shown_key_changes_nothing() -> None:
    assert possessed({**SHOWN, "kid": ATTACKER.public.thumbprint}) == KEY.public.thumbprint
    with pytest.raises(SignatureRefused):
        possessed({**SHOWN, "kid": ATTACKER.public.thumbprint}, signer=ATTACKER)
