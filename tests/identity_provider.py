"""A company's identity provider that serves: it signs people in to clients, and gives identity assertion grants.

It signs with joserfc, and so with another implementation than the one that the gateway verifies with.
"""

from __future__ import annotations

import socket
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import parse_qsl

import anyio
import httpx2
import uvicorn
from joserfc import jws, jwt
from joserfc.errors import SecurityWarning
from joserfc.jwk import ECKey, Key, OctKey, OKPKey, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mcp_authz.ids import new_id

ID_JAG: Final = "urn:ietf:params:oauth:token-type:id-jag"
ID_TOKEN: Final = "urn:ietf:params:oauth:token-type:id_token"
EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
ANY: Final = ["RS256", "PS256", "ES256", "ES384", "EdDSA", "Ed25519", "HS256", "none", "RS512"]

RSA: Final = RSAKey.generate_key(2048, parameters={"kid": "rsa-1"})  # made once: it takes a while
OTHER_RSA: Final = RSAKey.generate_key(2048, parameters={"kid": "rsa-2"})
EC: Final = ECKey.generate_key("P-256", parameters={"kid": "ec-1"})
ED: Final = OKPKey.generate_key("Ed25519", parameters={"kid": "ed-1"})

Clock = Callable[[], datetime]


def public(key: Key, **more: Any) -> dict[str, Any]:
    """The key as a provider publishes it."""
    return {**key.as_dict(private=False), "use": "sig", **more}


def signed(claims: Any, *, key: Key = RSA, alg: str = "RS256", typ: str = "oauth-id-jag+jwt", **header: Any) -> str:
    """A JWT with these claims; a header parameter given as None is left out."""
    full = {"alg": alg, "typ": typ, "kid": key.kid, **header}
    kept = {name: value for name, value in full.items() if value is not None}
    with warnings.catch_warnings(category=SecurityWarning, action="ignore"):  # of what no sound provider would sign
        text: str = jwt.encode(kept, claims, key, algorithms=ANY, registry=_Lax(algorithms=ANY))
    return text


class _Lax(jws.JWSRegistry):
    """Signs what no sound provider would."""

    def check_header(self, header: Any) -> None:
        """Whatever the header says."""


@dataclass
class IdentityProvider:
    """A provider with its people, its clients, and what it lets them have where."""

    issuer: str
    clock: Clock = lambda: datetime.now(UTC)
    key: Key = field(default_factory=lambda: RSA)
    published: list[dict[str, Any]] = field(default_factory=lambda: [public(RSA, alg="RS256")])
    people: dict[str, dict[str, Any]] = field(default_factory=dict)  # sub -> claims
    secrets: dict[str, str] = field(default_factory=dict)  # its own clients, by their secrets
    allowed: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    """(its client, audience) -> how the audience knows the client (`client_id`), and for what (`scope`)."""
    fetched: int = 0
    is_down: bool = False
    jwks_uri: Any = ""  # what its metadata says instead of the truth

    def id_token(self, sub: str, client: str, **claims: Any) -> str:
        """What the client got when the person signed in to it."""
        now = int(self.clock().timestamp())
        base = {"iss": self.issuer, "sub": sub, "aud": client, "iat": now, "exp": now + 3600, "auth_time": now}
        return signed({**base, **self.people.get(sub, {}), **claims}, key=self.key, typ="JWT")

    def claims(self, sub: str, audience: str, client_id: str, /, **changes: Any) -> dict[str, Any]:
        """The claims of an identity assertion grant; a claim given as None is left out."""
        now = int(self.clock().timestamp())
        base = {
            "iss": self.issuer,
            "sub": sub,
            "aud": audience,
            "client_id": client_id,
            "jti": new_id("j"),
            "iat": now,
            "exp": now + 300,
            **self.people.get(sub, {}),
            **changes,
        }
        return {name: value for name, value in base.items() if value is not None}

    async def exchange(self, request: Request) -> Response:
        """An ID token becomes a grant for one audience, as far as the company lets the client (RFC 8693)."""
        form = dict(parse_qsl((await request.body()).decode()))
        client = form.get("client_id", "")
        if self.secrets.get(client) != form.get("client_secret"):
            return JSONResponse({"error": "invalid_client"}, status_code=401)
        if (form.get("grant_type"), form.get("requested_token_type")) != (EXCHANGE, ID_JAG):
            return JSONResponse({"error": "unsupported_grant_type"}, status_code=400)
        said = jwt.decode(form["subject_token"], self.key, algorithms=["RS256"]).claims
        policy = self.allowed.get((client, form["audience"]))
        if form.get("subject_token_type") != ID_TOKEN or said["aud"] != client or policy is None:
            return JSONResponse({"error": "access_denied"}, status_code=400)
        more = {"resource": form.get("resource"), "auth_time": said["auth_time"], "amr": said.get("amr")}
        claims = self.claims(said["sub"], form["audience"], client, **{**policy, **more})
        answer = {
            "issued_token_type": ID_JAG,
            "access_token": signed(claims, key=self.key),
            "token_type": "N_A",
            "expires_in": 300,
        }
        return JSONResponse(answer, headers={"cache-control": "no-store"})

    async def keys(self, _: Request) -> Response:
        """The keys, while the provider is up."""
        self.fetched += 1
        return JSONResponse({"keys": self.published}, status_code=503 if self.is_down else 200)

    async def metadata(self, _: Request) -> Response:
        """Where the rest is."""
        where = f"{self.issuer}/keys" if self.jwks_uri == "" else self.jwks_uri
        return JSONResponse({"issuer": self.issuer, "jwks_uri": where})

    async def assertion(self, sub: str, client: str, audience: str, resource: str | None = None) -> str:
        """What the client gets for the person by token exchange, over HTTP."""
        form = {
            "grant_type": EXCHANGE,
            "requested_token_type": ID_JAG,
            "audience": audience,
            "subject_token": self.id_token(sub, client),
            "subject_token_type": ID_TOKEN,
            "client_id": client,
            "client_secret": self.secrets[client],
            **({} if resource is None else {"resource": resource}),
        }
        async with httpx2.AsyncClient(timeout=10) as http:
            answer = await http.post(f"{self.issuer}/token", data=form)
        assert answer.status_code == 200, answer.text
        text: str = answer.json()["access_token"]
        return text


@asynccontextmanager
async def identity_provider(clock: Clock | None = None) -> AsyncIterator[IdentityProvider]:
    """A provider that serves on a free port of this computer."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(16)
        provider = IdentityProvider(issuer=f"http://localhost:{listener.getsockname()[1]}")
        if clock is not None:
            provider.clock = clock
        routes = [
            Route("/keys", provider.keys),
            Route("/token", provider.exchange, methods=["POST"]),
            Route("/.well-known/openid-configuration", provider.metadata),
        ]
        config = uvicorn.Config(
            Starlette(routes=routes), lifespan="off", log_level="error", access_log=False, timeout_graceful_shutdown=1
        )
        server = uvicorn.Server(config)
        async with anyio.create_task_group() as group:
            group.start_soon(server.serve, [listener])
            with anyio.fail_after(10):
                while not server.started:  # noqa: ASYNC110 - uvicorn has no event for this
                    await anyio.sleep(0.005)
            yield provider
            server.should_exit = True


def hmac_key(text: str) -> OctKey:
    """A symmetric key whose bytes are this text."""
    return OctKey.import_key(text, parameters={"kid": "rsa-1"})
