"""ES256 signatures (RFC 7518 section 3.4) by keys that a proof shows or a provider publishes; a door to cryptography.

No key of this installation is of this kind. Browsers and stock clients prove possession of one (`rules.dpop`), where
Ed25519 is not to be had. The library is loaded when the first one comes: who only makes proofs goes without.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar, Final, NoReturn

from mcp_authz.errors import InputError, KeyRefused, SignatureRefused
from mcp_authz.rules.keys import PRIVATE_MEMBERS, SIGNATURE_BYTES, b64url, unb64url

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

ALGORITHM: Final = "ES256"

_COORDINATE_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class P256Key:
    """A public key that is a point of the curve P-256, and not the point at infinity."""

    raw: bytes  # 64 bytes: x, then y
    thumbprint: str = field(init=False, repr=False, compare=False)  # RFC 7638, SHA-256, base64url

    def __post_init__(self) -> None:
        _point(self.raw)
        x, y = (b64url(half).encode() for half in (self.raw[:_COORDINATE_BYTES], self.raw[_COORDINATE_BYTES:]))
        # RFC 7638 section 3.2: the required members in lexicographic order, nothing else
        members = b'{"crv":"P-256","kty":"EC","x":"%s","y":"%s"}' % (x, y)
        object.__setattr__(self, "thumbprint", b64url(hashlib.sha256(members).digest()))

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, Any]) -> P256Key:
        """Return the key of an EC/P-256 JWK (RFC 7518 section 6.2.1); members it does not know are ignored.

        Raises:
            KeyRefused: another key type, curve or use, a private member, or coordinates of no point of the curve.
        """
        if not PRIVATE_MEMBERS.isdisjoint(jwk):
            raise KeyRefused("the JWK has a private member; send the public key only")
        if jwk.get("kty") != "EC" or jwk.get("crv") != "P-256":
            raise KeyRefused("the JWK is not of kty `EC` and crv `P-256`")
        if jwk.get("use", "sig") != "sig" or jwk.get("alg", ALGORITHM) != ALGORITHM:
            raise KeyRefused("the JWK is meant for another use or algorithm")
        return cls(raw=_coordinate(jwk, "x") + _coordinate(jwk, "y"))

    @property
    def jwk(self) -> dict[str, str]:
        """The key as a JWK with its required members."""
        x, y = (b64url(half) for half in (self.raw[:_COORDINATE_BYTES], self.raw[_COORDINATE_BYTES:]))
        return {"kty": "EC", "crv": "P-256", "x": x, "y": y}

    def verify(self, message: bytes, signature: bytes) -> None:
        """Return only if `signature`, R then S in 32 bytes each, was made over `message` with this key.

        Raises:
            SignatureRefused: it was not.
        """
        if len(signature) != SIGNATURE_BYTES:
            raise SignatureRefused("the signature is not 64 bytes long")
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
        from cryptography.hazmat.primitives.hashes import SHA256

        r, s = (int.from_bytes(half) for half in (signature[:_COORDINATE_BYTES], signature[_COORDINATE_BYTES:]))
        try:
            _point(self.raw).verify(encode_dss_signature(r, s), message, ECDSA(SHA256()))
        except InvalidSignature:
            raise SignatureRefused("the signature was not made with this key over these bytes") from None


class P256PrivateKey:
    """A private key on the curve P-256; prints as `<redacted>` and refuses to be pickled or copied."""

    __slots__ = ("_signing", "public")

    algorithm: ClassVar[str] = ALGORITHM
    _signing: EllipticCurvePrivateKey
    public: P256Key

    def __init__(self, signing: EllipticCurvePrivateKey) -> None:
        point = signing.public_key().public_numbers()
        halves = (number.to_bytes(_COORDINATE_BYTES) for number in (point.x, point.y))
        self._signing = signing
        self.public = P256Key(raw=b"".join(halves))

    @classmethod
    def generate(cls) -> P256PrivateKey:
        """Return a new key that nobody else has."""
        from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

        return cls(generate_private_key(SECP256R1()))

    @classmethod
    def from_pem(cls, text: str) -> P256PrivateKey:
        """Return the key of an unencrypted PKCS#8 PEM.

        Raises:
            KeyRefused: it is another kind of key or file, or encrypted.
        """
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        try:
            key = load_pem_private_key(text.encode(), None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise KeyRefused("the text is no private key in PEM, or an encrypted one") from None
        if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
            raise KeyRefused("the PEM holds another kind of key; one on the curve P-256 is needed")
        return cls(key)

    def sign(self, message: bytes) -> bytes:
        """Return the signature over `message`: R, then S, in 32 bytes each."""
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
        from cryptography.hazmat.primitives.hashes import SHA256

        r, s = decode_dss_signature(self._signing.sign(message, ECDSA(SHA256())))
        return r.to_bytes(_COORDINATE_BYTES) + s.to_bytes(_COORDINATE_BYTES)

    def to_pem(self) -> str:
        """Return the key, readable by whoever gets the text, as PKCS#8 PEM."""
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        return self._signing.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    def __repr__(self) -> str:
        return "P256PrivateKey(<redacted>)"

    def __reduce_ex__(self, _: object) -> NoReturn:
        raise TypeError("a private key is neither pickled nor copied")


@lru_cache(maxsize=512)  # the answer depends on these 64 bytes only; a refusal is not remembered
def _point(raw: bytes) -> EllipticCurvePublicKey:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey

    if len(raw) != 2 * _COORDINATE_BYTES:
        raise KeyRefused("a P-256 public key is 64 bytes long")
    try:
        return EllipticCurvePublicKey.from_encoded_point(SECP256R1(), b"\x04" + raw)
    except ValueError:
        raise KeyRefused("the coordinates are not those of a point of P-256") from None


def _coordinate(jwk: Mapping[str, Any], name: str) -> bytes:
    text = jwk.get(name)
    try:
        raw = unb64url(text) if isinstance(text, str) else b""
    except InputError:
        raw = b""
    if len(raw) != _COORDINATE_BYTES:  # full size, leading zeros included (RFC 7518 section 6.2.1.2)
        raise KeyRefused(f"the JWK's member `{name}` is not base64url of 32 bytes")
    return raw
