"""Dynamic registration: only where it is switched on, and told of in the metadata then."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp.shared.auth import OAuthClientInformationFull, OAuthClientMetadata, OAuthMetadata
from starlette.applications import Starlette

from mcp_authz import limits
from mcp_authz.clients import Clients
from mcp_authz.errors import FetchRefused
from mcp_authz.oauth import OAuthServer, oauth_routes
from mcp_authz.rules.dpop import Nonces
from mcp_authz.rules.redirect_uri import SCHEMES
from tests.oauth.house import House, office

ISSUER = "http://localhost:8642"
STOCK = {
    "client_name": "MCP CLI Proxy",
    "redirect_uris": ["http://localhost:3334/oauth/callback"],
    "grant_types": ["authorization_code", "refresh_token"],
    "response_types": ["code"],
    "token_endpoint_auth_method": "none",
    "software_id": "2e6dc280-f3c3-4e01-99a7-8181dbd1d23d",
    "application_type": "native",
}


async def nowhere(url: str) -> bytes:
    raise FetchRefused(url)


@dataclass
class Desk:
    """An authorization server at which clients register, or not."""

    house: House
    http: httpx2.AsyncClient
    refused: list[str] = field(default_factory=list)

    async def register(self, **changes: Any) -> httpx2.Response:
        body = {name: value for name, value in {**STOCK, **changes}.items() if value is not None}
        return await self.http.post("/register", json=body)

    async def metadata(self) -> dict[str, Any]:
        answer = await self.http.get("/.well-known/oauth-authorization-server")
        body: dict[str, Any] = answer.json()
        return body


@asynccontextmanager
async def desk(directory: Path, *, dynamic: bool = True) -> AsyncIterator[Desk]:
    refused: list[str] = []
    async with office(directory) as h:
        server = OAuthServer(
            store=h.store,
            sessions=h.sessions,
            delegations=h.delegations,
            chains=h.chains,
            issuer=ISSUER,
            resource=f"{ISSUER}/mcp",
            signing=h.keys,
            clock=h.clock,
            count_refusal=lambda reason, _: refused.append(reason),
            nonces=Nonces(key=bytes(32), demanded=True),
            hosted=h.hosted,
            clients=Clients(h.store, h.clock, nowhere, schemes=SCHEMES, dynamic=dynamic),
        )
        transport = httpx2.ASGITransport(app=Starlette(routes=oauth_routes(server)))
        async with httpx2.AsyncClient(transport=transport, base_url=ISSUER) as http:
            yield Desk(house=h, http=http, refused=refused)


async def test_where_it_is_off_who_tries_hears_what_to_do_and_documents_are_told_of(tmp_path: Path) -> None:
    async with desk(tmp_path, dynamic=False) as d:
        metadata = await d.metadata()
        assert metadata["client_id_metadata_document_supported"] is True and "registration_endpoint" not in metadata
        refused = await d.register()  # some clients try all the same, and show what they are told
        assert refused.status_code == 404 and "mcp-authz client add" in refused.json()["error_description"]
        assert await d.house.store.clients() == ()


async def test_a_stock_client_finds_the_endpoint_and_registers_itself(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        metadata = OAuthMetadata.model_validate(await d.metadata())
        assert str(metadata.registration_endpoint) == f"{ISSUER}/register"
        asked = OAuthClientMetadata.model_validate(STOCK)
        answer = await d.http.post("/register", json=asked.model_dump(by_alias=True, mode="json", exclude_none=True))
        assert answer.status_code == 201 and answer.headers["cache-control"] == "no-store"
        given = OAuthClientInformationFull.model_validate(answer.json())
        (stored,) = await d.house.store.clients()
        assert given.client_id == stored.id and given.client_secret is None
        assert (stored.kind, stored.method, stored.handle) == ("dynamic", "none", "mcp-cli-proxy")
        assert stored.redirect_uris == ("http://localhost:3334/oauth/callback",)


async def test_a_secret_is_in_the_answer_and_nowhere_else(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        body = (await d.register(token_endpoint_auth_method=None)).json()
        assert body["token_endpoint_auth_method"] == "client_secret_basic" and body["client_secret_expires_at"] == 0
        assert len(body["client_secret"]) == 43
        records = await d.house.store.records(after=0)
        assert all(body["client_secret"] not in json.dumps(dict(record.event.fields)) for record in records)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"redirect_uris": ["http://evil.example/cb"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["javascript:alert(1)"]}, "invalid_redirect_uri"),
        ({"redirect_uris": ["http://localhost.evil.example/cb"]}, "invalid_redirect_uri"),
        ({"redirect_uris": None}, "invalid_redirect_uri"),
        ({"token_endpoint_auth_method": "client_secret_jwt"}, "invalid_client_metadata"),
        ({"grant_types": ["client_credentials"]}, "invalid_client_metadata"),
        ({"software_statement": "x"}, "invalid_client_metadata"),
    ],
)
async def test_what_cannot_be_registered_is_said_as_the_standard_has_it(
    tmp_path: Path, changes: dict[str, Any], error: str
) -> None:
    async with desk(tmp_path) as d:
        answer = await d.register(**changes)
        assert (answer.status_code, answer.json()["error"]) == (400, error) and answer.json()["error_description"]
        assert await d.house.store.clients() == () and len(d.refused) == 1


async def test_a_body_that_is_no_json_object_is_no_client(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        as_json = {"content-type": "application/json"}
        for body in (
            b"",
            b"[]",
            b"{",
            b'{"redirect_uris":["http://localhost/"],"redirect_uris":["http://localhost/"]}',
        ):
            answer = await d.http.post("/register", content=body, headers=as_json)
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client_metadata")
        assert (await d.http.post("/register", data={"redirect_uris": "http://localhost/"})).status_code == 400
        long = await d.http.post("/register", content=b" " * (limits.METADATA_BYTES + 1), headers=as_json)
        assert long.status_code == 413 and await d.house.store.clients() == ()


async def test_one_source_registers_only_so_many_at_once(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        answers = [(await d.register()).status_code for _ in range(limits.REGISTRATIONS_BURST + 1)]
        assert answers == [201] * limits.REGISTRATIONS_BURST + [429]
        assert len(await d.house.store.clients()) == limits.REGISTRATIONS_BURST
