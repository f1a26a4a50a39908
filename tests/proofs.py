"""Proofs of possession as a client makes them, and as an attacker would: any header, any claims, any key."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import httpx2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from mcp_authz.ids import new_id
from mcp_authz.rules import strict_json
from mcp_authz.rules.keys import PrivateKey, b64url
from tests.world import MODERN, Actor, World, modern_call

PULL = {"owner": "acme", "repo": "api"}
CALL = modern_call("acme__list_pull_requests", PULL)
LIST = {**CALL, "method": "tools/list", "params": {"_meta": CALL["params"]["_meta"]}}


OUT: Final = object()
"""In the place of a value: the member is left out."""


class EcKey:
    """A private key of P-256, as browsers and stock clients make them."""

    def __init__(self, curve: ec.EllipticCurve | None = None) -> None:
        self._key = ec.generate_private_key(curve or ec.SECP256R1())
        self.size = (self._key.key_size + 7) // 8

    @property
    def jwk(self) -> dict[str, str]:
        """The public key, its coordinates in full size."""
        numbers = self._key.public_key().public_numbers()
        x, y = (b64url(number.to_bytes(self.size)) for number in (numbers.x, numbers.y))
        return {"kty": "EC", "crv": f"P-{self._key.key_size}", "x": x, "y": y}

    @property
    def private_jwk(self) -> dict[str, str]:
        """The private key."""
        return {**self.jwk, "d": b64url(self._key.private_numbers().private_value.to_bytes(self.size))}

    @property
    def thumbprint(self) -> str:
        """RFC 7638, from the JWK itself."""
        members = {name: self.jwk[name] for name in sorted(("crv", "kty", "x", "y"))}
        return b64url(hashlib.sha256(strict_json.dump(members)).digest())

    def sign(self, message: bytes) -> bytes:
        """R and S, each in full size (RFC 7518 section 3.4)."""
        r, s = decode_dss_signature(self._key.sign(message, ec.ECDSA(SHA256())))
        return r.to_bytes(self.size) + s.to_bytes(self.size)


AnyKey = PrivateKey | EcKey


def public_of(key: AnyKey) -> dict[str, str]:
    """The public key as a JWK."""
    return key.jwk if isinstance(key, EcKey) else key.public.jwk


def thumbprint_of(key: AnyKey) -> str:
    """The `jkt` of tokens that are bound to the key."""
    return key.thumbprint if isinstance(key, EcKey) else key.public.thumbprint


def forge(header: Mapping[str, Any], claims: Mapping[str, Any], key: AnyKey) -> str:
    """A compact JWS of this header and these claims, whatever they say."""
    parts = [{name: value for name, value in part.items() if value is not OUT} for part in (header, claims)]
    signing_input = ".".join(b64url(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
    return f"{signing_input}.{b64url(key.sign(signing_input.encode()))}"


def proof(
    key: AnyKey,
    *,
    url: str,
    at: datetime,
    method: str = "POST",
    token: str | None = None,
    header: Mapping[str, Any] | None = None,
    **claims: Any,
) -> str:
    """A proof for one request; `header` and `claims` replace what would be in it."""
    alg = "ES256" if isinstance(key, EcKey) else "EdDSA"
    base = {"jti": new_id("j"), "htm": method, "htu": url, "iat": int(at.timestamp())}
    if token is not None:
        base["ath"] = b64url(hashlib.sha256(token.encode()).digest())
    return forge({"typ": "dpop+jwt", "alg": alg, "jwk": public_of(key), **(header or {})}, {**base, **claims}, key)


@dataclass
class Prover:
    """A client that proves possession of a key at a running gateway, written by hand."""

    w: World
    key: AnyKey
    nonce: str | None = None

    def proof(self, token: str | None = None, *, path: str = "/mcp", **said: Any) -> str:
        """A proof for one request to the gateway, with the last nonce it gave."""
        nonce = {} if self.nonce is None else {"nonce": self.nonce}
        key = said.pop("key", self.key)
        return proof(
            key, **{"url": f"{self.w.config.public_url}{path}", "at": self.w.clock(), "token": token, **nonce, **said}
        )

    async def sign_in(self, actor: Actor, *proofs: str, scope: str | None = None, **form: str) -> httpx2.Response:
        """The token endpoint's answer to a sign-in with these proofs."""
        data = {
            "grant_type": "client_credentials",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": self.w.assertion(actor),
            **({} if scope is None else {"scope": scope}),
            **form,
        }
        async with httpx2.AsyncClient() as http:
            answer = await http.post(
                f"{self.w.config.public_url}/token", data=data, headers=[("DPoP", one) for one in proofs]
            )
        self.nonce = answer.headers.get("dpop-nonce", self.nonce)
        return answer

    async def token(self, actor: Actor, scope: str | None = None, **form: str) -> str:
        """A token that is bound to the key."""
        answer = await self.sign_in(actor, self.proof(path="/token"), scope=scope, **form)
        if answer.json().get("error") == "use_dpop_nonce":
            answer = await self.sign_in(actor, self.proof(path="/token"), scope=scope, **form)
        assert answer.status_code == 200 and answer.json()["token_type"] == "DPoP", answer.text
        token: str = answer.json()["access_token"]
        return token

    async def send(
        self, body: Mapping[str, Any], token: str, *proofs: str, scheme: str = "DPoP", **headers: str
    ) -> httpx2.Response:
        """One request to the gateway with this token and these proofs; without any, with one that is right."""
        answer = await self.send_raw(body, token, *(proofs or (self.proof(token),)), scheme=scheme, **headers)
        self.nonce = answer.headers.get("dpop-nonce", self.nonce)
        return answer

    async def send_raw(
        self, body: Mapping[str, Any], token: str, *proofs: str, scheme: str = "DPoP", **headers: str
    ) -> httpx2.Response:
        """One request to the gateway with exactly these proofs."""
        lines = {
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "mcp-protocol-version": MODERN,
            "mcp-method": body["method"],
            "authorization": f"{scheme} {token}",
            **({"mcp-name": body["params"]["name"]} if "name" in body["params"] else {}),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        async with httpx2.AsyncClient(timeout=30) as http:
            return await http.post(
                self.w.url,
                content=strict_json.dump(dict(body)),
                headers=[*lines.items(), *(("DPoP", one) for one in proofs)],
            )


def is_error(answer: httpx2.Response, error: str) -> bool:
    """Whether the gateway refused this with a DPoP challenge of this error."""
    challenge = answer.headers.get("www-authenticate", "")
    return (
        answer.status_code == 401
        and challenge.startswith('DPoP algs="EdDSA Ed25519 ES256", ')
        and f'error="{error}"' in challenge
        and 'scope="mcp:connect"' in challenge
        and "/.well-known/oauth-protected-resource/mcp" in challenge
    )
