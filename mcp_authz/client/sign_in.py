"""Signing in with an agent's own key: client_credentials with private_key_jwt (RFC 6749 section 4.4, RFC 7523)."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx2

from mcp_authz.client.possession import USE_NONCE, Possession
from mcp_authz.errors import AuthzError, ConfigError, KeyRefused
from mcp_authz.ids import new_id
from mcp_authz.rules import jose
from mcp_authz.rules.keys import PrivateKey

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
SECONDS: Final = 60  # how long the assertion lives; it is used at once
_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
_LARGEST: Final = 64 * 1024  # bytes of a key file; anything larger is something else


class SignInRefused(AuthzError):
    """The gateway gave no token; the message says what it answered."""

    code = "sign_in_refused"


class NoAnswer(AuthzError):
    """Nobody answered at the token endpoint, or what answered is no authorization server."""

    code = "no_answer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Door:
    """Where agents sign in: the issuer, which assertions are for, and its token endpoint."""

    issuer: str
    token_endpoint: str
    published: str | None = None  # its token endpoint's URL for everybody, where HTTP gets there by another

    @property
    def token_url(self) -> str:
        """The token endpoint by its one published URL, which proofs are made for."""
        return self.published or self.token_endpoint


def agent_key(path: Path) -> PrivateKey:
    """Return the private key in an agent's key file (PKCS#8 PEM) that only its owner can read.

    Raises:
        KeyRefused: it is no such key, or others can read it.
        ConfigError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(_LARGEST).decode("utf-8", "replace")
    except OSError as error:
        raise ConfigError(f"key file `{path}` cannot be read: {error.strerror}") from None
    if stat.S_ISREG(mode) and mode & 0o077:
        raise KeyRefused(f"key file `{path}` can be read by others; run: chmod 600 {path}")
    try:
        return PrivateKey.from_pem(text)
    except KeyRefused as error:
        raise KeyRefused(f"`{path}`: {error}") from None


async def sign_in(
    http: httpx2.AsyncClient,
    door: Door,
    agent: str,
    key: PrivateKey,
    *,
    claims: Mapping[str, str] | None = None,
    scope: str | None = None,
    possession: Possession | None = None,
) -> dict[str, Any]:
    """Return the token response; without `scope` the token has everything that its session gives.

    `claims` say which session is meant: `session`, `delegation` or `subject`. With `possession` the token is bound to
    the key.

    Raises:
        SignInRefused: the gateway does not let the agent in.
        NoAnswer: nobody answers there.
    """
    who = _Applicant(http=http, door=door, agent=agent, key=key, possession=possession)
    form = {"grant_type": "client_credentials", **({} if scope is None else {"scope": scope})}
    return await _asked(who, form, claims or {})


async def redeem(
    http: httpx2.AsyncClient, door: Door, agent: str, key: PrivateKey, *, chain: str, possession: Possession
) -> dict[str, Any]:
    """Return the token response for a signed chain whose last link was given to this key (RFC 8693).

    Raises:
        SignInRefused: the gateway does not take the chain, or not from this agent.
        NoAnswer: nobody answers there.
    """
    who = _Applicant(http=http, door=door, agent=agent, key=key, possession=possession)
    return await _asked(who, {"grant_type": _EXCHANGE, "subject_token": chain, "subject_token_type": _JWT}, {})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Applicant:
    http: httpx2.AsyncClient
    door: Door
    agent: str
    key: PrivateKey = field(repr=False)
    possession: Possession | None

    def credentials(self, claims: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
        """Form and headers that show who asks; each counts once."""
        signed = assertion(self.agent, self.key, self.door.issuer, claims)
        form = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": signed}
        if self.possession is None:
            return form, {}
        return form, {"dpop": self.possession.proof(self.key, "POST", self.door.token_url)}

    def wants_nonce(self, answer: httpx2.Response, body: Any) -> bool:
        """Whether the same is worth asking again with the nonce that came (RFC 9449 section 8)."""
        new = self.possession is not None and self.possession.heard(self.door.token_url, answer.headers)
        return new and isinstance(body, dict) and body.get("error") == USE_NONCE


async def _asked(who: _Applicant, form: Mapping[str, str], claims: Mapping[str, str]) -> dict[str, Any]:
    door = who.door
    for _ in range(2):
        shown, headers = who.credentials(claims)
        try:
            answer = await who.http.post(
                door.token_endpoint, data={**form, **shown}, headers={"accept": "application/json", **headers}
            )
            body = answer.json()
        except (httpx2.HTTPError, ValueError):
            raise NoAnswer(f"no gateway answers at {door.issuer}") from None
        if not who.wants_nonce(answer, body):
            break
    if not isinstance(body, dict) or answer.status_code >= 500:
        raise NoAnswer(f"the gateway at {door.issuer} cannot sign anybody in now")
    if answer.status_code != 200 or not isinstance(body.get("access_token"), str):
        raise SignInRefused(f"{body.get('error')}: {body.get('error_description', 'the gateway gave no token')}")
    return body


def assertion(agent: str, key: PrivateKey, issuer: str, more: Mapping[str, str]) -> str:
    """Return what proves, once and for a minute, that the agent's key is here (RFC 7523 section 3)."""
    now = int(time.time())
    claims = {"iss": agent, "sub": agent, "aud": issuer, "iat": now, "exp": now + SECONDS, "jti": new_id("a")}
    return jose.sign({**claims, **more}, typ="JWT", key=key)
