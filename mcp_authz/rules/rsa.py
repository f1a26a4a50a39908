"""RSA signatures (RFC 7518 sections 3.3 and 3.5) by keys of identity providers; a door to cryptography.

No key of this installation is of this kind, and no agent's may be: most providers sign with nothing else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, Literal

from mcp_authz.errors import InputError, KeyRefused, SignatureRefused
from mcp_authz.rules.keys import PRIVATE_MEMBERS, unb64url

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

Algorithm = Literal["RS256", "PS256"]
ALGORITHMS: Final[tuple[Algorithm, ...]] = ("RS256", "PS256")

_BITS: Final = range(2048, 4096 + 1)  # RFC 7518 section 3.3 wants 2048 at least; more than 4096 is only slow
_EXPONENTS: Final = range(65537, 2**32, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class RsaKey:
    """A public RSA key, for the one algorithm that its owner says, or for RS256 where nothing is said."""

    modulus: int
    exponent: int
    algorithm: Algorithm

    def __post_init__(self) -> None:
        if self.modulus.bit_length() not in _BITS or self.modulus % 2 == 0:
            raise KeyRefused(f"an RSA key has {_BITS[0]} to {_BITS[-1]} bits")
        if self.exponent not in _EXPONENTS:
            raise KeyRefused("the RSA key's exponent is not an odd number from 65537 to 2^32")

    @classmethod
    def from_jwk(cls, jwk: Mapping[str, Any]) -> RsaKey:
        """Return the key of an RSA JWK (RFC 7518 section 6.3.1); members it does not know are ignored.

        Raises:
            KeyRefused: another key type, use or algorithm, a private member, or numbers of no sensible key.
        """
        if not PRIVATE_MEMBERS.isdisjoint(jwk):
            raise KeyRefused("the JWK has a private member")
        if jwk.get("kty") != "RSA" or jwk.get("use", "sig") != "sig":
            raise KeyRefused("the JWK is not of kty `RSA`, for signatures")
        for algorithm in ALGORITHMS:
            if jwk.get("alg", "RS256") == algorithm:
                return cls(modulus=_number(jwk, "n"), exponent=_number(jwk, "e"), algorithm=algorithm)
        raise KeyRefused("the JWK is meant for another algorithm")

    def verify(self, message: bytes, signature: bytes) -> None:
        """Return only if `signature` was made over `message` with this key, by its one algorithm.

        Raises:
            SignatureRefused: it was not.
        """
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.padding import MGF1, PSS, AsymmetricPadding, PKCS1v15
        from cryptography.hazmat.primitives.hashes import SHA256

        if len(signature) != (self.modulus.bit_length() + 7) // 8:
            raise SignatureRefused("the signature is not as long as the key")
        padding: AsymmetricPadding = PKCS1v15()
        if self.algorithm == "PS256":
            padding = PSS(mgf=MGF1(SHA256()), salt_length=SHA256.digest_size)  # RFC 7518 section 3.5: no other length
        try:
            _loaded(self.modulus, self.exponent).verify(signature, message, padding, SHA256())
        except InvalidSignature:
            raise SignatureRefused("the signature was not made with this key over these bytes") from None


@lru_cache(maxsize=64)
def _loaded(modulus: int, exponent: int) -> RSAPublicKey:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

    return RSAPublicNumbers(exponent, modulus).public_key()


def _number(jwk: Mapping[str, Any], name: str) -> int:
    """The number in its one spelling: big-endian, without leading zeros (RFC 7518 section 2, Base64urlUInt)."""
    text = jwk.get(name)
    try:
        raw = unb64url(text) if isinstance(text, str) else b""
    except InputError:
        raw = b""
    if not raw or raw[0] == 0 or len(raw) > _BITS[-1] // 8:
        raise KeyRefused(f"the JWK's member `{name}` is not base64url of a number")
    return int.from_bytes(raw)
