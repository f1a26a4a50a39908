"""A gateway whose company has an identity provider, and a stock client that the provider lets in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
from mcp.client import Client
from mcp.client.auth.extensions.identity_assertion import IdentityAssertionOAuthProvider
from mcp.client.streamable_http import streamable_http_client

from mcp_authz.authorization import RegisteredClient
from mcp_authz.principals import ClientId
from mcp_authz.renewing import digest
from mcp_authz.store.ports import Event
from tests.identity_provider import IdentityProvider, identity_provider, signed
from tests.oauth.test_stock_client import Memory
from tests.world import World, world

JWT_BEARER: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
SCOPE: Final = "pr:read pr:write"
SECRET: Final = "a secret of 256 bits, for instance"
NAMED: Final = "idp-cursor"  # what the provider calls the client of the gateway


@dataclass
class Company:
    """The gateway, the provider, and the client that both know."""

    gateway: World
    provider: IdentityProvider
    client: RegisteredClient
    secret: str

    @property
    def issuer(self) -> str:
        return self.gateway.config.public_url

    def assertion(
        self, sub: str = "U1", *, header: Any = None, key: Any = None, alg: str = "RS256", **claims: Any
    ) -> str:
        """An assertion of the provider for its person, as its token exchange gives one."""
        now = int(self.gateway.clock().timestamp())
        base = {"scope": SCOPE, "auth_time": now - 60, "amr": ["pwd", "mfa"], "resource": self.gateway.url}
        said = self.provider.claims(sub, self.issuer, NAMED, **{**base, **claims})
        return signed(said, key=key or self.provider.key, alg=alg, **(header or {}))

    async def post(self, assertion: str, headers: Any = None, **form: str) -> httpx2.Response:
        """What the token endpoint answers to the client that brings this."""
        client = {"client_id": self.client.id, "client_secret": self.secret}
        data = {"grant_type": JWT_BEARER, "assertion": assertion, **client, **form}
        async with httpx2.AsyncClient(timeout=10) as http:
            return await http.post(f"{self.issuer}/token", data={k: v for k, v in data.items() if v}, headers=headers)

    async def token(self, assertion: str | None = None, **form: str) -> str:
        """The access token for an assertion."""
        answer = await self.post(self.assertion() if assertion is None else assertion, **form)
        assert answer.status_code == 200, answer.text
        text: str = answer.json()["access_token"]
        return text

    async def list_pull_requests(self, token: str) -> httpx2.Response:
        """One call with this token."""
        return await self.gateway.raw_call(token, "acme__list_pull_requests", {"owner": "acme", "repo": "api"})

    async def refused(self, answer: httpx2.Response, code: str, status: int = 400) -> None:
        """The answer is an OAuth error of this code, and nobody has a session by it."""
        assert (answer.status_code, answer.json()["error"]) == (status, code), answer.text
        assert await self.gateway.store.sessions() == ()

    def auth(self, scope: str | None = None, *, sub: str = "U1") -> IdentityAssertionOAuthProvider:
        """The SDK's own OAuth provider, which knows gateway and client, and gets assertions by token exchange."""

        async def obtained(audience: str, resource: str) -> str:
            return await self.provider.assertion(sub, "cursor-at-idp", audience, resource)

        return IdentityAssertionOAuthProvider(
            server_url=self.gateway.url,
            storage=Memory(),
            client_id=self.client.id,
            client_secret=self.secret,
            issuer=self.issuer,
            assertion_provider=obtained,
            scope=scope,
            token_endpoint_auth_method="client_secret_basic" if "basic" in self.client.method else "client_secret_post",
        )

    @asynccontextmanager
    async def session(self, scope: str | None = None, *, sub: str = "U1") -> AsyncIterator[Client]:
        """A stock client of the SDK, signed in for the person."""
        async with (
            httpx2.AsyncClient(auth=self.auth(scope, sub=sub), timeout=30) as http,
            Client(streamable_http_client(self.gateway.url, http_client=http), mode="auto") as client,
        ):
            yield client


@asynccontextmanager
async def company(directory: Path, *, method: Any = "client_secret_post", **settings: Any) -> AsyncIterator[Company]:
    """The company, with alice (`U1`) and bob (`U2`) at its provider."""
    async with identity_provider() as provider:
        provider.people = {
            "U1": {"preferred_username": "alice", "groups": ["Engineering"]},
            "U2": {"preferred_username": "bob", "groups": ["Sales"]},
        }
        provider.secrets = {"cursor-at-idp": "sesame"}
        enterprise = {
            "issuer": provider.issuer,
            "clients": {"cursor": {"scopes": ["pr"], "client_id": NAMED}},
            "groups": {"Engineering": "engineers"},
            **settings,
        }
        async with world(directory, enterprise=enterprise) as gateway:
            provider.clock = gateway.clock
            provider.allowed = {("cursor-at-idp", gateway.config.public_url): {"client_id": NAMED, "scope": SCOPE}}
            client = RegisteredClient(
                id=ClientId("cursor"),
                handle="cursor",
                name="Cursor",
                kind="registered",
                redirect_uris=("https://cursor.example.com/callback",),
                method=method,
                secret=digest(SECRET),
                registered_at=gateway.clock(),
            )
            await gateway.store.add_client(client, Event(kind="enrolment", at=gateway.clock(), fields={}))
            yield Company(gateway=gateway, provider=provider, client=client, secret=SECRET)
