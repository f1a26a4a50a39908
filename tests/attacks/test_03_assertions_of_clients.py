"""Row 3: nothing in a client's assertion chooses the algorithm or the key that it is believed by."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path
from typing import Any

import pytest

from mcp_authz.rules.keys import PrivateKey, b64url
from mcp_authz.rules.strict_json import dump
from tests.oauth.house import ASSERTION_TYPE, App, House, house, refused
from tests.proofs import EcKey

ATTACKER, EC = PrivateKey.from_seed(bytes(32)), EcKey()
OWN, OWN_EC = PrivateKey.from_seed(bytes(range(32))), EcKey()
JWKS = {"keys": [OWN.public.jwk, OWN_EC.jwk]}


def assertion(h: House, app: App, header: dict[str, Any], sign: Any) -> str:
    """An assertion that is right in everything but its header and its signature."""
    now = int(h.clock().timestamp())
    claims = {"iss": app.id, "sub": app.id, "aud": h.issuer, "iat": now, "exp": now + 60, "jti": "1"}
    signing_input = f"{b64url(dump(header))}.{b64url(dump(claims))}"
    return f"{signing_input}.{b64url(sign(signing_input.encode()))}"


async def attempt(h: House, text: str) -> Any:
    form = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": text}
    data = {"grant_type": "refresh_token", "refresh_token": "x", **form}
    return await h.http.post(f"{h.issuer}/token", data=data)


def macs(secret: bytes) -> Any:
    return lambda message: hmac.digest(secret, message, hashlib.sha512)


@pytest.mark.parametrize(
    ("header", "sign"),
    [
        ({"alg": "none"}, lambda _: b""),
        ({"alg": "none"}, OWN.sign),
        ({"alg": "HS256"}, macs(OWN.public.raw)),
        ({"alg": "EdDSA"}, macs(OWN.public.raw)),
        ({"alg": "ES256"}, macs(dump(OWN_EC.jwk))),
        ({"alg": "ES256"}, OWN.sign),
        ({"alg": "EdDSA"}, OWN_EC.sign),
        ({"alg": "RS256"}, OWN.sign),
        ({"alg": "EdDSA"}, ATTACKER.sign),
        ({"alg": "ES256"}, EC.sign),
        ({"alg": "EdDSA", "jwk": ATTACKER.public.jwk}, ATTACKER.sign),
        ({"alg": "ES256", "jwk": EC.jwk}, EC.sign),
        ({"alg": "EdDSA", "jku": "https://attacker.example/keys"}, ATTACKER.sign),
        ({"alg": "EdDSA", "kid": OWN.public.thumbprint}, ATTACKER.sign),
        ({"alg": "EdDSA", "kid": "../../etc/passwd"}, ATTACKER.sign),
        ({"alg": "EdDSA", "crit": ["exp"]}, OWN.sign),
        ({"alg": "EdDSA", "typ": "at+jwt"}, OWN.sign),
        ({"alg": "EdDSA", "typ": "dpop+jwt"}, OWN.sign),
        ({"alg": "ES256"}, lambda _: bytes(64)),
        ({"alg": "EdDSA"}, lambda _: bytes(64)),
    ],
)
async def test_an_assertion_that_chooses_how_it_is_believed_proves_nobody(
    tmp_path: Path, header: dict[str, Any], sign: Any
) -> None:
    async with house(tmp_path) as h:
        app = await h.client(method="private_key_jwt", jwks=JWKS)
        refused(await attempt(h, assertion(h, app, {"typ": "JWT", **header}, sign)), "invalid_client")


@pytest.mark.parametrize(
    ("header", "sign"),
    [({"alg": "EdDSA"}, OWN.sign), ({"alg": "Ed25519"}, OWN.sign), ({"alg": "ES256"}, OWN_EC.sign)],
)
async def test_the_same_assertion_by_the_clients_own_key_is_believed(
    tmp_path: Path, header: dict[str, Any], sign: Any
) -> None:
    async with house(tmp_path) as h:
        app = await h.client(method="private_key_jwt", jwks=JWKS)
        refused(await attempt(h, assertion(h, app, {"typ": "JWT", **header}, sign)), "invalid_grant")


@pytest.mark.parametrize(
    "jwk",
    [
        {"kty": "oct", "k": ATTACKER.public.jwk["x"]},
        {"kty": "OKP", "crv": "Ed25519", "x": b64url(bytes(32))},  # a point of small order
        {"kty": "OKP", "crv": "X25519", "x": ATTACKER.public.jwk["x"]},
        ATTACKER.to_jwk(),
        {**ATTACKER.public.jwk, "use": "enc"},
        [ATTACKER.public.jwk],
        None,
    ],
    ids=str,
)
async def test_what_is_no_public_key_in_a_clients_key_set_verifies_nothing(tmp_path: Path, jwk: Any) -> None:
    async with house(tmp_path) as h:
        app = await h.client(method="private_key_jwt", jwks={"keys": [jwk]})
        for sign in (ATTACKER.sign, lambda _: b64url(bytes(32)).encode()[:32] + bytes(32), macs(ATTACKER.public.raw)):
            refused(await attempt(h, assertion(h, app, {"alg": "EdDSA", "typ": "JWT"}, sign)), "invalid_client")
