"""Metadata documents of agents: what ours say, and what is taken from those of others."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mcp_authz.errors import InputError, KeyRefused
from mcp_authz.principals import AgentName, Key, Thumbprint
from mcp_authz.rules.client_metadata import document, read_document, read_jwks, require_url, showable
from mcp_authz.rules.keys import PrivateKey

URL = "https://agents.example.com/coder"
AT = datetime(2026, 5, 1, tzinfo=UTC)
FIRST, SECOND, THIRD = (PrivateKey.from_seed(bytes([number]) * 32).public for number in (1, 2, 3))


def held(key: Any, **more: Any) -> Key:
    return Key(thumbprint=Thumbprint(key.thumbprint), holder="agent:coder", raw=key.raw, added_at=AT, **more)


def theirs(**changes: Any) -> bytes:
    body = {
        "client_id": URL,
        "client_name": "Coder",
        "token_endpoint_auth_method": "private_key_jwt",
        "jwks": {"keys": [FIRST.jwk]},
        **changes,
    }
    return json.dumps({name: value for name, value in body.items() if value is not None}).encode()


def test_a_document_of_ours_has_these_members_and_no_others() -> None:
    assert document("https://gate.example.com", AgentName("coder"), [held(FIRST)]) == {
        "client_id": "https://gate.example.com/agents/coder",
        "client_name": "coder",
        "grant_types": ["client_credentials", "urn:ietf:params:oauth:grant-type:token-exchange"],
        "token_endpoint_auth_method": "private_key_jwt",
        "token_endpoint_auth_signing_alg": "EdDSA",
        "jwks": {
            "keys": [
                {
                    "kty": "OKP",
                    "crv": "Ed25519",
                    "x": "iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w",
                    "kid": FIRST.thumbprint,
                    "use": "sig",
                    "alg": "EdDSA",
                }
            ]
        },
    }


def test_a_document_of_ours_is_one_that_we_would_take_from_others() -> None:
    ours = document("https://gate.example.com", AgentName("coder"), [held(FIRST), held(SECOND)])
    read = read_document(json.dumps(ours).encode(), url="https://gate.example.com/agents/coder")
    assert read.keys == (FIRST, SECOND) and read.jwks_uri is None


def test_keys_are_shown_until_they_end() -> None:
    keys = [
        held(FIRST, retires_at=AT),
        held(SECOND, retires_at=AT + timedelta(seconds=1)),
        held(THIRD, status="revoked"),
    ]
    assert [key.thumbprint for key in showable(keys, AT)] == [SECOND.thumbprint]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"client_id": URL + "/"}, InputError),
        ({"client_id": None}, InputError),
        ({"client_id": [URL]}, InputError),
        ({"token_endpoint_auth_method": "none"}, InputError),
        ({"token_endpoint_auth_method": None}, InputError),
        ({"token_endpoint_auth_signing_alg": "ES256"}, InputError),
        ({"jwks": None}, InputError),
        ({"jwks_uri": "https://agents.example.com/keys"}, InputError),
        ({"jwks": None, "jwks_uri": "http://agents.example.com/keys"}, InputError),
        ({"jwks": None, "jwks_uri": 7}, InputError),
        ({"jwks": []}, InputError),
        ({"jwks": {"keys": "x"}}, InputError),
        ({"jwks": {"keys": []}}, KeyRefused),
        ({"jwks": {"keys": [FIRST.jwk, SECOND.jwk, THIRD.jwk]}}, KeyRefused),
        ({"jwks": {"keys": [FIRST.jwk, FIRST.jwk]}}, KeyRefused),
        ({"jwks": {"keys": ["x"]}}, KeyRefused),
        ({"jwks": {"keys": [{**FIRST.jwk, "d": FIRST.jwk["x"]}]}}, KeyRefused),
        ({"jwks": {"keys": [{"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}]}}, KeyRefused),
        ({"jwks": {"keys": [FIRST.jwk, {"kty": "oct", "k": "AA"}]}}, KeyRefused),
    ],
    ids=str,
)
def test_a_document_that_is_not_as_it_should_be_is_refused(changes: dict[str, Any], error: type[Exception]) -> None:
    assert read_document(theirs(), url=URL).keys == (FIRST,)
    with pytest.raises(error):
        read_document(theirs(**changes), url=URL)


@pytest.mark.parametrize("raw", [b"", b"[]", b"null", b"{", b"\xff", b'{"client_id":"a","client_id":"b"}'])
def test_what_is_no_strict_json_object_is_no_document(raw: bytes) -> None:
    for read in (lambda: read_document(raw, url=URL), lambda: read_jwks(raw)):
        with pytest.raises(InputError):
            read()


@pytest.mark.parametrize(
    "url", [URL, "https://a.bc/x", "https://xn--bcher-kva.example/.well-known/agent.json", URL + "/"]
)
def test_a_url_with_the_full_name_of_a_host_and_a_path_is_one(url: str) -> None:
    assert require_url(url) == url


@pytest.mark.parametrize(
    "url",
    [
        "http://agents.example.com/coder",
        "ftp://agents.example.com/coder",
        "file:///etc/passwd",
        "//agents.example.com/coder",
        "https:/agents.example.com/coder",
        "https://agents.example.com",
        "https://agents.example.com/",
        "https://agents.example.com/a/../b",
        "https://agents.example.com/./b",
        "https://agents.example.com/coder?x=1",
        "https://agents.example.com/coder?",
        "https://agents.example.com/coder#x",
        "https://agents.example.com/coder#",
        "https://alice@agents.example.com/coder",
        "https://alice:secret@agents.example.com/coder",
        "https://@agents.example.com/coder",
        "https://agents.example.com:0/coder",
        "https://agents.example.com:99999/coder",
        "https://agents.example.com:/coder",
        "https://agents.example.com:0443/coder",
        "https://AGENTS.example.com/coder",
        "HTTPS://agents.example.com/coder",
        "https://agents.example.com./coder",
        "https://agents..example.com/coder",
        "https://-agents.example.com/coder",
        "https://b\u00fccher.example/coder",
        "https://agents.example.com/co der",
        "https://agents.example.com/co\tder",
        "https://agents.example.com/coder\n",
        "https://agents.example.com\\@127.0.0.1/coder",
        "https://localhost/coder",
        "https://localhost./coder",
        "https://intranet/coder",
        "https://127.0.0.1/coder",
        "https://2130706433/coder",
        "https://0x7f000001/coder",
        "https://0177.0.0.1/coder",
        "https://127.1/coder",
        "https://0/coder",
        "https://[::1]/coder",
        "https://[::ffff:127.0.0.1]/coder",
        "https://169.254.169.254/latest/meta-data",
        "https://agents.example.com/" + "x" * 600,
        "",
        "coder",
    ],
)
def test_every_other_url_is_refused_before_anything_is_looked_up(url: str) -> None:
    with pytest.raises(InputError):
        require_url(url)
