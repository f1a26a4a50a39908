"""The ways in which a program gets a token: a person agrees, it proves itself, or somebody it trusts vouches for it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Final, Protocol

import httpx2

from mcp_authz.client import code_flow, registering
from mcp_authz.client.authorization_server import Server, Target
from mcp_authz.client.door import SignInRefused
from mcp_authz.client.registering import Client, Introduction
from mcp_authz.client.signed_in import thumbprint
from mcp_authz.client.talk import carry
from mcp_authz.client.token_endpoint import Issued, Proving, answered, issued

JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
OFFLINE: Final = "offline_access"
_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_ID_TOKEN: Final = "urn:ietf:params:oauth:token-type:id_token"  # noqa: S105 - RFC 8693 section 3
_ID_JAG: Final = "urn:ietf:params:oauth:token-type:id-jag"


class Waiting(Protocol):
    """A place where the answer to an authorization request comes in; `uri` is its redirect URI."""

    @property
    def uri(self) -> str:
        """Where the person is sent back to."""
        ...

    async def answer(self, url: str, state: str) -> str:
        """Return the URL that the person was sent back to, after they were shown `url`.

        Raises:
            SignInRefused: they did not come back in time.
        """
        ...


class Redirect(Protocol):
    """Takes a person to the authorization server, and receives the answer."""

    def waiting(self) -> AbstractAsyncContextManager[Waiting]:
        """An answer is waited for while the body runs."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a token is wanted for: where, with which scopes, how fresh the person's own sign-in has to be."""

    http: httpx2.AsyncClient
    target: Target
    scope: frozenset[str]
    proving: Proving
    kept: Client | None = None  # that registered itself before
    max_age: int | None = None

    def form(self, grant: str, **more: str) -> dict[str, str]:
        """The token request of this grant; the scopes are left out where there are none."""
        scope = {"scope": " ".join(sorted(self.scope))} if self.scope else {}
        return {"grant_type": grant, "resource": self.target.resource, **scope, **more}


class Way(Protocol):
    """One way in."""

    @property
    def client(self) -> Client | None:
        """The client that the program was given."""
        ...

    @property
    def asks_a_person(self) -> bool:
        """Whether it is somebody's time that a token costs."""
        ...

    async def token(self, order: Order) -> tuple[Client, Issued]:
        """Return what was given, and to which client.

        Raises:
            SignInRefused, NoAnswer: nothing was.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ByPerson:
    """A person is asked (OAuth 2.1 section 4.1)."""

    redirect: Redirect
    introduction: Introduction
    client: Client | None = None
    asks_a_person: bool = True

    async def token(self, order: Order) -> tuple[Client, Issued]:
        """Return what the person agreed to."""
        target, proving = order.target, order.proving
        async with self.redirect.waiting() as waiting:
            uri = waiting.uri
            client = await carry(
                order.http, registering.known(target.server, self.client, self.introduction, order.kept, uri)
            )
            jkt = thumbprint(proving.key)
            asked = code_flow.asking(target, client.id, uri, order.scope, key=jkt, max_age=order.max_age)
            code = code_flow.code_of(asked, await waiting.answer(asked.url, asked.state))
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "code_verifier": asked.verifier,
            "redirect_uri": uri,
            "resource": target.resource,
        }
        return client, await carry(order.http, issued(target.server, client, form, proving))


@dataclass(frozen=True, slots=True, kw_only=True)
class ByItself:
    """The program proves who it is (OAuth 2.1 section 4.2; `io.modelcontextprotocol/oauth-client-credentials`)."""

    client: Client
    asks_a_person: bool = False

    async def token(self, order: Order) -> tuple[Client, Issued]:
        """Return what the program itself may do."""
        return await _redeemed(order, self.client, order.form("client_credentials"))


Assertion = Callable[[str], Awaitable[str]]
"""Returns a JWT that is meant for the authorization server with this issuer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ByAssertion:
    """Whoever runs the program vouches for it with a JWT (RFC 7523 section 2.1): workload identity."""

    client: Client
    assertion: Assertion = field(repr=False)
    asks_a_person: bool = False

    async def token(self, order: Order) -> tuple[Client, Issued]:
        """Return what the JWT gives; a refusal is final, no other grant is tried."""
        signed = await self.assertion(order.target.server.issuer)
        return await _redeemed(order, self.client, order.form(JWT_BEARER, assertion=signed))


@dataclass(frozen=True, slots=True, kw_only=True)
class Provider:
    """A company's identity provider: its token endpoint, and what the program is there."""

    token_endpoint: str
    client: Client


@dataclass(frozen=True, slots=True, kw_only=True)
class ByEmployer:
    """The company's provider says what its person's program may do (ID-JAG, `enterprise-managed-authorization`)."""

    client: Client
    provider: Provider
    id_token: Callable[[], Awaitable[str]] = field(repr=False)
    asks_a_person: bool = False

    async def token(self, order: Order) -> tuple[Client, Issued]:
        """Return what the provider's assertion gives."""
        grant = await self._assertion(order)
        return await _redeemed(order, self.client, order.form(JWT_BEARER, assertion=grant))

    async def _assertion(self, order: Order) -> str:
        client, endpoint = self.provider.client, self.provider.token_endpoint
        there = Server(issuer=client.issuer or endpoint, token_endpoint=endpoint)
        form = order.form(
            _EXCHANGE,
            requested_token_type=_ID_JAG,
            audience=order.target.server.issuer,
            subject_token=await self.id_token(),
            subject_token_type=_ID_TOKEN,
        )
        unproved = Proving(clock=order.proving.clock, possession=order.proving.possession, key=None)
        said = await carry(order.http, answered(there, client.at(there), form, unproved))
        if said.get("issued_token_type") != _ID_JAG or not isinstance(said.get("access_token"), str):
            raise SignInRefused(f"`{there.issuer}` gave something else than an assertion for {order.target.resource}")
        return str(said["access_token"])


async def _redeemed(order: Order, client: Client, form: Mapping[str, str]) -> tuple[Client, Issued]:
    known = client.at(order.target.server)
    return known, await carry(order.http, issued(order.target.server, known, form, order.proving))
