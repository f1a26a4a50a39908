"""Tokens that are read, believed, refused for their type, and judged by their times."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_authz.errors import InputError, SignatureRefused
from mcp_authz.rules import jose, strict_json
from mcp_authz.rules.canonical import canonical
from mcp_authz.rules.keys import PrivateKey, PublicKey, b64url, unb64url
from tests.rules.test_strict_json import text

KEY = PrivateKey.from_seed(bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60"))
NOW = datetime(2026, 11, 2, 12, 0, tzinfo=UTC)
AT = int(NOW.timestamp())
SKEW = timedelta(seconds=30)
LIFETIME = timedelta(minutes=10)


def test_the_signature_of_rfc_8037_appendix_a_4_verifies() -> None:
    signing_input = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc"
    signature = "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    assert b64url(KEY.sign(signing_input)) == signature
    KEY.public.verify(signing_input, unb64url(signature))


def test_a_token_has_these_bytes() -> None:
    token = jose.sign({"sub": "user:alice", "exp": 2}, typ="at+jwt", key=KEY, kid="k1")
    header, claims, _ = token.split(".")
    assert unb64url(header) == b'{"alg":"EdDSA","typ":"at+jwt","kid":"k1"}'
    assert unb64url(claims) == b'{"exp":2,"sub":"user:alice"}'
    assert token.endswith("." + b64url(KEY.sign(f"{header}.{claims}".encode()))) and token == jose.sign(
        {"exp": 2, "sub": "user:alice"}, typ="at+jwt", key=KEY, kid="k1"
    )


@given(st.dictionaries(text, st.integers(-9, 9)))
def test_claims_that_were_signed_are_believed(claims: dict[str, int]) -> None:
    unverified = jose.read(jose.sign(claims, typ="aat+jwt", key=KEY))
    assert unverified.verify(KEY.public, typ="aat+jwt") == claims
    assert unverified.kid is None


def test_claims_without_a_canonical_form_are_not_signed() -> None:
    with pytest.raises(InputError):
        jose.sign({"n": 2**60}, typ="at+jwt", key=KEY)


def test_a_proof_shows_its_key_and_is_verified_with_it() -> None:
    proof = jose.read(jose.sign_showing_key({"htm": "POST"}, typ="dpop+jwt", key=KEY), allow_jwk=True)
    shown = PublicKey.from_jwk(proof.header["jwk"])
    assert shown == KEY.public
    assert proof.verify(shown, typ="dpop+jwt") == {"htm": "POST"}


def test_nothing_is_believed_before_the_type_and_the_signature_are_checked() -> None:
    unverified = jose.read(jose.sign({"sub": "a"}, typ="at+jwt", key=KEY))
    with pytest.raises(SignatureRefused, match="typ"):
        unverified.verify(KEY.public, typ="aat+jwt")
    with pytest.raises(SignatureRefused, match="not made with this key"):
        unverified.verify(PrivateKey.generate().public, typ="at+jwt")


def test_an_unverified_token_is_not_printed() -> None:
    token = jose.sign({"sub": "user:alice"}, typ="at+jwt", key=KEY)
    assert repr(jose.read(token)) == "UnverifiedJws(<redacted>)"


def typed(typ: object) -> jose.UnverifiedJws:
    header = {"alg": "EdDSA"} if typ is ... else {"alg": "EdDSA", "typ": typ}
    signing_input = f"{b64url(strict_json.dump(header))}.{b64url(canonical({}))}"
    return jose.read(f"{signing_input}.{b64url(KEY.sign(signing_input.encode()))}")


@pytest.mark.parametrize("own", ["at+jwt", "AT+JWT", "application/at+jwt", "Application/At+Jwt"])
@pytest.mark.parametrize("wanted", ["at+jwt", "application/at+jwt", frozenset({"x", "at+jwt"})])
def test_a_type_is_compared_as_a_media_type(own: str, wanted: str | frozenset[str]) -> None:
    assert typed(own).verify(KEY.public, typ=wanted) == {}


@pytest.mark.parametrize(
    "own", ["JWT", "aat+jwt", "text/at+jwt", "at+jwt ", "at", "", "application/application/at+jwt", ...]
)
def test_another_type_is_refused(own: object) -> None:
    for wanted in ("at+jwt", frozenset({"at+jwt"}), frozenset[str]()):
        with pytest.raises(SignatureRefused):
            typed(own).verify(KEY.public, typ=wanted)


@pytest.mark.parametrize("own", ["JWT", "jwt", "application/jwt", ...])
def test_the_slot_of_client_assertions_takes_tokens_without_a_type_of_their_own(own: object) -> None:
    assert typed(own).verify(KEY.public, typ=None) == {}


@pytest.mark.parametrize("own", ["at+jwt", "aat+jwt", "aat-pop+jwt", "dpop+jwt", "", "text/jwt"])
def test_the_slot_of_client_assertions_takes_no_token_of_another_kind(own: str) -> None:
    with pytest.raises(SignatureRefused):
        typed(own).verify(KEY.public, typ=None)


@pytest.mark.parametrize("typ", [None, 1, ["at+jwt"], "a" * 1025], ids=lambda typ: type(typ).__name__)
def test_a_type_that_is_no_sensible_text_is_refused(typ: object) -> None:
    with pytest.raises(SignatureRefused, match="typ"):
        typed(typ)


def judged(claims: dict[str, Any], *, max_lifetime: timedelta | None = LIFETIME) -> tuple[datetime, datetime]:
    return jose.require_times(claims, now=NOW, skew=SKEW, max_lifetime=max_lifetime)


@pytest.mark.parametrize(
    "claims",
    [
        {"iat": AT, "exp": AT + 600},
        {"iat": AT, "exp": AT + 1, "nbf": AT},
        {"iat": AT + 30, "exp": AT + 60},
        {"iat": AT - 600, "exp": AT - 29},
        {"iat": AT - 0.5, "exp": AT + 0.5, "nbf": AT + 30},
    ],
)
def test_times_that_hold_now_are_returned(claims: dict[str, Any]) -> None:
    issued_at, expires_at = judged(claims)
    assert (issued_at.timestamp(), expires_at.timestamp()) == (claims["iat"], claims["exp"])
    assert issued_at.tzinfo is UTC and expires_at.tzinfo is UTC


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ({"iat": AT + 31, "exp": AT + 60}, "future"),
        ({"iat": AT - 600, "exp": AT - 30}, "expired"),
        ({"iat": AT, "exp": AT + 60, "nbf": AT + 31}, "not valid yet"),
        ({"iat": AT, "exp": AT}, "before it is issued"),
        ({"iat": AT, "exp": AT - 1}, "before it is issued"),
        ({"iat": AT, "exp": AT + 601}, "longer than 600 seconds"),
        ({"exp": AT + 60}, "`iat`"),
        ({"iat": AT}, "`exp`"),
        ({"iat": AT, "exp": AT + 60, "nbf": None}, "`nbf`"),
    ],
)
def test_times_that_do_not_hold_are_refused_with_the_reason(claims: dict[str, Any], reason: str) -> None:
    with pytest.raises(SignatureRefused, match=reason):
        judged(claims)


@pytest.mark.parametrize(
    "value", [True, False, None, "1", str(AT), [AT], {}, float("nan"), float("inf"), -1, 10**30, 1e18]
)
@pytest.mark.parametrize("name", ["iat", "exp", "nbf"])
def test_what_is_no_date_is_no_time(name: str, value: object) -> None:
    with pytest.raises(SignatureRefused, match=f"`{name}`"):
        judged({"iat": AT, "exp": AT + 60, "nbf": AT, name: value}, max_lifetime=None)


def test_a_token_without_a_bound_may_live_long() -> None:
    assert judged({"iat": AT, "exp": 253402300799}, max_lifetime=None)[1].year == 9999


def test_a_text_claim_is_returned() -> None:
    assert jose.require_text({"sub": "user:alice"}, "sub") == "user:alice"
    assert jose.require_text({"sub": "abc"}, "sub", max_length=3) == "abc"


@pytest.mark.parametrize(
    "claims", [{}, {"sub": None}, {"sub": ""}, {"sub": 1}, {"sub": ["a"]}, {"sub": "abcd"}], ids=str
)
def test_a_text_claim_that_is_missing_empty_long_or_no_text_is_refused(claims: dict[str, Any]) -> None:
    with pytest.raises(SignatureRefused, match="`sub`"):
        jose.require_text(claims, "sub", max_length=3)
