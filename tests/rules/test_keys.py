"""Keys, signatures and sealed values, with the vectors of RFC 8032 and RFC 8037."""

from __future__ import annotations

import copy
import json
import pickle

import nacl.bindings
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_authz.errors import InputError, KeyRefused, SignatureRefused
from mcp_authz.rules.keys import (
    PrivateKey,
    PublicKey,
    Sealer,
    b64url,
    equal,
    open_private,
    random_bytes,
    seal_private,
    unb64url,
)

# RFC 8037 appendix A.1
SEED = bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
JWK = {"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}
THUMBPRINT = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"  # appendix A.3

# `openssl pkey` of the same seed
PEM = """-----BEGIN PRIVATE KEY-----
MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g
-----END PRIVATE KEY-----
"""
PUBLIC_PEM = """-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=
-----END PUBLIC KEY-----
"""


@given(st.binary(max_size=70))
def test_base64url_is_read_back_the_same(data: bytes) -> None:
    assert unb64url(b64url(data)) == data


@given(st.text(st.sampled_from("ABCghwxyz019-_=+/ \n"), max_size=9))
def test_every_accepted_base64url_text_is_the_one_that_would_be_written(text: str) -> None:
    try:
        data = unb64url(text)
    except InputError:
        return
    assert b64url(data) == text


@pytest.mark.parametrize(
    "text", ["QQ==", "QQ=", "QR", "QUJ", "A", "AAAAA", "A+A/", "QU JD", "QUJD\n", "\u00e9AAA", "QUJD=", "=", "QUI\0"]
)
def test_padding_superfluous_bits_and_foreign_characters_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        unb64url(text)


def test_the_key_of_rfc_8037_has_the_public_key_and_thumbprint_printed_there() -> None:
    key = PrivateKey.from_seed(SEED)
    assert key.public.jwk == JWK
    assert key.public.thumbprint == THUMBPRINT
    assert PublicKey.from_jwk(JWK) == key.public


@pytest.mark.parametrize(
    ("seed", "public", "message", "signature"),  # RFC 8032 section 7.1, tests 1 to 3
    [
        (
            "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
    ],
)
def test_signatures_are_those_of_rfc_8032(seed: str, public: str, message: str, signature: str) -> None:
    key = PrivateKey.from_seed(bytes.fromhex(seed))
    assert key.public.raw.hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    key.public.verify(bytes.fromhex(message), bytes.fromhex(signature))


@given(st.binary(max_size=40), st.integers(0, 511))
def test_a_signature_with_one_bit_changed_is_refused(message: bytes, bit: int) -> None:
    key = PrivateKey.from_seed(SEED)
    altered = bytearray(key.sign(message))
    altered[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SignatureRefused):
        key.public.verify(message, bytes(altered))


def test_a_signature_counts_for_its_message_and_its_key_only() -> None:
    key, other = PrivateKey.from_seed(SEED), PrivateKey.generate()
    signature = key.sign(b"a")
    with pytest.raises(SignatureRefused):
        key.public.verify(b"b", signature)
    with pytest.raises(SignatureRefused):
        other.public.verify(b"a", signature)


def test_bytes_cannot_be_moved_from_the_message_into_the_signature() -> None:
    key = PrivateKey.from_seed(SEED)
    signature = key.sign(b"not deploy")
    with pytest.raises(SignatureRefused):
        key.public.verify(b"deploy", signature + b"not ")


@pytest.mark.parametrize("length", [0, 1, 63, 65, 128])
def test_a_signature_of_another_length_is_refused(length: int) -> None:
    key = PrivateKey.from_seed(SEED)
    with pytest.raises(SignatureRefused):
        key.public.verify(b"", (key.sign(b"") * 2)[:length])


@pytest.mark.parametrize(
    "text", [json.dumps(JWK), JWK["x"], PUBLIC_PEM, f"  {JWK['x']}\n", PUBLIC_PEM.replace("\n", "\r\n")]
)
def test_a_public_key_is_read_from_jwk_base64url_and_pem(text: str) -> None:
    assert PublicKey.from_text(text).thumbprint == THUMBPRINT


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        JWK["x"] + "=",
        JWK["x"] + "AA",
        JWK["x"][:-1] + "p",  # the same key with a superfluous bit
        "[]",
        json.dumps(JWK)[:-1],
        json.dumps(JWK)[:-1] + ',"x":"AAAA"}',
        PEM,
        PUBLIC_PEM.replace("PUBLIC", "EC PUBLIC"),
        PUBLIC_PEM.replace("VwAy", "VuAy"),  # X25519
        PUBLIC_PEM.replace("Ro=", "Ro"),
        PUBLIC_PEM.replace("Ro=", "Rp="),
        PUBLIC_PEM.replace("MCow", "MC*w"),
        PUBLIC_PEM + PUBLIC_PEM,
        PUBLIC_PEM.replace("Ro=", "RoA"),  # one byte more
        "-----BEGIN PUBLIC KEY-----",
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINdamAGCsQq31Uv+08lkBzoO4XLz2qYjJa8CGmj3B1Ea",
        "A" * 100_000,
        "\ud800",
        '{"\ud800":1}',
    ],
)
def test_any_other_text_is_no_public_key(text: str) -> None:
    with pytest.raises(KeyRefused):
        PublicKey.from_text(text)


def test_members_that_a_jwk_may_have_beside_are_ignored() -> None:
    described = {**JWK, "kid": "x", "use": "sig", "alg": "EdDSA", "key_ops": ["verify"], "ext": True, "x5c": []}
    assert PublicKey.from_jwk(described).thumbprint == THUMBPRINT


def test_a_private_key_survives_pem() -> None:
    key = PrivateKey.from_seed(SEED)
    assert key.to_pem() == PEM
    assert PrivateKey.from_pem(PEM).public == key.public


def test_a_private_jwk_is_that_of_rfc_8037() -> None:
    assert PrivateKey.from_seed(SEED).to_jwk() == {**JWK, "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        (PUBLIC_PEM, "PRIVATE KEY"),
        (PEM.replace("PRIVATE", "ENCRYPTED PRIVATE"), "decrypt"),
        (PEM.replace("K2Vw", "K2Vu"), "Ed25519"),
        ("", "PRIVATE KEY"),
        (PEM.replace("rn9g", "rn9"), "base64"),
    ],
)
def test_another_pem_is_no_private_key_and_the_refusal_says_why(text: str, hint: str) -> None:
    with pytest.raises(KeyRefused, match=hint):
        PrivateKey.from_pem(text)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_a_seed_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(KeyRefused):
        PrivateKey.from_seed(bytes(length))


def test_a_secret_is_not_printed_pickled_or_copied() -> None:
    for secret in (PrivateKey.from_seed(SEED), Sealer(SEED)):
        for text in (repr(secret), str(secret), f"{secret}", repr([secret])):
            assert "<redacted>" in text and SEED.hex() not in text and repr(SEED)[2:-1] not in text
        for leave in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError):
                leave(secret)


def test_two_generated_keys_differ() -> None:
    assert PrivateKey.generate().public != PrivateKey.generate().public


def test_a_sealed_private_key_opens_with_its_passphrase_only() -> None:
    key = PrivateKey.from_seed(SEED)
    sealed = seal_private(key, "correct horse\u00e9")
    assert sealed.startswith("mcp-authz-key-v1:argon2id-moderate:")
    assert open_private(sealed + "\n", "correct horsee\u0301").public == key.public  # the same text, typed elsewhere
    with pytest.raises(KeyRefused, match="passphrase is wrong"):
        open_private(sealed, "correct horse")


@pytest.mark.parametrize("passphrase", ["", " ", "\n\t"])
def test_an_empty_passphrase_is_refused(passphrase: str) -> None:
    with pytest.raises(KeyRefused, match="empty"):
        seal_private(PrivateKey.from_seed(SEED), passphrase)


@pytest.mark.parametrize(
    "text",
    [
        "",
        PEM,
        "mcp-authz-key-v2:argon2id-moderate:AAAAAAAAAAAAAAAAAAAAAA:AAAA",
        "mcp-authz-key-v1:argon2id-min:AAAAAAAAAAAAAAAAAAAAAA:AAAA",
        "mcp-authz-key-v1:argon2id-moderate:AAAA:AAAA",
        "mcp-authz-key-v1:argon2id-moderate:AAAAAAAAAAAAAAAAAAAAAA:AAA=",
        "mcp-authz-key-v1:argon2id-moderate:AAAAAAAAAAAAAAAAAAAAAA",
    ],
)
def test_text_that_is_no_sealed_key_is_refused_without_work(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nacl.pwhash.argon2id.kdf", lambda *_: pytest.fail("a passphrase was tried"))
    with pytest.raises(KeyRefused):
        open_private(text, "x")


@given(st.binary(max_size=100), st.binary(max_size=20))
def test_a_sealed_value_opens_in_its_context(plaintext: bytes, context: bytes) -> None:
    sealer = Sealer(SEED)
    sealed = sealer.seal(plaintext, context)
    assert sealer.unseal(sealed, context) == plaintext
    assert sealed != sealer.seal(plaintext, context)


@given(st.binary(max_size=20), st.data())
def test_a_sealed_value_with_one_bit_changed_stays_closed(plaintext: bytes, data: st.DataObject) -> None:
    sealer = Sealer(SEED)
    sealed = bytearray(sealer.seal(plaintext, b"context"))
    bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(SignatureRefused):
        sealer.unseal(bytes(sealed), b"context")


def test_a_sealed_value_stays_closed_for_another_context_and_another_key() -> None:
    sealed = Sealer(SEED).seal(b"x", b"hold h_1")
    with pytest.raises(SignatureRefused):
        Sealer(SEED).unseal(sealed, b"hold h_2")
    with pytest.raises(SignatureRefused):
        Sealer(bytes(32)).unseal(sealed, b"hold h_1")


@pytest.mark.parametrize("length", [0, 1, 24, 40])
def test_a_sealed_value_that_was_cut_stays_closed(length: int) -> None:
    sealer = Sealer(SEED)
    with pytest.raises(SignatureRefused):
        sealer.unseal(sealer.seal(b"", b"")[:length], b"")


@pytest.mark.parametrize("length", [0, 31, 33])
def test_a_sealing_key_is_32_bytes_long(length: int) -> None:
    with pytest.raises(KeyRefused):
        Sealer(bytes(length))


def test_a_value_sealed_by_the_first_version_opens_for_ever() -> None:
    nonce = bytes(24)
    box = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(b"secret", b"\x01" + b"context", nonce, SEED)
    assert Sealer(SEED).unseal(b"\x01" + nonce + box, b"context") == b"secret"


def test_random_bytes_are_as_many_as_asked_and_not_the_same_twice() -> None:
    assert len(random_bytes(16)) == 16 and random_bytes(16) != random_bytes(16)


def test_bytes_are_equal_only_to_themselves() -> None:
    assert equal(b"abc", b"abc")
    assert not equal(b"abc", b"abd") and not equal(b"abc", b"ab")


def test_a_signature_that_was_accepted_once_counts_for_those_very_bytes_and_that_key_only() -> None:
    key, other = PrivateKey.generate(), PrivateKey.generate()
    signature = key.sign(b"message")
    for _ in range(2):
        key.public.verify(b"message", signature)
        for public, message, signed in (
            (key.public, b"massage", signature),
            (key.public, b"message", signature[:-1] + bytes([signature[-1] ^ 1])),
            (other.public, b"message", signature),
            (key.public, b"essage", signature[:63] + b"m"),
        ):
            with pytest.raises(SignatureRefused):
                public.verify(message, signed)
