"""What clients find before they know anything."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_authz import limits
from mcp_authz.errors import ConfigError
from mcp_authz.oauth import OAuthServer
from mcp_authz.rules.dpop import Nonces
from mcp_authz.rules.keys import PublicKey
from tests.oauth.house import House, expect, house, office, refused


async def test_the_authorization_server_is_found_at_the_root_and_under_the_resource(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        for path in ("", "/mcp"):
            answer = await h.http.get(f"{h.issuer}/.well-known/oauth-authorization-server{path}")
            said = answer.json()
            assert (answer.status_code, said["issuer"]) == (200, h.issuer)
            proving = ["private_key_jwt", "client_secret_basic", "client_secret_post"]
            assert said["token_endpoint_auth_methods_supported"] == ["none", *proving]
            assert said["revocation_endpoint_auth_methods_supported"] == ["none", *proving]
            assert said["introspection_endpoint_auth_methods_supported"] == proving
            for endpoint in ("token", "revocation", "introspection"):
                algorithms = said[f"{endpoint}_endpoint_auth_signing_alg_values_supported"]
                assert algorithms == ["EdDSA", "Ed25519", "ES256", "RS256", "PS256"]
            assert said["code_challenge_methods_supported"] == ["S256"]
            assert said["authorization_response_iss_parameter_supported"] is True
            assert said["response_modes_supported"] == ["query"]
            assert said["dpop_signing_alg_values_supported"] == ["EdDSA", "Ed25519", "ES256"]
            assert said["grant_types_supported"] == [
                "authorization_code",
                "refresh_token",
                "client_credentials",
                "urn:ietf:params:oauth:grant-type:token-exchange",
            ]


async def test_the_resource_names_its_authorization_server_and_the_smallest_scope_only(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        for path in ("", "/mcp"):
            answer = await h.http.get(f"{h.issuer}/.well-known/oauth-protected-resource{path}")
            assert answer.json() == {
                "resource": h.resource,
                "authorization_servers": [h.issuer],
                "scopes_supported": ["mcp:connect"],
                "bearer_methods_supported": ["header"],
                "dpop_signing_alg_values_supported": ["EdDSA", "Ed25519", "ES256"],
                "dpop_bound_access_tokens_required": False,
            }


async def test_the_published_key_verifies_what_the_server_signs(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        metadata = (await h.http.get(f"{h.issuer}/.well-known/oauth-authorization-server")).json()
        (jwk,) = (await h.http.get(metadata["jwks_uri"])).json()["keys"]
        assert jwk.keys() == {"kty", "crv", "x", "kid", "use", "alg"}
        assert PublicKey.from_jwk(jwk) == h.keys.public[jwk["kid"]]


async def test_every_address_in_the_metadata_answers(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        metadata = (await h.http.get(f"{h.issuer}/.well-known/oauth-authorization-server")).json()
        assert metadata["authorization_endpoint"] == f"{h.issuer}/authorize"  # which the page serves
        refused(await h.http.post(metadata["token_endpoint"], data={"grant_type": "x"}), "unsupported_grant_type")
        for endpoint in ("revocation_endpoint", "introspection_endpoint"):
            refused(await h.http.post(metadata[endpoint], data={"token": "x"}), "invalid_client")


async def test_nothing_in_the_metadata_comes_from_the_request(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        liars = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example"}
        for name in ("oauth-authorization-server", "oauth-protected-resource"):
            answer = await h.http.get(f"{h.issuer}/.well-known/{name}", headers=liars)
            assert "evil" not in answer.text


async def test_the_issuer_key_is_the_same_after_a_restart(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        first = h.keys.kid
    async with office(tmp_path) as h:
        assert h.keys.kid == first


@pytest.mark.parametrize("issuer", ["http://gateway.example", "https://gateway.example/?a=b", "gateway"])
async def test_an_address_that_cannot_be_an_issuer_stops_the_start(tmp_path: Path, issuer: str) -> None:
    async with office(tmp_path) as h:
        with pytest.raises(ConfigError):
            _server(h, issuer)


def _server(h: House, issuer: str) -> OAuthServer:
    return OAuthServer(
        store=h.store,
        sessions=h.sessions,
        delegations=h.delegations,
        chains=h.chains,
        issuer=issuer,
        resource=f"{issuer}/mcp",
        signing=h.keys,
        clock=h.clock,
        count_refusal=lambda _reason, _peer: None,
        nonces=Nonces(key=bytes(32), demanded=True),
        hosted=h.hosted,
    )


async def test_bodies_that_are_no_form_are_refused_before_anything_else(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        url, form = f"{h.issuer}/token", {"Content-Type": "application/x-www-form-urlencoded"}
        before = await h.store.records()
        refused(await h.http.post(url, json={"grant_type": "client_credentials"}), "invalid_request")
        refused(await h.http.post(url, content=b"grant_type", headers=form), "invalid_request")
        refused(await h.http.post(url, content=b"a=\xff", headers=form), "invalid_request")
        refused(await h.http.post(url, content=b"a=%ff", headers=form), "invalid_request")
        refused(await h.http.post(url, content=b"a=1&a=1", headers=form), "invalid_request")
        refused(await h.http.post(url, content=b"a=1&b", headers=form), "invalid_request")
        refused(await h.http.post(url, content=b"a=" + b"x" * limits.FORM_BYTES, headers=form), "invalid_request", 413)
        refused(await h.http.post(url, data={"a": "b"}), "invalid_request")
        assert expect(await h.http.post(url, data={"grant_type": "x"}), 400)["error"] == "unsupported_grant_type"
        assert h.refusals.total() == 9 and await h.store.records() == before
