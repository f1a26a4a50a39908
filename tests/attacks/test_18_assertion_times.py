"""Row 18, for identity assertion grants: none counts before its time, after it, or for longer than its kind may."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from mcp_authz.errors import SignatureRefused
from mcp_authz.rules.assertion_keys import read_keys
from mcp_authz.rules.id_jag import Expected, read_assertion
from tests.identity_provider import ED, IdentityProvider, public, signed

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
PROVIDER = IdentityProvider(issuer="https://login.example.com", clock=lambda: NOW)
EXPECTED = Expected(
    issuer=PROVIDER.issuer, audience="https://gate.example.com", resource="r", client="cursor", tenant=None
)
KEYS = read_keys(json.dumps({"keys": [public(ED)]}).encode())


@pytest.mark.parametrize(
    ("offsets", "accepted"),
    [
        ({}, True),
        ({"iat": 25}, True),
        ({"iat": 35}, False),
        ({"nbf": 25}, True),
        ({"nbf": 35}, False),
        ({"iat": -300, "exp": -25}, True),
        ({"iat": -300, "exp": -35}, False),
        ({"iat": 0, "exp": 1200}, True),
        ({"iat": 0, "exp": 1201}, False),
        ({"iat": -3000, "exp": 60}, False),
        ({"iat": 10, "exp": 10}, False),
        ({"iat": 20, "exp": 10}, False),
        ({"exp": 10**12}, False),
        ({"auth_time": 25}, True),
        ({"auth_time": 35}, False),
        ({"auth_time": -(10**8)}, True),
    ],
    ids=str,
)
def test_an_assertion_counts_in_its_time_only(offsets: dict[str, int], accepted: bool) -> None:
    at = int(NOW.timestamp())
    said = PROVIDER.claims("U1", EXPECTED.audience, "cursor", **{name: at + offset for name, offset in offsets.items()})
    text = signed(said, key=ED, alg="EdDSA")
    if accepted:
        assertion = read_assertion(text, keys=KEYS, expected=EXPECTED, now=NOW)
        assert assertion.authentication is None or assertion.authentication.at <= NOW
    else:
        with pytest.raises(SignatureRefused):
            read_assertion(text, keys=KEYS, expected=EXPECTED, now=NOW)


@pytest.mark.parametrize("value", ["1777636800", True, None, -1, 1e400, {}, []])
@pytest.mark.parametrize("name", ["iat", "exp", "nbf", "auth_time"])
def test_a_time_is_a_number_of_seconds(name: str, value: object) -> None:
    said = {**PROVIDER.claims("U1", EXPECTED.audience, "cursor"), name: value}
    with pytest.raises(SignatureRefused):
        read_assertion(signed(said, key=ED, alg="EdDSA"), keys=KEYS, expected=EXPECTED, now=NOW)
