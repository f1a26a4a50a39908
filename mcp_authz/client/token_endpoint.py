"""Asking a token endpoint as any OAuth client does: the client proves itself, possession is proved, the answer read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

import httpx2

from mcp_authz.client.asking import Clock
from mcp_authz.client.authorization_server import Server
from mcp_authz.client.door import NoAnswer, SignInRefused
from mcp_authz.client.possession import USE_NONCE, Possession
from mcp_authz.client.registering import Client
from mcp_authz.client.talk import Ask, Talk, json_object
from mcp_authz.rules.jose import SigningKey

_ERROR: Final = re.compile("[a-z_]{1,64}")
_SECRET: Final = 12  # characters of a value that is taken for a secret when it comes back in an error
_LONGEST: Final = timedelta(days=1)  # that a response is believed
_SHORT: Final = timedelta(minutes=5)  # that is taken where it does not say


class TokenRefused(SignInRefused):
    """The server's answer to a request for a token was an error; `error` is its code (RFC 6749 section 5.2)."""

    def __init__(self, sentence: str, error: str) -> None:
        super().__init__(sentence)
        self.error = error


@dataclass(frozen=True, slots=True, kw_only=True)
class Proving:
    """What requests are proved by, at what time it is; without `key` they are not (RFC 9449)."""

    clock: Clock
    possession: Possession
    key: SigningKey | None = field(repr=False)

    def header(self, method: str, url: str, token: str | None = None) -> dict[str, str]:
        """The header that proves one request, which is sent at once."""
        if self.key is None:
            return {}
        return {"dpop": self.possession.proof(self.key, method, url, at=self.clock(), token=token)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """What a token response gives (RFC 6749 section 5.1)."""

    access: str = field(repr=False)
    is_bound: bool
    ends_at: datetime
    scope: frozenset[str] | None  # None when it is what was asked for
    refresh: str | None = field(repr=False)
    more: Mapping[str, str] = field(repr=False)  # what else it says in text: `subject`, `session`


def issued(server: Server, client: Client, form: Mapping[str, str], proving: Proving) -> Talk[Issued]:
    """The talk that gets a token.

    Raises:
        TokenRefused: the server refuses it.
        SignInRefused: what it gives is no token of ours.
        NoAnswer: it cannot answer now.
    """
    body = yield from answered(server, client, form, proving)
    kind = str(body.get("token_type", "")).lower()
    access = body.get("access_token")
    if not isinstance(access, str) or kind not in {"bearer", "dpop"} or (kind == "dpop" and proving.key is None):
        raise SignInRefused(f"the authorization server `{server.issuer}` gave a token of an unknown kind")
    seconds = body.get("expires_in")
    most = int(_LONGEST.total_seconds())
    lasts = timedelta(seconds=min(max(0, seconds), most)) if isinstance(seconds, int) else _SHORT
    refresh = body.get("refresh_token")
    return Issued(
        access=access,
        is_bound=kind == "dpop",
        ends_at=proving.clock() + lasts,
        scope=frozenset(body["scope"].split()) if isinstance(body.get("scope"), str) else None,
        refresh=refresh if isinstance(refresh, str) else None,
        more={
            name: value
            for name, value in body.items()
            if isinstance(value, str) and name not in {"access_token", "refresh_token", "id_token"}
        },
    )


def answered(server: Server, client: Client, form: Mapping[str, str], proving: Proving) -> Talk[dict[str, Any]]:
    """The talk that comes to the token endpoint's answer, asked again with a nonce where it demands one.

    Raises:
        TokenRefused, NoAnswer: as `issued`.
    """
    for _ in range(2):
        whole, headers = client.authenticated(server, form, at=proving.clock())
        headers |= proving.header("POST", server.token_endpoint)
        answer = yield Ask(url=server.token_endpoint, form=whole, headers=headers)
        heard = proving.possession.heard(server.token_endpoint, answer.headers)
        if not heard or (json_object(answer) or {}).get("error") != USE_NONCE:  # RFC 9449 section 8
            break
    return _body(server, whole, answer)


def _body(server: Server, form: Mapping[str, str], answer: httpx2.Response) -> dict[str, Any]:
    body = json_object(answer)
    if body is None or answer.status_code >= 500 or answer.status_code in range(300, 400):
        raise NoAnswer(f"the authorization server `{server.issuer}` cannot answer now")
    if answer.status_code != 200 or "access_token" not in body:
        error = str(body.get("error"))
        error = error if _ERROR.fullmatch(error) else "an error without a name"
        raise TokenRefused(f"`{server.issuer}` gave no token: {error}{_why(form, body)}", error)
    return body


def _why(form: Mapping[str, str], body: Mapping[str, Any]) -> str:
    """What the server says of its reason; nothing that has something of ours in it, which could be a secret."""
    said = body.get("error_description")
    if not isinstance(said, str) or any(value in said for value in form.values() if len(value) >= _SECRET):
        return ""
    return f" ({said[:200]})"


def revoked(endpoint: str, server: Server, client: Client, form: Mapping[str, str], at: datetime) -> Talk[bool]:
    """The talk that ends a token, and comes to whether the server took it (RFC 7009)."""
    whole, headers = client.authenticated(server, form, at=at)
    answer = yield Ask(url=endpoint, form=whole, headers=headers)
    return answer.status_code == 200
