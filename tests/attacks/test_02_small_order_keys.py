"""Row 2: a public key under which one signature would verify many messages never becomes a key."""

from __future__ import annotations

import nacl.bindings
import nacl.exceptions
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_authz.errors import KeyRefused, SignatureRefused
from mcp_authz.rules.keys import PrivateKey, PublicKey, b64url

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493

# Every encoding of the eight points of small order, canonical or not, with either sign bit.
SMALL_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
]


def enrolments(raw: bytes) -> list[object]:
    """Try each door by which a public key comes in; return the keys that came through."""
    through: list[object] = []
    for door in (
        lambda: PublicKey(raw=raw),
        lambda: PublicKey.from_raw(raw),
        lambda: PublicKey.from_jwk({"kty": "OKP", "crv": "Ed25519", "x": b64url(raw)}),
        lambda: PublicKey.from_text(b64url(raw)),
        lambda: PublicKey.from_text(f'{{"kty":"OKP","crv":"Ed25519","x":"{b64url(raw)}"}}'),
    ):
        try:
            through.append(door())
        except KeyRefused:
            continue
    return through


@pytest.mark.parametrize("point", SMALL_ORDER)
def test_a_point_of_small_order_comes_in_through_no_door(point: str) -> None:
    assert enrolments(bytes.fromhex(point)) == []


@pytest.mark.parametrize("y", range(19))
@pytest.mark.parametrize("sign", [0, 1])
def test_a_coordinate_beyond_the_field_comes_in_through_no_door(y: int, sign: int) -> None:
    assert enrolments((P + y | sign << 255).to_bytes(32, "little")) == []


def test_a_point_that_is_not_on_the_curve_comes_in_through_no_door() -> None:
    off_curve = [y.to_bytes(32, "little") for y in (2, 7, 8)]
    assert [enrolments(raw) for raw in off_curve] == [[], [], []]


@pytest.mark.parametrize("small", [point for point in SMALL_ORDER[4:] if not point.startswith(("ed", "ee"))])
def test_a_key_with_a_part_of_small_order_comes_in_through_no_door(small: str) -> None:
    key = PrivateKey.from_seed(bytes(32)).public.raw
    mixed = nacl.bindings.crypto_core_ed25519_add(key, bytes.fromhex(small))
    assert mixed != key
    assert enrolments(mixed) == []


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_a_key_of_another_length_comes_in_through_no_door(length: int) -> None:
    assert enrolments((PrivateKey.from_seed(bytes(32)).public.raw * 2)[:length]) == []


def test_an_ordinary_key_comes_in_through_every_door() -> None:
    assert len(enrolments(PrivateKey.generate().public.raw)) == 5


@given(st.binary(min_size=32, max_size=32))
def test_every_key_that_comes_in_is_a_point_of_the_prime_order_group(raw: bytes) -> None:
    for _ in enrolments(raw)[:1]:
        assert int.from_bytes(raw, "little") % 2**255 < P
        # L times a point of the prime-order group is the neutral one; libsodium refuses to return that
        with pytest.raises(nacl.exceptions.RuntimeError):
            nacl.bindings.crypto_scalarmult_ed25519_noclamp(L.to_bytes(32, "little"), raw)


@pytest.mark.parametrize("message", [b"", b"deploy to staging", b"deploy to production"])
@pytest.mark.parametrize("point", SMALL_ORDER)
def test_the_universal_signature_verifies_nothing(point: str, message: bytes) -> None:
    """R and A of small order and S = 0 satisfy the bare equation for many messages at once."""
    smuggled = object.__new__(PublicKey)  # even if such a key were in a store already
    object.__setattr__(smuggled, "raw", bytes.fromhex(point))
    for r in SMALL_ORDER:
        with pytest.raises(SignatureRefused):
            smuggled.verify(message, bytes.fromhex(r) + bytes(32))


@given(st.binary(max_size=30), st.integers(1, 15))
def test_a_signature_has_one_form_only(message: bytes, times: int) -> None:
    """S + L verifies in careless code, and makes a second signature out of the first (RFC 8032 section 8.4)."""
    key = PrivateKey.from_seed(bytes(32))
    signature = key.sign(message)
    stretched = int.from_bytes(signature[32:], "little") + times * L
    if stretched >= 2**256:
        return
    with pytest.raises(SignatureRefused):
        key.public.verify(message, signature[:32] + stretched.to_bytes(32, "little"))


@pytest.mark.parametrize("r", SMALL_ORDER)
def test_a_signature_whose_r_is_of_small_order_is_refused(r: str) -> None:
    key = PrivateKey.from_seed(bytes(32))
    with pytest.raises(SignatureRefused):
        key.public.verify(b"x", bytes.fromhex(r) + key.sign(b"x")[32:])


@pytest.mark.parametrize(
    "change",
    [
        {"kty": "EC"},
        {"kty": "okp"},
        {"crv": "Ed448"},
        {"crv": "X25519"},
        {"crv": "P-256"},
        {"crv": "ed25519"},
        {"crv": None},
        {"x": None},
        {"x": 1},
        {"x": ["11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"]},
        {"x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo="},
        {"x": "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
        {"d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"},
        {"d": ""},
        {"d": None},
        {"k": "c2VjcmV0"},
        {"p": "AQ"},
        {"oth": []},
        {"use": "enc"},
        {"alg": "HS256"},
        {"alg": "ECDH-ES"},
        {"alg": ["EdDSA"]},
        {"alg": None},
    ],
    ids=str,
)
def test_a_malformed_or_private_jwk_is_refused(change: dict[str, object]) -> None:
    jwk = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
    PublicKey.from_jwk(jwk)
    with pytest.raises(KeyRefused):
        PublicKey.from_jwk({**jwk, **change})


@pytest.mark.parametrize("jwk", [None, 1, "x", [], ["d"], True], ids=str)
def test_what_is_no_object_is_no_jwk(jwk: object) -> None:
    with pytest.raises(KeyRefused):
        PublicKey.from_jwk(jwk)  # type: ignore[arg-type]
