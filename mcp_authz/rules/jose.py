"""Compact JWS with Ed25519 (RFC 7515, RFC 8037): read without belief, believed only after `verify`.

The algorithm is pinned here and the key is the caller's: nothing in a token chooses either.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from mcp_authz import limits
from mcp_authz.errors import InputError, SignatureRefused
from mcp_authz.rules import strict_json
from mcp_authz.rules.canonical import canonical
from mcp_authz.rules.keys import SIGNATURE_BYTES, b64url, unb64url
from mcp_authz.rules.strict_json import JsonObject

_ALGORITHMS: Final = frozenset({"EdDSA", "Ed25519"})  # RFC 8037 and RFC 9864: two names of one algorithm
_AS_LONG_AS_THE_KEY: Final = frozenset({"RS256", "PS256"})  # whose signatures the key measures; never Ed25519's
_KEY_SOURCES: Final = ("jku", "x5u", "x5c")  # parameters by which a token would bring its own key
_REWRITES: Final = ("crit", "b64", "zip", "enc")  # parameters that change what the rest of the token means
_TEXT_CHARACTERS: Final = 1024


class Verifier(Protocol):
    """A public key; which kind it is, the reader of a slot decides."""

    def verify(self, message: bytes, signature: bytes) -> None:
        """Return only if `signature` was made over `message` with this key.

        Raises:
            SignatureRefused: it was not.
        """


class ShownKey(Protocol):
    """A public key as others are told of it."""

    @property
    def jwk(self) -> dict[str, str]:
        """Its required members."""

    @property
    def thumbprint(self) -> str:
        """RFC 7638, SHA-256, base64url."""


class SigningKey(Protocol):
    """A private key of either kind that a proof of possession is made with."""

    @property
    def algorithm(self) -> str:
        """The `alg` of what it signs."""

    @property
    def public(self) -> ShownKey:
        """The key that others verify with."""

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature over `message`."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class UnverifiedJws:
    """A well-formed compact JWS; nothing in it is true before `verify` has returned."""

    header: JsonObject
    claims: JsonObject
    signing_input: bytes
    signature: bytes = field(compare=False)

    @property
    def kid(self) -> str | None:
        """The key id that the token claims; good for a lookup in our own registry, and for nothing else."""
        kid: str | None = self.header.get("kid")
        return kid

    def verify(self, key: Verifier, *, typ: frozenset[str] | str | None) -> JsonObject:
        """Return the claims, once `key` is known to have signed them as an object of type `typ`.

        `typ` is one media type or several, compared as RFC 7515 section 4.1.9 says. None is for the slot of client
        assertions only, where stock clients send `JWT` or nothing: any explicit type is refused there.

        Raises:
            SignatureRefused: the type is another, or the signature is not by this key.
        """
        if not self._is_typed(typ):
            raise SignatureRefused("the token's `typ` is not the one that belongs here")
        key.verify(self.signing_input, self.signature)
        return self.claims

    def _is_typed(self, typ: frozenset[str] | str | None) -> bool:
        own = self.header.get("typ")
        if typ is None:
            return own is None or _media_type(own) == "application/jwt"
        wanted = {typ} if isinstance(typ, str) else typ
        return own is not None and _media_type(own) in {_media_type(one) for one in wanted}

    def __repr__(self) -> str:
        return "UnverifiedJws(<redacted>)"


def sign(claims: Mapping[str, Any], *, typ: str, key: SigningKey, kid: str | None = None) -> str:
    """Return the compact JWS of the claims in canonical form (RFC 8785), signed by `key`.

    Raises:
        InputError: the claims have no canonical form.
    """
    header = {"alg": key.algorithm, "typ": typ}
    return _signed(header if kid is None else {**header, "kid": kid}, claims, key)


def sign_showing_key(claims: Mapping[str, Any], *, typ: str, key: SigningKey) -> str:
    """Return the compact JWS with the public key in its header, as a DPoP proof has it (RFC 9449 section 4.2).

    Raises:
        InputError: the claims have no canonical form.
    """
    return _signed({"alg": key.algorithm, "typ": typ, "jwk": key.public.jwk}, claims, key)


def read(
    token: str,
    *,
    max_bytes: int = limits.TOKEN_BYTES,
    max_depth: int = limits.JSON_DEPTH,
    allow_jwk: bool = False,
    algorithms: frozenset[str] = _ALGORITHMS,
) -> UnverifiedJws:
    """Return the parts of a compact JWS, each in its one spelling; nothing of it is verified.

    Raises:
        SignatureRefused: the form is broken, the algorithm is not Ed25519, the header asks for an extension or brings
            a key. For proofs of possession `allow_jwk` lets `jwk` pass; `algorithms` lets others in, for slots whose
            keys are of other kinds.
    """
    if len(token) > max_bytes:
        raise SignatureRefused(f"the token is longer than {max_bytes} bytes")
    parts = token.split(".")
    if len(parts) != 3:
        raise SignatureRefused("the token is not a compact JWS of three parts")
    try:
        header = strict_json.parse_object(unb64url(parts[0]))
        claims = strict_json.parse_object(unb64url(parts[1]), max_depth=max_depth)
        signature = unb64url(parts[2])
    except InputError as error:
        raise SignatureRefused(f"a part of the token is malformed: {error}") from None
    _require_header(header, allow_jwk=allow_jwk, algorithms=algorithms)
    if header["alg"] not in _AS_LONG_AS_THE_KEY and len(signature) != SIGNATURE_BYTES:
        raise SignatureRefused("the token's signature is not 64 bytes long")
    signing_input = f"{parts[0]}.{parts[1]}".encode()
    return UnverifiedJws(header=header, claims=claims, signing_input=signing_input, signature=signature)


def require_times(
    claims: Mapping[str, Any], *, now: datetime, skew: timedelta, max_lifetime: timedelta | None
) -> tuple[datetime, datetime]:
    """Return (issued at, expires at), once the claims are known to hold at `now`, give or take `skew`.

    `iat` and `exp` are required, `nbf` is not (RFC 7519 section 4.1).

    Raises:
        SignatureRefused: a time is missing or no number, not yet or no longer valid, or the lifetime is too long.
    """
    issued_at, expires_at = require_time(claims, "iat"), require_time(claims, "exp")
    if issued_at > now + skew:
        raise SignatureRefused("the token is issued in the future; compare the clocks")
    if "nbf" in claims and require_time(claims, "nbf") > now + skew:
        raise SignatureRefused("the token is not valid yet")
    if expires_at <= issued_at:
        raise SignatureRefused("the token expires before it is issued")
    if expires_at <= now - skew:
        raise SignatureRefused("the token has expired")
    if max_lifetime is not None and expires_at - issued_at > max_lifetime:
        raise SignatureRefused(f"the token lives longer than {int(max_lifetime.total_seconds())} seconds")
    return issued_at, expires_at


def require_time(claims: Mapping[str, Any], name: str) -> datetime:
    """Return the NumericDate claim `name` as an aware UTC datetime (RFC 7519 section 2).

    Raises:
        SignatureRefused: it is missing, no number, or no date.
    """
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SignatureRefused(f"claim `{name}` is not a number of seconds")
    try:
        if value >= 0:
            return datetime.fromtimestamp(value, tz=UTC)
    except (OverflowError, ValueError, OSError):
        pass
    raise SignatureRefused(f"claim `{name}` is no date")


def require_text(claims: Mapping[str, Any], name: str, max_length: int = _TEXT_CHARACTERS) -> str:
    """Return the text claim `name`, which is there, not empty and at most `max_length` characters long.

    Raises:
        SignatureRefused: it is not.
    """
    value = claims.get(name)
    if not isinstance(value, str) or not value:
        raise SignatureRefused(f"claim `{name}` is missing or not text")
    if len(value) > max_length:
        raise SignatureRefused(f"claim `{name}` is longer than {max_length} characters")
    return value


def _signed(header: Mapping[str, Any], claims: Mapping[str, Any], key: SigningKey) -> str:
    signing_input = f"{b64url(strict_json.dump(dict(header)))}.{b64url(canonical(dict(claims)))}"
    return f"{signing_input}.{b64url(key.sign(signing_input.encode()))}"


def _require_header(header: JsonObject, *, allow_jwk: bool, algorithms: frozenset[str]) -> None:
    alg = header.get("alg")
    if not isinstance(alg, str) or alg not in algorithms:
        raise SignatureRefused(f"the token's `alg` is not one of {', '.join(sorted(algorithms))}")
    for name in _REWRITES:
        if name in header:
            raise SignatureRefused(f"the token's header has `{name}`, which is not supported")
    for name in _KEY_SOURCES:
        if name in header:
            raise SignatureRefused(f"the token's header has `{name}`; keys come from the registry only")
    if "jwk" in header and not (allow_jwk and isinstance(header["jwk"], dict)):
        raise SignatureRefused("the token's header has a `jwk`; keys come from the registry only")
    for name in ("typ", "kid"):
        value = header.get(name, "")
        if not isinstance(value, str) or len(value) > _TEXT_CHARACTERS:
            raise SignatureRefused(f"the token's `{name}` is not text of a sensible length")


def _media_type(typ: str) -> str:
    typ = typ.lower()
    return typ if "/" in typ else f"application/{typ}"
