"""Who a program is at an authorization server: an id it was given, the URL of its metadata, or one it registers now.

In that order (MCP authorization 2026-07-28, client registration). What a client proves itself by belongs to one
authorization server and is never shown to another.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote, urlsplit

from mcp_authz.client.authorization_server import Server
from mcp_authz.client.discovery import is_loopback
from mcp_authz.client.door import SignInRefused
from mcp_authz.client.talk import Ask, Talk, json_object
from mcp_authz.errors import InputError
from mcp_authz.ids import new_id
from mcp_authz.rules import jose
from mcp_authz.rules.jose import SigningKey

BASIC: Final = "client_secret_basic"
POST: Final = "client_secret_post"
NONE: Final = "none"
_SIGNED: Final = "private_key_jwt"
_ASSERTION: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_SECONDS: Final = 60  # how long an assertion lives; it is used at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A client as an authorization server knows it: its id, and what it proves itself by, if anything.

    `issuer` is the one server that it is known to; what has a secret or a key and names none is bound to the first
    one that it meets. `key` signs by `private_key_jwt` (RFC 7523): Ed25519, or on P-256.
    """

    id: str
    issuer: str | None = None
    secret: str | None = field(default=None, repr=False)
    key: SigningKey | None = field(default=None, repr=False)
    method: str | None = None  # None chooses what the server takes
    redirect: str | None = None  # the one URI that it registered, where it did so by itself

    @property
    def proves_itself(self) -> bool:
        """Whether it has something that another server must not see."""
        return self.secret is not None or self.key is not None

    def at(self, server: Server) -> Client:
        """Return the client as it is bound to this server.

        Raises:
            SignInRefused: it is another server's.
        """
        if self.issuer not in (None, server.issuer):
            told = f"and the MCP server now names `{server.issuer}`"
            raise SignInRefused(f"client `{self.id}` is known to `{self.issuer}`, {told}; nothing was sent there")
        return replace(self, issuer=server.issuer)

    def authenticated(
        self, server: Server, form: Mapping[str, str], *, at: datetime
    ) -> tuple[dict[str, str], dict[str, str]]:
        """Return form and headers of a request to the server's token endpoint, by which it knows the client.

        Raises:
            SignInRefused: the client is another server's.
        """
        if self.issuer != server.issuer:
            raise SignInRefused(f"client `{self.id}` is not of the authorization server `{server.issuer}`")
        match self._method(server):
            case "private_key_jwt":
                return {**form, "client_id": self.id, **self._assertion(server, at)}, {}
            case "client_secret_basic":
                pair = f"{quote(self.id, safe='')}:{quote(self.secret or '', safe='')}"  # RFC 6749 section 2.3.1
                return dict(form), {"authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}
            case "client_secret_post":
                return {**form, "client_id": self.id, "client_secret": self.secret or ""}, {}
            case _:
                return {**form, "client_id": self.id}, {}

    def _method(self, server: Server) -> str:
        if self.method is not None:
            return self.method
        if self.key is not None:
            return _SIGNED
        if self.secret is None:
            return NONE
        taken = server.methods or {BASIC}  # RFC 8414 section 2: the default
        return next((one for one in (BASIC, POST, NONE) if one in taken), BASIC)

    def _assertion(self, server: Server, at: datetime) -> dict[str, str]:
        if self.key is None:
            raise InputError(f"client `{self.id}` has no key to sign with: key=")
        began = int(at.timestamp())
        claims = {"iss": self.id, "sub": self.id, "aud": server.issuer, "iat": began, "exp": began + _SECONDS}
        signed = jose.sign({**claims, "jti": new_id("a")}, typ="JWT", key=self.key)
        return {"client_assertion_type": _ASSERTION, "client_assertion": signed}


@dataclass(frozen=True, slots=True, kw_only=True)
class Introduction:
    """What a program says of itself to a server that does not know it."""

    name: str
    metadata_url: str | None = None  # https, of its client id metadata document
    registers: bool = True  # whether it registers itself where nothing else is left


def known(server: Server, client: Client | None, who: Introduction, kept: Client | None, redirect: str) -> Talk[Client]:
    """The talk that comes to the client of this server: `client` was given, `kept` registered itself before.

    Raises:
        SignInRefused: there is none, or the one there is belongs to another server.
    """
    if client is not None:
        return client.at(server)
    if who.metadata_url is not None and server.takes_documents:
        return Client(id=who.metadata_url, issuer=server.issuer)
    if kept is not None and (kept.issuer, kept.redirect) == (server.issuer, redirect):
        return kept
    if server.registration_endpoint is None or not who.registers:
        raise SignInRefused(f"the authorization server `{server.issuer}` has to know this program: give client=")
    return (yield from _registered(server, server.registration_endpoint, who, redirect))


def _registered(server: Server, endpoint: str, who: Introduction, redirect: str) -> Talk[Client]:
    taken = server.methods if server.methods is not None else {NONE}
    method = next((one for one in (NONE, BASIC, POST) if one in taken), None)
    if method is None:
        raise SignInRefused(f"the authorization server `{server.issuer}` registers no such clients; give client=")
    asked = {
        "client_name": who.name,
        "redirect_uris": [redirect],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": method,
        "application_type": "native" if is_loopback(urlsplit(redirect)) else "web",
    }
    answer = yield Ask(url=endpoint, json=asked)
    body = json_object(answer) or {}
    if answer.status_code not in {200, 201} or not isinstance(body.get("client_id"), str):
        raise SignInRefused(f"the authorization server `{server.issuer}` does not register this program; give client=")
    return Client(
        id=body["client_id"],
        issuer=server.issuer,
        secret=_text(body, "client_secret"),
        method=_text(body, "token_endpoint_auth_method"),
        redirect=redirect,
    )


def _text(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    return value if isinstance(value, str) and value else None
