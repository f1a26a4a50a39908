"""What clients say of themselves, in documents and when they register themselves."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_authz import limits
from mcp_authz.errors import InputError
from mcp_authz.rules.client_document import (
    HANDLE,
    RedirectRefused,
    handles,
    read_document,
    read_registration,
    require_jwks,
    shown_name,
)
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.redirect_uri import SCHEMES

URL = "https://app.example.com/oauth/client-metadata.json"
KEY = PrivateKey.from_seed(bytes(32)).public
P256 = {  # RFC 7517 appendix A.1
    "kty": "EC",
    "crv": "P-256",
    "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
    "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM",
}
MINIMAL = {"client_id": URL, "client_name": "Example", "redirect_uris": ["http://127.0.0.1:3000/callback"]}


def document(**changes: Any) -> bytes:
    body = {**MINIMAL, **changes}
    return json.dumps({name: value for name, value in body.items() if value is not None}).encode()


def refused(**changes: Any) -> str:
    with pytest.raises(InputError) as error:
        read_document(document(**changes), url=URL, schemes=SCHEMES)
    return str(error.value)


def test_the_example_of_the_protocol_s_own_page_is_read() -> None:
    said = read_document(
        document(
            client_uri="https://app.example.com",
            logo_uri="https://app.example.com/logo.png",
            redirect_uris=["http://127.0.0.1:3000/callback", "http://[::1]:3000/callback"],
            grant_types=["authorization_code", "refresh_token"],
            response_types=["code"],
            token_endpoint_auth_method="none",
        ),
        url=URL,
        schemes=SCHEMES,
    )
    assert (said.name, said.method, said.jwks, said.jwks_uri) == ("Example", "none", None, None)
    assert said.redirect_uris == ("http://127.0.0.1:3000/callback", "http://[::1]:3000/callback")


KNOWN: dict[str, dict[str, Any]] = {
    "https://vscode.dev/oauth/client-metadata.json": {
        "client_name": "Visual Studio Code",
        "redirect_uris": ["http://127.0.0.1:33418/", "https://vscode.dev/redirect"],
        "grant_types": ["authorization_code", "refresh_token", "urn:ietf:params:oauth:grant-type:device_code"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        "application_type": "native",
    },
    "https://claude.ai/oauth/claude-code-client-metadata": {
        "client_name": "Claude Code",
        "redirect_uris": ["http://localhost/callback", "http://127.0.0.1/callback"],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
    },
    "https://chatgpt.com/oauth/client.json": {
        "client_name": "ChatGPT",
        "redirect_uris": ["https://chatgpt.com/connector_platform_oauth_redirect"],
        "token_endpoint_auth_method": "private_key_jwt",
        "token_endpoint_auth_methods_supported": ["none", "private_key_jwt"],
        "token_endpoint_auth_signing_alg": "RS256",
        "jwks_uri": "https://chatgpt.com/oauth/jwks.json",
    },
}


@pytest.mark.parametrize("url", KNOWN)
def test_documents_such_as_well_known_clients_have_are_read(url: str) -> None:
    said = read_document(json.dumps({"client_id": url, **KNOWN[url]}).encode(), url=url, schemes=SCHEMES)
    assert said.name == KNOWN[url]["client_name"] and list(said.redirect_uris) == KNOWN[url]["redirect_uris"]
    assert said.method == KNOWN[url]["token_endpoint_auth_method"] and said.jwks_uri == KNOWN[url].get("jwks_uri")


def test_a_document_with_the_least_that_it_must_have_is_that_of_a_public_client() -> None:
    assert read_document(document(), url=URL, schemes=SCHEMES).method == "none"


def test_a_client_with_a_key_has_it_in_its_document_or_says_where_it_is() -> None:
    keyed = document(token_endpoint_auth_method="private_key_jwt", jwks={"keys": [{**KEY.jwk, "kid": "1", "x5u": "x"}]})
    assert read_document(keyed, url=URL, schemes=SCHEMES).jwks == {"keys": [{**KEY.jwk, "kid": "1"}]}
    uri = "https://app.example.com/jwks.json"
    elsewhere = document(token_endpoint_auth_method="private_key_jwt", jwks_uri=uri)
    assert read_document(elsewhere, url=URL, schemes=SCHEMES).jwks_uri == uri


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": None},
        {"client_id": URL + "/"},
        {"client_id": URL.replace("https", "HTTPS")},
        {"client_id": [URL]},
        {"client_name": None},
        {"client_name": 7},
        {"redirect_uris": None},
        {"redirect_uris": []},
        {"redirect_uris": "http://127.0.0.1/callback"},
        {"redirect_uris": [1]},
        {"redirect_uris": [f"https://example.com/{n}" for n in range(limits.REDIRECT_URIS + 1)]},
        {"redirect_uris": ["http://127.0.0.1/callback", "javascript:alert(1)"]},
        {"redirect_uris": ["http://example.com/callback"]},
        {"token_endpoint_auth_method": "client_secret_basic"},
        {"token_endpoint_auth_method": "client_secret_post"},
        {"token_endpoint_auth_method": "client_secret_jwt"},
        {"token_endpoint_auth_method": "tls_client_auth"},
        {"token_endpoint_auth_method": ["none"]},
        {"client_secret": "everybody reads this"},
        {"client_secret_expires_at": 0},
        {"grant_types": ["client_credentials"]},
        {"grant_types": "authorization_code"},
        {"response_types": ["token"]},
        {"token_endpoint_auth_method": "private_key_jwt"},
        {"token_endpoint_auth_method": "private_key_jwt", "jwks": {"keys": []}},
        {
            "token_endpoint_auth_method": "private_key_jwt",
            "jwks": {"keys": [KEY.jwk]},
            "jwks_uri": "https://a.example/k",
        },
        {"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "http://app.example.com/jwks.json"},
        {"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "https://127.0.0.1/jwks.json"},
        {"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": 1},
        {"token_endpoint_auth_method": "private_key_jwt", "jwks": {"keys": [{**KEY.jwk, "d": "AAAA"}]}},
        {"token_endpoint_auth_method": "private_key_jwt", "jwks": {"keys": [KEY.jwk, {"kty": "oct", "k": "AAAA"}]}},
    ],
)
def test_a_document_that_is_none_of_this_client_is_refused(changes: dict[str, Any]) -> None:
    assert refused(**changes)


def test_a_document_is_no_client_s_when_it_can_be_read_in_two_ways() -> None:
    twice = document()[:-1] + b', "redirect_uris": ["https://evil.example/cb"]}'
    with pytest.raises(InputError, match="twice"):
        read_document(twice, url=URL, schemes=SCHEMES)


def test_keys_of_types_that_are_not_read_here_are_passed_over() -> None:
    known = require_jwks(
        {"keys": [{"kty": "RSA", "n": "AQAB", "e": "AQAB"}, {"kty": "OKP", "crv": "X25519"}, P256, KEY.jwk]}
    )
    assert [key["kty"] for key in known["keys"]] == ["EC", "OKP"]
    with pytest.raises(InputError, match="1 to 8 keys"):
        require_jwks({"keys": [P256] * 9})


def test_a_client_that_registers_itself_has_a_secret_unless_it_says_otherwise() -> None:
    asked = {"redirect_uris": ["http://localhost:3334/oauth/callback"]}
    assert read_registration(asked, schemes=SCHEMES).method == "client_secret_basic"  # RFC 7591 section 2
    stock = {**asked, "client_name": "MCP CLI", "token_endpoint_auth_method": "none", "scope": "a", "software_id": "b"}
    assert read_registration(stock, schemes=SCHEMES).method == "none"


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"redirect_uris": ["http://evil.example/cb"]}, RedirectRefused),
        ({"redirect_uris": None}, RedirectRefused),
        ({"software_statement": "x"}, InputError),
        ({"token_endpoint_auth_method": "private_key_jwt", "jwks_uri": "https://a.example/jwks"}, InputError),
        ({"token_endpoint_auth_method": "private_key_jwt"}, InputError),
        ({"token_endpoint_auth_method": "client_secret_jwt"}, InputError),
        ({"client_name": ["x"]}, InputError),
    ],
)
def test_what_a_client_cannot_register_is_said_by_kind(changes: dict[str, Any], kind: type[InputError]) -> None:
    with pytest.raises(InputError) as error:
        read_registration({"redirect_uris": ["http://localhost/cb"], **changes}, schemes=SCHEMES)
    assert type(error.value) is kind


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("Cursor", "Cursor"),
        ("  Claude\n Code\t", "Claude Code"),
        ("Cur\u200bsor\u202e", "Cursor"),
        ("\u3164", "a client without a name"),
        ("", "a client without a name"),
        ("a" * 200, "a" * limits.CLIENT_NAME),
    ],
)
def test_a_name_is_shown_without_what_is_hidden_in_it(name: str, shown: str) -> None:
    assert shown_name(name) == shown


@pytest.mark.parametrize(
    ("name", "handle"),
    [
        ("Cursor", "cursor"),
        ("Claude Code (work)", "claude-code-work"),
        ("Café", "cafe"),
        ("Сursor", "ursor"),  # noqa: RUF001 - the first letter is Cyrillic
        ("Cur\u200bsor", "cursor"),
        ("客户端", "client"),
        ("---", "client"),
        ("a" * 23 + "-b", "a" * 23),
        ("CLI", "cli-2"),
    ],
)
def test_the_handle_is_made_of_what_is_plain_in_the_name(name: str, handle: str) -> None:
    assert next(handles(name, URL)) == handle


@given(st.text(), st.text())
def test_every_handle_is_short_plain_and_different(name: str, client_id: str) -> None:
    offered = list(handles(name, client_id))
    assert len(offered) == len(set(offered)) >= 4 and "cli" not in offered
    for handle in offered:
        assert 0 < len(handle) <= HANDLE and handle.strip("-") == handle
        assert set(handle) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
