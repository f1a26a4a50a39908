"""The keys by which an identity provider signs: which key counts for which key id and algorithm."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.errors import InputError, KeyRefused, SignatureRefused
from mcp_authz.rules import jose, rsa, strict_json
from mcp_authz.rules.es256 import ALGORITHM as ES256
from mcp_authz.rules.es256 import P256Key
from mcp_authz.rules.jose import UnverifiedJws, Verifier
from mcp_authz.rules.keys import PublicKey
from mcp_authz.rules.rsa import RsaKey

AssertionKeys = Mapping[tuple[str, str], Verifier]
"""(`kid`, `alg`) -> key: a key counts for the algorithms of its own type, and a token cannot ask for another."""

ED25519: Final = ("EdDSA", "Ed25519")  # two names of one algorithm
ALGORITHMS: Final = frozenset({*rsa.ALGORITHMS, ES256, *ED25519})


def read_keys(raw: bytes) -> AssertionKeys:
    """Return the keys of a JWK Set (RFC 7517 section 5) that can verify here.

    Keys for another use, of another type or curve, without an id, too short or malformed are passed over: a provider
    publishes keys for all its clients.

    Raises:
        InputError: it is no JWK Set, has no such key, or two for one id and algorithm.
    """
    members = strict_json.parse_object(raw, max_bytes=limits.METADATA_BYTES).get("keys")
    if not isinstance(members, list):
        raise InputError("there is no JWK Set: the list `keys` is missing")
    keys: dict[tuple[str, str], Verifier] = {}
    for member in members:
        for kid, algorithm, key in _usable(member):
            if keys.setdefault((kid, algorithm), key) != key:
                raise InputError(f"the JWK Set has two keys of one id for {algorithm}")
    if not keys:
        raise InputError("the JWK Set has no key with an id for RS256, PS256, ES256 or Ed25519")
    return keys


def read_signed(text: str) -> UnverifiedJws:
    """Return the parts of something that a provider signed; nothing of it is verified.

    Raises:
        SignatureRefused: the form is broken, the algorithm is none of these, or the header brings a key.
    """
    return jose.read(text, algorithms=ALGORITHMS)


def key_of(unverified: UnverifiedJws, keys: AssertionKeys) -> Verifier | None:
    """Return the provider's own key by which this claims to be signed, if it has one for that algorithm."""
    return keys.get((unverified.kid or "", str(unverified.header["alg"])))


def require_key(unverified: UnverifiedJws, keys: AssertionKeys) -> Verifier:
    """Return what `key_of` does.

    Raises:
        SignatureRefused: there is no such key.
    """
    key = key_of(unverified, keys)
    if key is None:
        raise SignatureRefused("its `kid` is not a key of the provider for its `alg`")
    return key


def _usable(jwk: object) -> Iterator[tuple[str, str, Verifier]]:
    """The key with its id, once for each name of its algorithm."""
    if not isinstance(jwk, dict) or not isinstance(jwk.get("kid"), str) or not jwk["kid"]:
        return
    try:
        names, key = _read(jwk)
    except KeyRefused:
        return
    for name in names:
        yield jwk["kid"], name, key


def _read(jwk: Mapping[str, Any]) -> tuple[tuple[str, ...], Verifier]:
    match jwk.get("kty"):
        case "RSA":
            key = RsaKey.from_jwk(jwk)
            return (key.algorithm,), key
        case "EC":
            return (ES256,), P256Key.from_jwk(jwk)
        case "OKP":
            return ED25519, PublicKey.from_jwk(jwk)
    raise KeyRefused("the JWK is of no type that is known here")
