"""Identity assertion grants and the keys that sign them: what is believed, and what is not."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from joserfc.jwk import ECKey, OKPKey

from mcp_authz.errors import InputError, KeyRefused, SignatureRefused
from mcp_authz.rules.assertion_keys import read_keys
from mcp_authz.rules.id_jag import Expected, IdentityAssertion, read_assertion
from mcp_authz.rules.keys import b64url
from mcp_authz.rules.rsa import RsaKey
from mcp_authz.rules.scope import parse_scopes
from tests.identity_provider import EC, ED, OTHER_RSA, RSA, IdentityProvider, public, signed

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
PROVIDER = IdentityProvider(issuer="https://login.example.com", clock=lambda: NOW)
EXPECTED = Expected(
    issuer=PROVIDER.issuer,
    audience="https://gate.example.com",
    resource="https://gate.example.com/mcp",
    client="cursor",
    tenant=None,
)
KEYS = [public(RSA), public(EC), public(ED)]
AT = int(NOW.timestamp())


def claims(**changes: Any) -> dict[str, Any]:
    return PROVIDER.claims("U1", EXPECTED.audience, "cursor", **changes)


def read(text: str, keys: list[dict[str, Any]] | None = None, **expected: Any) -> IdentityAssertion:
    wanted = Expected(**{**{name: getattr(EXPECTED, name) for name in Expected.__dataclass_fields__}, **expected})
    published = read_keys(json.dumps({"keys": KEYS if keys is None else keys}).encode())
    return read_assertion(text, keys=published, expected=wanted, now=NOW)


def test_an_assertion_says_who_signed_in_how_and_for_what() -> None:
    said = claims(
        scope="pr:read pr:write",
        auth_time=AT - 60,
        amr=["mfa", "hwk"],
        resource=EXPECTED.resource,
        unheard_of={"of": 1},
    )
    assertion = read(signed(said))
    assert (assertion.subject, assertion.id, assertion.scope) == ("U1", said["jti"], parse_scopes("pr:read pr:write"))
    assert assertion.authentication is not None and assertion.names_resource
    assert assertion.authentication.at == NOW - timedelta(seconds=60)
    assert (assertion.authentication.amr, assertion.authentication.issuer) == (("mfa", "hwk"), PROVIDER.issuer)
    assert assertion.expires_at == NOW + timedelta(minutes=5)


def test_what_an_assertion_does_not_say_is_not_made_up() -> None:
    assertion = read(signed(claims()))
    assert (assertion.scope, assertion.authentication, assertion.confirmation) == (None, None, None)
    assert not assertion.names_resource


@pytest.mark.parametrize(
    ("key", "alg", "jwk"),
    [
        (RSA, "RS256", public(RSA)),
        (RSA, "RS256", public(RSA, alg="RS256")),
        (RSA, "PS256", public(RSA, alg="PS256")),
        (EC, "ES256", public(EC)),
        (ED, "EdDSA", public(ED)),
        (ED, "Ed25519", public(ED)),
    ],
    ids=["rs256", "rs256 said", "ps256", "es256", "eddsa", "ed25519"],
)
def test_each_kind_of_key_signs_by_its_own_algorithm(key: Any, alg: str, jwk: Any) -> None:
    assert read(signed(claims(), key=key, alg=alg), [jwk]).subject == "U1"


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": None},
        {"iss": "https://login.example.com/"},
        {"aud": None},
        {"aud": EXPECTED.resource},
        {"aud": "https://gate.example.com/"},
        {"aud": [EXPECTED.audience, "https://other.example.com"]},
        {"aud": []},
        {"client_id": None},
        {"client_id": "claude"},
        {"client_id": ["cursor"]},
        {"sub": None},
        {"sub": ""},
        {"sub": 1},
        {"sub": "U" * 257},
        {"jti": None},
        {"iat": None},
        {"exp": None},
        {"resource": "https://other.example.com/mcp"},
        {"resource": ["https://other.example.com/mcp"]},
        {"resource": {}},
        {"scope": ["pr:read"]},
        {"scope": "pr::read"},
        {"tenant": "acme"},
        {"act": {"sub": "someone"}},
        {"authorization_details": [{"type": "payment"}]},
        {"amr": "mfa"},
        {"amr": [1]},
        {"amr": ["x" * 65]},
        {"amr": ["x"] * 17},
        {"auth_time": "yesterday"},
        {"auth_time": AT + 60},
        {"cnf": {"x5t#S256": "print"}},
        {"cnf": {"jkt": "print", "x5t#S256": "print"}},
    ],
    ids=str,
)
def test_an_assertion_that_says_something_else_is_not_believed(changes: dict[str, Any]) -> None:
    with pytest.raises(SignatureRefused):
        read(signed(claims(**changes)))


@pytest.mark.parametrize(
    "changes", [{"aud": [EXPECTED.audience]}, {"resource": [EXPECTED.resource, "https://x.example"]}]
)
def test_a_list_that_names_what_is_meant_is_as_good_as_its_name(changes: dict[str, Any]) -> None:
    assert read(signed(claims(**changes))).subject == "U1"


def test_a_provider_with_tenants_is_believed_for_the_configured_one_alone() -> None:
    assert read(signed(claims(tenant="acme")), tenant="acme").subject == "U1"
    for tenant in (None, "other"):
        with pytest.raises(SignatureRefused, match="tenant"):
            read(signed(claims(tenant=tenant)), tenant="acme")


@pytest.mark.parametrize(
    "header",
    [
        {"kid": None},
        {"kid": "rsa-9"},
        {"kid": 1},
        {"typ": "JWT"},
        {"typ": None},
        {"typ": "at+jwt"},
        {"crit": ["exp"]},
        {"b64": True},
        {"jku": "https://login.example.com/keys"},
        {"x5u": "https://login.example.com/keys"},
        {"x5c": ["MII"]},
        {"jwk": public(RSA)},
    ],
    ids=lambda header: next(iter(header)),
)
def test_a_header_that_wants_more_than_a_known_key_is_refused(header: dict[str, Any]) -> None:
    with pytest.raises(SignatureRefused):
        read(signed(claims(), **header))


def test_keys_that_cannot_be_used_are_passed_over_and_the_others_count() -> None:
    others = [
        {"kty": "RSA", "kid": "short", "n": b64url((2**1024 - 1).to_bytes(128)), "e": "AQAB"},
        public(OTHER_RSA, use="enc"),
        public(OTHER_RSA, alg="RS512"),
        public(ECKey.generate_key("P-384", parameters={"kid": "p384"})),
        public(OKPKey.generate_key("X25519", parameters={"kid": "x"})),
        {"kty": "oct", "kid": "secret", "k": "c2VjcmV0"},
        {name: value for name, value in public(OTHER_RSA).items() if name != "kid"},
        "no key",
    ]
    keys = read_keys(json.dumps({"keys": [*others, public(RSA)]}).encode())
    assert set(keys) == {("rsa-1", "RS256")}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": []}',
        json.dumps({"keys": [public(RSA), {**public(OTHER_RSA), "kid": "rsa-1"}]}).encode(),
        json.dumps({"keys": [public(RSA)], "more": "x" * 64 * 1024}).encode(),
    ],
    ids=["nothing", "a list", "an object", "no list", "no key", "two of one id", "too long"],
)
def test_what_is_no_set_of_keys_or_an_ambiguous_one_is_refused(body: bytes) -> None:
    with pytest.raises(InputError):
        read_keys(body)


@pytest.mark.parametrize(
    "changes",
    [
        {"e": "AQAA"},
        {"e": "Aw"},
        {"e": "AAEAAQ"},
        {"n": ""},
        {"n": None},
        {"n": "AA" + str(public(RSA)["n"])},
        {"n": b64url((2**4096 + 1).to_bytes(513))},
        {"d": "AQAB"},
    ],
    ids=["e even", "e small", "e padded", "n empty", "n missing", "n padded", "n long", "d"],
)
def test_an_rsa_key_has_one_spelling_and_a_sensible_size(changes: dict[str, Any]) -> None:
    with pytest.raises(KeyRefused):
        RsaKey.from_jwk({**public(RSA), **changes})
