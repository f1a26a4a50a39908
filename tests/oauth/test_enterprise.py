"""A company's identity provider lets its people's clients in: from no token to a tool call, and no further."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import MCPError

from mcp_authz.config import parse_config
from mcp_authz.errors import ConfigError
from mcp_authz.ids import new_id
from mcp_authz.rules.dpop import make_proof
from mcp_authz.rules.keys import PrivateKey
from tests.identity_provider import signed
from tests.oauth.enterprise import JWT_BEARER, Company, company
from tests.oauth.house import claims_of
from tests.world import world


def proof(c: Company, key: PrivateKey, nonce: str | None) -> dict[str, str]:
    """The header of a request to the token endpoint with a DPoP proof by this key."""
    at, url = c.gateway.clock(), f"{c.issuer}/token"
    return {"DPoP": make_proof(key, method="POST", url=url, at=at, id=new_id("p"), nonce=nonce)}


PROFILE = "urn:ietf:params:oauth:grant-profile:id-jag"


@pytest.mark.parametrize("method", ["client_secret_post", "client_secret_basic"])
async def test_a_stock_client_gets_from_no_token_to_a_tool_call_with_nobody_asked(tmp_path: Path, method: str) -> None:
    async with company(tmp_path, method=method) as c:
        async with c.session() as client:
            result = await client.call_tool("acme__list_pull_requests", {"owner": "acme", "repo": "api"})
            assert not result.is_error
        (decision,) = await c.gateway.decisions()
        assert (decision["actor"], decision["subject"]) == ("agent:cursor@alice", "user:alice")
        assert c.provider.fetched == 1


async def test_what_the_provider_does_not_give_no_client_gets_by_asking(tmp_path: Path) -> None:
    async with company(tmp_path) as c:
        async with c.session("pr:read deploy secret:read") as client:
            with pytest.raises(MCPError):
                await client.call_tool("acme__read_secret", {"environment": "staging", "name": "key"})
            assert not (await client.call_tool("acme__list_pull_requests", {"owner": "acme", "repo": "api"})).is_error
        token = claims_of(await c.token(scope="pr:read deploy"))
        assert token["scope"] == "mcp:connect pr:read:*:*"


async def test_the_token_endpoint_gives_a_short_token_and_nothing_to_renew_it_with(tmp_path: Path) -> None:
    async with company(tmp_path) as c:
        answer = await c.post(c.assertion())
        body = answer.json()
        assert answer.headers["cache-control"] == "no-store"
        assert (body["token_type"], body["scope"]) == ("Bearer", "mcp:connect pr:read:*:* pr:write:*:*")
        assert body["resource"] == c.gateway.url and body["expires_in"] <= 600
        assert "refresh_token" not in body
        claims = claims_of(body["access_token"])
        assert (claims["client_id"], claims["sub"], claims["amr"]) == ("cursor", "user:alice", ["pwd", "mfa"])
        assert (await c.list_pull_requests(body["access_token"])).status_code == 200


async def test_a_client_signs_out_and_the_next_assertion_lets_it_in_again(tmp_path: Path) -> None:
    async with company(tmp_path) as c:
        token = await c.token()
        form = {"token": token, "client_id": c.client.id, "client_secret": c.secret}
        async with httpx2.AsyncClient() as http:
            assert (await http.post(f"{c.issuer}/revoke", data=form)).status_code == 200
        assert (await c.list_pull_requests(token)).status_code == 401
        assert (await c.list_pull_requests(await c.token())).status_code == 200


async def test_a_token_is_bound_to_the_key_that_the_client_shows(tmp_path: Path) -> None:
    async with company(tmp_path) as c:
        key = PrivateKey.generate()

        first = await c.post(c.assertion(), headers=proof(c, key, None))
        assert first.json()["error"] == "use_dpop_nonce"
        bound: dict[str, Any] = {"cnf": {"jkt": key.public.thumbprint}}
        body = (await c.post(c.assertion(**bound), headers=proof(c, key, first.headers["dpop-nonce"]))).json()
        assert body["token_type"] == "DPoP" and claims_of(body["access_token"])["cnf"] == bound["cnf"]
        assert (await c.list_pull_requests(body["access_token"])).status_code == 401
        assert (await c.post(c.assertion(**bound))).json()["error"] == "invalid_grant"


async def test_metadata_says_so_where_a_provider_is_configured_and_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "with").mkdir()
    (tmp_path / "without").mkdir()
    async with (
        company(tmp_path / "with") as c,
        world(tmp_path / "without", servers={}) as w,
        httpx2.AsyncClient() as http,
    ):
        said = (await http.get(f"{c.issuer}/.well-known/oauth-authorization-server")).json()
        assert JWT_BEARER in said["grant_types_supported"]
        assert said["authorization_grant_profiles_supported"] == [PROFILE]
        silent = (await http.get(f"{w.config.public_url}/.well-known/oauth-authorization-server")).json()
        assert JWT_BEARER not in silent["grant_types_supported"]
        assert "authorization_grant_profiles_supported" not in silent
        answer = await http.post(f"{w.config.public_url}/token", data={"grant_type": JWT_BEARER, "assertion": "x"})
        assert answer.json()["error"] == "unsupported_grant_type"


async def test_refusals_are_told_by_rfc_7523_and_recorded_of_clients_that_are_known(tmp_path: Path) -> None:
    async with company(tmp_path) as c:
        await c.refused(await c.post(c.assertion(client_id="another")), "invalid_grant")
        await c.refused(await c.post(""), "invalid_request")
        await c.refused(await c.post(c.assertion(), scope="deploy"), "invalid_scope")
        await c.refused(await c.post(c.assertion(), scope="a::b"), "invalid_scope")
        await c.refused(await c.post(c.assertion(), resource="https://other.example.com/mcp"), "invalid_target")
        await c.refused(await c.post(c.assertion(groups=[], preferred_username="?")), "invalid_grant")
        refusals = [record.event.fields for record in await c.gateway.records("sign-in")]
        assert len(refusals) == 6 and all(one["actor"] == "client:cursor" for one in refusals)
        assert refusals[0]["reason"] == "invalid_grant: the assertion: it is for another client"
        await c.refused(await c.post(c.assertion(), client_secret="guessed"), "invalid_client")
        await c.refused(await c.post(c.assertion(), client_id="claude"), "invalid_client")
        assert len(await c.gateway.records("sign-in")) == 6


async def test_a_client_that_proves_nothing_brings_no_assertion(tmp_path: Path) -> None:
    async with company(tmp_path, method="none") as c:
        await c.refused(await c.post(c.assertion(), client_secret=""), "invalid_client")


async def test_a_provider_whose_keys_cannot_be_had_lets_nobody_in(tmp_path: Path) -> None:
    async with company(tmp_path) as c:
        c.provider.is_down = True
        await c.refused(await c.post(c.assertion()), "invalid_grant")
        c.provider.is_down = False
        await c.refused(await c.post(c.assertion()), "invalid_grant")
        c.gateway.clock.advance(timedelta(minutes=2))
        await c.token()


@pytest.mark.parametrize(
    "changes",
    [
        {"issuer": "http://login.example.com"},
        {"issuer": "login.example.com"},
        {"issuer": "https://login.example.com?tenant=1"},
        {"jwks_uri": "http://login.example.com/keys"},
        {"jwks_uri": "file:///etc/keys"},
        {"clients": {}},
        {"clients": {"cursor": {}}},
        {"clients": {"cursor": {"scopes": []}}},
        {"clients": {"cursor": {"scopes": ["a::b"]}}},
        {"audience": "x"},
    ],
    ids=str,
)
def test_a_configuration_that_means_nothing_safe_is_refused(changes: dict[str, Any]) -> None:
    sound = {"issuer": "https://login.example.com", "clients": {"cursor": {"scopes": ["pr:read"]}}}
    assert parse_config({"enterprise": sound}).enterprise is not None
    with pytest.raises(ConfigError):
        parse_config({"enterprise": {**sound, **changes}})


async def test_an_id_token_of_the_provider_is_no_assertion(tmp_path: Path) -> None:
    async with company(tmp_path) as c:
        told = c.provider.claims("U1", "cursor-at-idp", "cursor-at-idp", auth_time=int(c.gateway.clock().timestamp()))
        await c.refused(await c.post(signed(told, typ="JWT")), "invalid_grant")
        await c.refused(await c.post(c.assertion(header={"typ": "JWT"})), "invalid_grant")
        issued_here = await c.post(await c.token())
        assert issued_here.json()["error"] == "invalid_grant"
