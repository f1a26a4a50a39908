"""Proofs of possession: the vectors of RFC 9449, RFC 7515 and RFC 8037, and every check of RFC 9449 section 4.3."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mcp_authz import limits
from mcp_authz.errors import KeyRefused, SignatureRefused
from mcp_authz.principals import Once
from mcp_authz.rules import jose
from mcp_authz.rules.dpop import DpopProof, NonceRefused, Nonces, make_proof, normalized, only_proof, read_proof
from mcp_authz.rules.es256 import P256Key
from mcp_authz.rules.keys import PrivateKey, b64url, unb64url
from tests.proofs import OUT, AnyKey, EcKey, proof, public_of, thumbprint_of

URL = "https://gate.example/mcp"
NOW = datetime(2026, 9, 1, 12, 0, tzinfo=UTC)
TOKEN = "the.access.token"
ED, EC = PrivateKey.from_seed(bytes(range(32))), EcKey()
NONCES = Nonces(key=bytes(32), demanded=False)
DEMANDED = Nonces(key=bytes(32), demanded=True)
BOTH = pytest.mark.parametrize("key", [ED, EC], ids=["Ed25519", "P-256"])


def accept(text: str, **facts: Any) -> DpopProof:
    """What comes of the proof at a request for URL with TOKEN, at NOW."""
    base = {"method": "POST", "url": URL, "now": NOW, "access_token": TOKEN, "nonces": NONCES}
    return read_proof(text, **{**base, **facts})


def made(key: AnyKey = ED, **said: Any) -> str:
    """A proof that `accept` accepts, but for what is said."""
    return proof(key, **{"url": URL, "at": NOW, "token": TOKEN, **said})


# RFC 9449 section 4.1 (figure 1) and section 7.1 (figure 12); both have the same header, of section 4.2 (figure 2)
HEADER = (
    "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJo"
    "RjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19"
)
AT_TOKEN = (
    f"{HEADER}.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2Vu"
    "IiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg"
)
AT_RESOURCE = (
    f"{HEADER}.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90"
    "ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9."
    "2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA"
)
JKT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"  # RFC 9449 section 6.1 (figure 10)


def test_the_proofs_of_rfc_9449_are_accepted_by_the_thumbprint_printed_there() -> None:
    at = datetime.fromtimestamp(1562262616, UTC)
    url = "https://server.example.com/token"
    shown = read_proof(AT_TOKEN, method="POST", url=url, now=at, access_token=None, nonces=None)
    assert shown == DpopProof(key=JKT, id="-BwC3ESc6acc2lTc", expires_at=at + limits.CLOCK_SKEW)  # type: ignore[arg-type]

    url, token = "https://resource.example.org/protectedresource", "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
    shown = read_proof(AT_RESOURCE, method="GET", url=url, now=at, access_token=token, nonces=None)
    assert (shown.key, shown.id) == (JKT, "e1j3V_bKic8-LAEB")


def test_the_signature_of_rfc_7515_appendix_a_3_verifies_and_no_other_does() -> None:
    text = (
        "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0"
        "cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
    )
    x, y = "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"
    key = P256Key.from_jwk({"kty": "EC", "crv": "P-256", "x": x, "y": y})
    signing_input, _, signature = text.rpartition(".")
    key.verify(signing_input.encode(), unb64url(signature))
    for wrong in (bytes(64), unb64url(signature)[::-1], unb64url(signature)[:63], b"\xff" * 64, b""):
        with pytest.raises(SignatureRefused):
            key.verify(signing_input.encode(), wrong)
    with pytest.raises(SignatureRefused):
        key.verify(b"something else", unb64url(signature))


def test_a_proof_shows_the_thumbprint_of_rfc_8037_for_the_key_printed_there() -> None:
    seed = unb64url("nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A")  # appendix A.1
    shown = accept(made(PrivateKey.from_seed(seed)))
    assert shown.key == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"  # appendix A.3


@BOTH
def test_a_proof_of_this_request_is_accepted_until_it_is_too_old(key: AnyKey) -> None:
    shown = accept(made(key, jti="x"))
    assert shown == DpopProof(key=thumbprint_of(key), id="x", expires_at=NOW + limits.CLOCK_SKEW)  # type: ignore[arg-type]
    once = Once(kind="dpop", id=f"{thumbprint_of(key)}:x", expires_at=shown.expires_at, issued_at=NOW)
    assert shown.once == once
    assert accept(made(key, header={"typ": "application/DPoP+jwt"}))


def test_a_proof_that_is_made_here_is_accepted_and_always_written_like_this() -> None:
    text = make_proof(ED, method="POST", url=f"{URL}?a#b", at=NOW, id="one", access_token=TOKEN, nonce="two")
    nonces = Nonces(key=b"", demanded=False)
    with pytest.raises(NonceRefused):
        accept(text, nonces=nonces)
    assert jose.read(text, allow_jwk=True).header == {"alg": "EdDSA", "jwk": ED.public.jwk, "typ": "dpop+jwt"}
    payload = unb64url(text.split(".")[1])
    assert payload == (
        b'{"ath":"R2a7yCsxS8BpCgk-2VRP3xHZJ8n6zSvOygTlU97Z9m0","htm":"POST","htu":"https://gate.example/mcp",'
        b'"iat":1788264000,"jti":"one","nonce":"two"}'
    )
    plain = make_proof(ED, method="GET", url=URL, at=NOW, id="one")
    assert accept(plain, method="GET", access_token=None).id == "one"
    assert unb64url(plain.split(".")[1]) == (
        b'{"htm":"GET","htu":"https://gate.example/mcp","iat":1788264000,"jti":"one"}'
    )


def test_a_request_has_exactly_one_proof() -> None:
    assert only_proof(["x"]) == "x"
    for lines in ((), ("x", "y"), ("x", "x")):
        with pytest.raises(SignatureRefused, match="exactly one"):
            only_proof(lines)
    with pytest.raises(SignatureRefused):
        accept(f"{made()}, {made()}")  # as one line of a proxy that joins them


@BOTH
@pytest.mark.parametrize("name", ["jti", "htm", "htu", "iat", "ath"])
def test_a_claim_that_is_missing_or_of_another_kind_is_refused(key: AnyKey, name: str) -> None:
    values: list[Any] = [OUT, None, [], {}, True, "" if name != "iat" else "1788264000"]
    for value in values:
        with pytest.raises(SignatureRefused):
            accept(made(key, **{name: value}))


@pytest.mark.parametrize(
    "typ", [OUT, None, "", "JWT", "at+jwt", "dpop", "dpop+jwt ", "application/jwt", "text/dpop+jwt"]
)
def test_a_proof_of_another_type_is_refused(typ: object) -> None:
    with pytest.raises(SignatureRefused):
        accept(made(header={"typ": typ}))


@BOTH
@pytest.mark.parametrize(
    "alg",
    [OUT, None, "none", "HS256", "RS256", "PS256", "ES384", "ES512", "ES256K", "Ed448", "es256", "eddsa", 1, ["ES256"]],
)
def test_another_algorithm_is_refused_though_the_signature_is_right(key: AnyKey, alg: object) -> None:
    with pytest.raises(SignatureRefused, match="alg"):
        accept(made(key, header={"alg": alg}))


def test_both_names_of_ed25519_are_one_algorithm_and_that_of_the_other_kind_is_not() -> None:
    assert accept(made(ED, header={"alg": "Ed25519"})).key == accept(made(ED, header={"alg": "EdDSA"})).key
    for key, alg in ((ED, "ES256"), (EC, "EdDSA"), (EC, "Ed25519")):
        with pytest.raises(SignatureRefused, match="no key for its `alg`"):
            accept(made(key, header={"alg": alg}))


def _without(jwk: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in jwk.items() if name not in names}


def _shifted(jwk: Mapping[str, str]) -> dict[str, str]:
    """The same 64 bytes, divided elsewhere."""
    raw = unb64url(jwk["x"]) + unb64url(jwk["y"])
    return {"x": b64url(raw[:31]), "y": b64url(raw[31:])}


@pytest.mark.parametrize(
    ("key", "jwk"),
    [
        (ED, OUT),
        (ED, None),
        (ED, "x"),
        (ED, [ED.public.jwk]),
        (ED, {}),
        (ED, ED.to_jwk()),
        (EC, EC.private_jwk),
        (EC, {**EC.jwk, "k": "AA"}),
        (ED, _without(ED.public.jwk, "x")),
        (EC, _without(EC.jwk, "y")),
        (EC, {**EC.jwk, "y": EC.jwk["x"]}),  # not on the curve
        (EC, {**EC.jwk, "y": b64url(bytes(32))}),
        (EC, {**EC.jwk, "x": b64url(bytes(32)), "y": b64url(bytes(32))}),
        (EC, {**EC.jwk, "x": b64url(b"\xff" * 32)}),
        (EC, {**EC.jwk, "x": b64url(b"\0" + unb64url(EC.jwk["x"]))}),  # another spelling
        (EC, {**EC.jwk, "x": EC.jwk["x"] + "="}),
        (EC, {**EC.jwk, **_shifted(EC.jwk)}),
        (EC, {**EC.jwk, "crv": "P-384"}),
        (EC, {**EC.jwk, "crv": "secp256k1"}),
        (EC, {**EC.jwk, "kty": "OKP"}),
        (EC, {**EC.jwk, "use": "enc"}),
        (EC, {**EC.jwk, "alg": "ES384"}),
        (EC, {**EC.jwk, "x": 1}),
        (ED, {**ED.public.jwk, "crv": "Ed448"}),
        (ED, {**ED.public.jwk, "crv": "X25519"}),
        (ED, {**ED.public.jwk, "alg": "ES256"}),
        (ED, PrivateKey.generate().public.jwk),
        (EC, EcKey().jwk),
    ],
)
def test_a_key_that_is_not_a_public_key_of_the_signature_is_refused(key: AnyKey, jwk: object) -> None:
    with pytest.raises(SignatureRefused):
        accept(made(key, header={"jwk": jwk}))


@pytest.mark.parametrize("raw", [b"", bytes(32), bytes(63), bytes(65), b"\x04" + bytes(64)])
def test_bytes_that_are_no_point_are_no_key(raw: bytes) -> None:
    with pytest.raises(KeyRefused):
        P256Key(raw=raw)


@pytest.mark.parametrize(
    "header", [{"crit": ["exp"]}, {"b64": False}, {"jku": "https://x"}, {"x5u": "x"}, {"x5c": ["x"]}, {"zip": "DEF"}]
)
def test_a_header_that_changes_the_meaning_or_names_other_keys_is_refused(header: Mapping[str, Any]) -> None:
    with pytest.raises(SignatureRefused):
        accept(made(header=header))


@pytest.mark.parametrize("method", ["GET", "DELETE", "post", "POST "])
def test_a_proof_for_another_method_is_refused(method: str) -> None:
    with pytest.raises(SignatureRefused, match="method"):
        accept(made(method=method))


@pytest.mark.parametrize(
    "url",
    [
        "HTTPS://GATE.EXAMPLE/mcp",
        "https://gate.example:443/mcp",
        "https://gate.example:/mcp",
        "https://gate.example/mcp?query=1",
        "https://gate.example/mcp#fragment",
        "https://gate.example/a/../mcp",
        "https://gate.example/./mcp",
        "https://gate.example/../mcp",
        "https://gate.example/%6dcp",
        "https://gate.example/%6Dcp",
    ],
)
def test_two_spellings_of_one_url_are_the_same(url: str) -> None:
    assert accept(made(url=url))


@pytest.mark.parametrize(
    "url",
    [
        "http://gate.example/mcp",
        "https://gate.example.evil.example/mcp",
        "https://evil.example/mcp",
        "https://gate.example:8443/mcp",
        "https://gate.example/mcp/",
        "https://gate.example//mcp",
        "https://gate.example/MCP",
        "https://gate.example/mcp/..",
        "https://gate.example/mcp%2F",
        "https://gate.example/token",
        "https://gate.example",
        "https://user@gate.example/mcp",
        "https://@gate.example/mcp",
        "https://gate.example\\@evil.example/mcp",
        "https://gate.example/mc\np",
        " https://gate.example/mcp",
        "https://gate.example/mcp\x00",
        "https://gate.example/%zzmcp",
        "https://gate.example/mcp%",
        "https://gate.example:port/mcp",
        "https://gate.example:99999/mcp",
        "https://[gate.example/mcp",
        "https://g\u0430te.example/mcp",
        "//gate.example/mcp",
        "/mcp",
        "mcp",
        "ftp://gate.example/mcp",
        "https:///mcp",
    ],
)
def test_a_proof_for_another_url_or_for_none_is_refused(url: str) -> None:
    with pytest.raises(SignatureRefused):
        accept(made(url=url))


def test_a_url_has_one_spelling() -> None:
    assert normalized("HTTP://LocalHost:80") == "http://localhost/"
    assert normalized("http://localhost:8642/a/./b/../c?d#e") == "http://localhost:8642/a/c"
    assert normalized("http://[::1]:8642/%7Ea%2fb") == "http://[::1]:8642/~a%2Fb"
    assert normalized("https://x/a/b/..") == "https://x/a/"


@BOTH
def test_a_proof_is_of_now_give_or_take_the_clocks(key: AnyKey) -> None:
    second = timedelta(seconds=1)
    for at in (NOW - limits.CLOCK_SKEW, NOW + limits.CLOCK_SKEW):
        assert accept(made(key, at=at)).expires_at == at + limits.CLOCK_SKEW
    for at in (NOW - limits.CLOCK_SKEW - second, NOW + limits.CLOCK_SKEW + second, NOW + timedelta(days=3650)):
        with pytest.raises(SignatureRefused, match="just now"):
            accept(made(key, at=at))
    for iat in (0, -1, 1e300, float(2**53)):
        with pytest.raises(SignatureRefused):
            accept(made(key, iat=iat))


def test_a_proof_goes_with_its_own_access_token_only() -> None:
    for token in (None, "another.access.token", TOKEN + " "):
        with pytest.raises(SignatureRefused, match="access token"):
            accept(made(token=token))
    assert accept(made(), access_token=None)  # at the token endpoint there is none to compare


def test_a_nonce_counts_in_its_own_stretch_of_time_and_in_the_next() -> None:
    given_out = NONCES.current(NOW)
    for later in (timedelta(), limits.DPOP_NONCE):
        now = NOW + later
        assert accept(made(at=now, nonce=given_out), now=now, nonces=DEMANDED)
    for later in (-limits.DPOP_NONCE, 2 * limits.DPOP_NONCE):
        now = NOW + later
        with pytest.raises(NonceRefused):
            accept(made(at=now, nonce=given_out), now=now)


def test_a_nonce_is_the_same_wherever_the_key_is_and_nobody_guesses_it() -> None:
    again = Nonces(key=bytes(32), demanded=True)
    assert again.current(NOW) == NONCES.current(NOW)
    other = Nonces(key=bytes(31) + b"\1", demanded=True)
    assert other.current(NOW) != NONCES.current(NOW)
    assert not other.accept(NONCES.current(NOW), NOW) and "redacted" not in repr(other) and "key" not in repr(other)


@pytest.mark.parametrize("nonce", ["", "x", "\u00e9", "\ud800", None, 1, True, [], {}], ids=repr)
def test_a_nonce_that_is_there_is_always_checked(nonce: object) -> None:
    for nonces in (None, NONCES, DEMANDED):
        with pytest.raises(SignatureRefused):
            accept(made(nonce=nonce), nonces=nonces)


def test_a_nonce_is_missed_only_where_it_is_demanded() -> None:
    assert accept(made(), nonces=NONCES) and accept(made(), nonces=None)
    with pytest.raises(NonceRefused):
        accept(made(), nonces=DEMANDED)


def test_a_proof_that_lacks_more_than_its_nonce_is_not_told_the_nonce() -> None:
    for wrong in ({"method": "GET"}, {"url": "https://evil.example/"}, {"header": {"typ": "JWT"}}):
        with pytest.raises(SignatureRefused) as refused:
            accept(made(**wrong), nonces=DEMANDED)
        assert not isinstance(refused.value, NonceRefused)


def test_a_proof_is_bounded_before_it_is_read() -> None:
    with pytest.raises(SignatureRefused, match="longer"):
        accept(made(more="x" * limits.DPOP_BYTES))
    with pytest.raises(SignatureRefused, match="longer"):
        accept(made(jti="x" * (limits.ID_CHARACTERS + 1)))


GOOD = {"Ed25519": made(ED), "P-256": made(EC)}


@given(
    st.one_of(st.text(), st.binary().map(lambda raw: raw.decode("latin-1")), st.from_regex(r"[\w-]*\.[\w-]*\.[\w-]*"))
)
@example("")
@example("..")
@example("\ud800.\ud800.\ud800")
def test_no_text_is_anything_but_a_refusal(text: str) -> None:
    with pytest.raises(SignatureRefused):
        accept(text)


@given(
    st.sampled_from(sorted(GOOD)),
    st.integers(min_value=0, max_value=10_000),
    st.one_of(st.characters(), st.sampled_from("ABCabc019-_.=")),
    st.sampled_from(["replace", "insert", "delete", "cut", "double"]),
)
def test_a_proof_that_was_altered_anywhere_is_refused(kind: str, at: int, character: str, how: str) -> None:
    good = GOOD[kind]
    at %= len(good)
    altered = {
        "replace": good[:at] + character + good[at + 1 :],
        "insert": good[:at] + character + good[at:],
        "delete": good[:at] + good[at + 1 :],
        "cut": good[:at],
        "double": good[:at] + good,
    }[how]
    if altered != good:
        with pytest.raises(SignatureRefused):
            accept(altered)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
MEMBERS = st.sampled_from(["alg", "typ", "jwk", "kid", "crit"])
CLAIMS = st.sampled_from(["jti", "htm", "htu", "iat", "ath", "nonce"])
JWK = st.sampled_from(["kty", "crv", "x", "y", "d", "use", "alg"])


@given(st.sampled_from([ED, EC]), st.dictionaries(MEMBERS, JSON, max_size=2), st.dictionaries(CLAIMS, JSON, max_size=2))
def test_whatever_is_signed_in_a_proof_it_is_right_or_refused(
    key: AnyKey, header: dict[str, Any], claims: dict[str, Any]
) -> None:
    right = jose.read(made(), allow_jwk=True).claims
    try:
        shown = accept(made(key, header=header, **claims))
    except SignatureRefused:
        return
    assert shown.key == thumbprint_of(key)
    assert header.keys() <= {"kid"} and claims.keys() <= {"jti", "iat"} | {
        name for name in claims if claims[name] == right.get(name)
    }


@given(st.sampled_from([ED, EC]), st.dictionaries(JWK, JSON, min_size=1, max_size=3))
def test_whatever_a_shown_key_says_it_is_the_key_or_refused(key: AnyKey, members: dict[str, Any]) -> None:
    try:
        shown = accept(made(key, header={"jwk": {**public_of(key), **members}}))
    except SignatureRefused:
        return
    assert shown.key == thumbprint_of(key) and "d" not in members
