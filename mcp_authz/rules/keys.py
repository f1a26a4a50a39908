"""Ed25519 keys and sealed values; the only door to PyNaCl.

Other libraries accept keys of small order, under which one signature verifies every message. libsodium decides here
which point is a key, when it is enrolled and each time it is read.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, ClassVar, Final, NoReturn

import nacl.bindings
import nacl.exceptions
import nacl.pwhash.argon2id
import nacl.secret
import nacl.signing
import nacl.utils

from mcp_authz.errors import InputError, KeyRefused, SignatureRefused
from mcp_authz.rules import strict_json

SIGNATURE_BYTES: Final = 64
SEALER_KEY_BYTES: Final = 32
PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})  # RFC 7518 section 6

_SPKI: Final = bytes.fromhex("302a300506032b6570032100")  # RFC 8410 section 4, before the 32 bytes of the key
_PKCS8: Final = bytes.fromhex("302e020100300506032b657004220420")  # RFC 8410 section 7, before the seed
_KEY_TEXT_BYTES: Final = 4096
_JOSE_NAMES: Final = ("EdDSA", "Ed25519")


def b64url(data: bytes) -> str:
    """Return base64url without padding (RFC 7515 section 2)."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def unb64url(text: str) -> bytes:
    """Return the bytes whose one base64url spelling is `text`: no padding, no foreign character, no superfluous bit.

    Raises:
        InputError: `text` is not what `b64url` would have written.
    """
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        raise InputError("text is not base64url") from None
    if b64url(data) != text:  # the decoder skips what it does not know, and ignores left-over bits
        raise InputError("text is not base64url without padding, in its one spelling")
    return data


def random_bytes(count: int) -> bytes:
    """Return `count` bytes that nobody can guess."""
    return nacl.utils.random(count)


def equal(a: bytes, b: bytes) -> bool:
    """Whether both are the same bytes, in a time that does not depend on where they differ."""
    return hmac.compare_digest(a, b)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """An Ed25519 public key: a canonical point of the prime-order group, so that each signature is of one message."""

    raw: bytes  # 32 bytes
    thumbprint: str = field(init=False, repr=False, compare=False)  # RFC 7638, SHA-256, base64url

    def __post_init__(self) -> None:
        _require_point(self.raw)
        # RFC 7638 section 3.2: the required members in lexicographic order, nothing else (RFC 8037 section 2)
        members = b'{"crv":"Ed25519","kty":"OKP","x":"%s"}' % b64url(self.raw).encode()
        object.__setattr__(self, "thumbprint", b64url(hashlib.sha256(members).digest()))

    @classmethod
    def from_raw(cls, raw: bytes) -> PublicKey:
        """Return the key whose 32 bytes these are.

        Raises:
            KeyRefused: they are no canonical point of the prime-order group.
        """
        return cls(raw=raw)

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, Any]) -> PublicKey:
        """Return the key of an OKP/Ed25519 JWK (RFC 8037 section 2); members it does not know are ignored.

        Raises:
            KeyRefused: another key type, curve or use, a private member, or a point that is no key.
        """
        if not isinstance(jwk, Mapping):
            raise KeyRefused("the JWK is not a JSON object")
        if not PRIVATE_MEMBERS.isdisjoint(jwk):
            raise KeyRefused("the JWK has a private member; send the public key only")
        if jwk.get("kty") != "OKP" or jwk.get("crv") != "Ed25519":
            raise KeyRefused("the JWK is not of kty `OKP` and crv `Ed25519`")
        if jwk.get("use", "sig") != "sig" or jwk.get("alg", "EdDSA") not in _JOSE_NAMES:
            raise KeyRefused("the JWK is meant for another use or algorithm")
        x = jwk.get("x")
        if not isinstance(x, str):
            raise KeyRefused("the JWK has no text member `x`")
        return cls(raw=_key_bytes(x))

    @classmethod
    def from_text(cls, text: str) -> PublicKey:
        """Return the key written as a JWK, as PEM `PUBLIC KEY`, or as base64url of its 32 bytes.

        Raises:
            KeyRefused: it is none of these, or no key.
        """
        text = text.strip()
        if len(text) > _KEY_TEXT_BYTES:
            raise KeyRefused("the text is too long for a public key")
        if text.startswith("{"):
            return cls.from_jwk(_jwk_members(text))
        if text.startswith("-----"):
            return cls(raw=_pem_key(text, "PUBLIC KEY", _SPKI))
        return cls(raw=_key_bytes(text))

    @property
    def jwk(self) -> dict[str, str]:
        """The key as a JWK with its required members."""
        return {"kty": "OKP", "crv": "Ed25519", "x": b64url(self.raw)}

    def verify(self, message: bytes, signature: bytes) -> None:
        """Return only if `signature` was made over `message` with this key (RFC 8032 section 5.1.7, S reduced).

        Raises:
            SignatureRefused: it was not.
        """
        if len(signature) != SIGNATURE_BYTES:
            raise SignatureRefused("the signature is not 64 bytes long")
        try:
            _require_signed(signature + message, self.raw)
        except nacl.exceptions.BadSignatureError:
            raise SignatureRefused("the signature was not made with this key over these bytes") from None


@lru_cache(maxsize=512)
def _require_signed(signed: bytes, key: bytes) -> None:
    """Return only if it was signed; remembered for these very bytes and key, a refusal (an exception) never is."""
    nacl.bindings.crypto_sign_open(signed, key)


class PrivateKey:
    """An Ed25519 private key; prints as `<redacted>` and refuses to be pickled or copied."""

    __slots__ = ("_signing", "public")

    algorithm: ClassVar[str] = "EdDSA"  # RFC 8037 section 3.1
    _signing: nacl.signing.SigningKey
    public: PublicKey

    def __init__(self, signing: nacl.signing.SigningKey) -> None:
        self._signing = signing
        self.public = PublicKey(raw=bytes(signing.verify_key))

    @classmethod
    def generate(cls) -> PrivateKey:
        """Return a new key that nobody else has."""
        return cls(nacl.signing.SigningKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> PrivateKey:
        """Return the key that grows from these 32 bytes (RFC 8032 section 5.1.5).

        Raises:
            KeyRefused: there are more or fewer.
        """
        if len(seed) != nacl.bindings.crypto_sign_SEEDBYTES:
            raise KeyRefused("a private key is 32 bytes long")
        return cls(nacl.signing.SigningKey(seed))

    @classmethod
    def from_pem(cls, text: str) -> PrivateKey:
        """Return the key of an unencrypted PKCS#8 PEM (RFC 8410 section 7).

        Raises:
            KeyRefused: it is another kind of key or file, or encrypted.
        """
        if "ENCRYPTED" in text:
            raise KeyRefused("the PEM is encrypted; decrypt it first, or use a key sealed by this program")
        return cls.from_seed(_pem_key(text.strip(), "PRIVATE KEY", _PKCS8))

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature over `message`."""
        return self._signing.sign(message).signature

    def to_pem(self) -> str:
        """Return the key, readable by whoever gets the text, as PKCS#8 PEM."""
        return _pem("PRIVATE KEY", _PKCS8 + bytes(self._signing))

    def to_jwk(self) -> dict[str, str]:
        """Return the key, readable by whoever gets it, as a private JWK."""
        return {**self.public.jwk, "d": b64url(bytes(self._signing))}

    def __repr__(self) -> str:
        return "PrivateKey(<redacted>)"

    def __reduce_ex__(self, _: object) -> NoReturn:
        raise TypeError("a private key is neither pickled nor copied")


# One name for the parameters of one key derivation, so that a sealed text cannot ask for weaker or endless ones.
# argon2id-moderate: libsodium's MODERATE profile (3 passes over 256 MiB), above RFC 9106 section 4's second choice.
_ARGON2ID: Final = {
    "argon2id-moderate": (nacl.pwhash.argon2id.OPSLIMIT_MODERATE, nacl.pwhash.argon2id.MEMLIMIT_MODERATE),
}
_PROFILE: Final = "argon2id-moderate"
_SEALED: Final = "mcp-authz-key-v1"


def seal_private(key: PrivateKey, passphrase: str) -> str:
    """Return one line that yields the key only to who knows the passphrase.

    The line is `mcp-authz-key-v1:PROFILE:SALT:BOX`; salt and box (nonce, then XSalsa20-Poly1305 of the seed) are
    base64url.

    Raises:
        KeyRefused: the passphrase is empty.
    """
    salt = random_bytes(nacl.pwhash.argon2id.SALTBYTES)
    box = _passphrase_box(passphrase, salt, _PROFILE).encrypt(bytes(key._signing))
    return f"{_SEALED}:{_PROFILE}:{b64url(salt)}:{b64url(bytes(box))}"


def open_private(text: str, passphrase: str) -> PrivateKey:
    """Return the key that `seal_private` sealed with this passphrase.

    Raises:
        KeyRefused: the passphrase is another, or the text is not as it was written.
    """
    parts = text.strip().split(":")
    if len(parts) != 4 or parts[0] != _SEALED or parts[1] not in _ARGON2ID:
        raise KeyRefused(f"the text is not a sealed private key of the form `{_SEALED}:...`")
    try:
        salt, box = unb64url(parts[2]), unb64url(parts[3])
    except InputError:
        raise KeyRefused("the sealed private key is damaged") from None
    if len(salt) != nacl.pwhash.argon2id.SALTBYTES:
        raise KeyRefused("the sealed private key is damaged")
    try:
        return PrivateKey.from_seed(_passphrase_box(passphrase, salt, parts[1]).decrypt(box))
    except (nacl.exceptions.CryptoError, ValueError):
        raise KeyRefused("the passphrase is wrong, or the sealed private key is damaged") from None


class Sealer:
    """Seals small values so that only this key opens them, and only in the context they were sealed for."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) != SEALER_KEY_BYTES:
            raise KeyRefused("a sealing key is 32 bytes long")
        self._key = key

    def seal(self, plaintext: bytes, context: bytes) -> bytes:
        """Return a version byte, a fresh nonce and the XChaCha20-Poly1305 ciphertext, bound to `context`."""
        nonce = random_bytes(_NONCE_BYTES)
        sealed = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_encrypt(
            plaintext, _VERSION + context, nonce, self._key
        )
        return _VERSION + nonce + sealed

    def unseal(self, sealed: bytes, context: bytes) -> bytes:
        """Return what `seal` was given for this context.

        Raises:
            SignatureRefused: it was sealed by another key, for another context, or altered since.
        """
        if len(sealed) < 1 + _NONCE_BYTES + _TAG_BYTES or sealed[:1] != _VERSION:
            raise SignatureRefused("the sealed value is not one of ours")
        nonce, box = sealed[1 : 1 + _NONCE_BYTES], sealed[1 + _NONCE_BYTES :]
        try:
            return nacl.bindings.crypto_aead_xchacha20poly1305_ietf_decrypt(box, _VERSION + context, nonce, self._key)
        except nacl.exceptions.CryptoError:
            raise SignatureRefused("the sealed value was altered, or belongs to another context") from None

    def __repr__(self) -> str:
        return "Sealer(<redacted>)"

    def __reduce_ex__(self, _: object) -> NoReturn:
        raise TypeError("a sealing key is neither pickled nor copied")


_VERSION: Final = b"\x01"
_NONCE_BYTES: Final = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_NPUBBYTES
_TAG_BYTES: Final = nacl.bindings.crypto_aead_xchacha20poly1305_ietf_ABYTES


@lru_cache(maxsize=1024)  # the answer depends on these 32 bytes only; a refusal is not remembered
def _require_point(raw: bytes) -> None:
    if len(raw) != nacl.bindings.crypto_sign_PUBLICKEYBYTES:
        raise KeyRefused("a public key is 32 bytes long")
    if not nacl.bindings.crypto_core_ed25519_is_valid_point(raw):
        raise KeyRefused("the bytes are no point that can be a key: not canonical, not on the curve, or of small order")


def _key_bytes(text: str) -> bytes:
    try:
        return unb64url(text)
    except InputError:
        raise KeyRefused("the public key is not base64url without padding, PEM or a JWK") from None


def _jwk_members(text: str) -> strict_json.JsonObject:
    try:
        return strict_json.parse_object(text.encode("utf-8", "surrogatepass"), max_bytes=_KEY_TEXT_BYTES)
    except InputError as error:
        raise KeyRefused(f"the JWK is not strict JSON: {error}") from None


def _pem(label: str, der: bytes) -> str:
    return f"-----BEGIN {label}-----\n{base64.b64encode(der).decode()}\n-----END {label}-----\n"  # one line: 48 bytes


def _pem_key(text: str, label: str, prefix: bytes) -> bytes:
    """Return the bytes that follow `prefix` in the one PEM block of this label (RFC 7468 section 3)."""
    lines = text.split()
    begin, end = f"-----BEGIN {label}-----".split(), f"-----END {label}-----".split()
    if lines[: len(begin)] != begin or lines[-len(end) :] != end:
        raise KeyRefused(f"the PEM is not one `{label}` block")
    body = "".join(lines[len(begin) : -len(end)])
    try:
        der = base64.b64decode(body.encode("ascii"), validate=True)
    except ValueError:
        raise KeyRefused("the PEM has something that is not base64") from None
    if base64.b64encode(der).decode() != body or not der.startswith(prefix):
        raise KeyRefused("the PEM holds another kind of key; an Ed25519 key is needed")
    return der[len(prefix) :]


def _passphrase_box(passphrase: str, salt: bytes, profile: str) -> nacl.secret.SecretBox:
    # NFC, so that one passphrase typed on two keyboards is one passphrase (RFC 8265 section 4.2)
    secret = unicodedata.normalize("NFC", passphrase).encode()
    if not secret.strip():
        raise KeyRefused("the passphrase is empty")
    operations, memory = _ARGON2ID[profile]
    size = nacl.secret.SecretBox.KEY_SIZE
    return nacl.secret.SecretBox(nacl.pwhash.argon2id.kdf(size, secret, salt, operations, memory))
