"""DPoP proofs (RFC 9449): who sends this request holds that key; each proof is of one request, made just now.

A proof counts once: whoever accepts one remembers its `once`.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import urlsplit

from mcp_authz import limits
from mcp_authz.errors import KeyRefused, SignatureRefused
from mcp_authz.principals import Once, Thumbprint
from mcp_authz.rules import es256, jose
from mcp_authz.rules.es256 import P256Key
from mcp_authz.rules.keys import PublicKey, b64url, equal

TYP: Final = "dpop+jwt"
ALGORITHMS: Final = ("EdDSA", "Ed25519", es256.ALGORITHM)
"""What a proof may be signed with, as metadata and challenges name it."""

_NONCE_BYTES: Final = 16
_PORTS: Final = {"http": 80, "https": 443}
_URI: Final = re.compile(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+")  # RFC 3986 section 2
_ENCODED: Final = re.compile(r"%([0-9A-Fa-f]{2})?")
_UNRESERVED: Final = re.compile(r"[A-Za-z0-9\-._~]")


class NonceRefused(SignatureRefused):
    """A proof that is right in everything but its nonce: with the current one it will be accepted."""

    code = "use_dpop_nonce"


@dataclass(frozen=True, slots=True, kw_only=True)
class DpopProof:
    """A verified proof."""

    key: Thumbprint  # `jkt`: of the key that signed it
    id: str  # `jti`, which the client chose
    expires_at: datetime  # until when it could be shown again

    @property
    def once(self) -> Once:
        """What must be remembered, so that the proof counts once; no client can use up an id of another's key."""
        issued_at = self.expires_at - limits.CLOCK_SKEW
        return Once(kind="dpop", id=f"{self.key}:{self.id}", expires_at=self.expires_at, issued_at=issued_at)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Nonces:
    """The nonces of a server that remembers none: each is a MAC of the stretch of time in which it was given out.

    Whoever has the key gives and takes the same ones. Without `demanded` a proof may leave its nonce out.
    """

    key: bytes
    demanded: bool

    def current(self, now: datetime) -> str:
        """Return the nonce to give out now."""
        return self._of(self._stretch(now))

    def accept(self, nonce: str, now: datetime) -> bool:
        """Whether the nonce is of this stretch of time, or of the one before."""
        stretch, said = self._stretch(now), nonce.encode("utf-8", "surrogatepass")
        return any(equal(said, self._of(one).encode()) for one in (stretch, stretch - 1))

    def _of(self, stretch: int) -> str:
        mac = hmac.digest(self.key, b"dpop-nonce:%d" % stretch, "sha256")
        return b64url(mac[:_NONCE_BYTES])

    def _stretch(self, now: datetime) -> int:
        return int(now.timestamp() // limits.DPOP_NONCE.total_seconds())


def only_proof(lines: Sequence[str]) -> str:
    """Return the one value of the request's `DPoP` header lines (RFC 9449 section 4.3, step 1).

    Raises:
        SignatureRefused: there is none, or more than one.
    """
    if len(lines) != 1:
        raise SignatureRefused("send exactly one `DPoP` header")
    return lines[0]


def read_proof(
    proof: str, *, method: str, url: str, now: datetime, access_token: str | None, nonces: Nonces | None
) -> DpopProof:
    """Return the proof, once it is known to be of this request and of now (RFC 9449 section 4.3).

    `url` is the place as it is published, never what a Host header says. `access_token` is the one that came with the
    proof; that its `cnf.jkt` is the proof's key is for the caller to compare. Without `nonces` a proof has none.

    Raises:
        NonceRefused: all is well but the nonce.
        SignatureRefused: it is no proof, or one of another request or time.
    """
    # Step 1 is `only_proof`. 2 and 5: one JWS in its one spelling, by an algorithm that is asymmetric and known.
    unverified = jose.read(proof, max_bytes=limits.DPOP_BYTES, allow_jwk=True, algorithms=frozenset(ALGORITHMS))
    claims = unverified.claims
    id_ = jose.require_text(claims, "jti", limits.ID_CHARACTERS)  # 3
    htm, htu = jose.require_text(claims, "htm"), jose.require_text(claims, "htu")
    issued_at = jose.require_time(claims, "iat")
    key = _shown_key(unverified)  # 7, before 6: a key is a key before anything is verified with it
    unverified.verify(key, typ=TYP)  # 4, 6
    if htm != method:  # 8
        raise SignatureRefused("the proof is for another HTTP method")
    if normalized(htu) != normalized(url):  # 9
        raise SignatureRefused("the proof is for another URL")
    _require_nonce(claims, nonces, now)  # 10
    if abs(now - issued_at) > limits.CLOCK_SKEW:  # 11
        raise SignatureRefused("the proof was not signed just now; compare the clocks and sign again")
    if access_token is not None and claims.get("ath") != token_hash(access_token):  # 12
        raise SignatureRefused("the proof is for another access token, or for none")
    return DpopProof(key=Thumbprint(key.thumbprint), id=id_, expires_at=issued_at + limits.CLOCK_SKEW)


def make_proof(
    key: jose.SigningKey,
    *,
    method: str,
    url: str,
    at: datetime,
    id: str,
    access_token: str | None = None,
    nonce: str | None = None,
) -> str:
    """Return the proof by which the holder of `key` makes one request (RFC 9449 section 4.2)."""
    claims: dict[str, Any] = {"jti": id, "htm": method, "htu": _bare(url), "iat": int(at.timestamp())}
    if access_token is not None:
        claims["ath"] = token_hash(access_token)
    if nonce is not None:
        claims["nonce"] = nonce
    return jose.sign_showing_key(claims, typ=TYP, key=key)


def token_hash(access_token: str) -> str:
    """Return the value of `ath` for this access token: base64url of its SHA-256."""
    return b64url(hashlib.sha256(access_token.encode()).digest())


def normalized(url: str) -> str:
    """Return the one spelling of an http(s) URL, without query and fragment (RFC 3986 sections 6.2.2 and 6.2.3).

    Raises:
        SignatureRefused: it is no absolute http or https URL, or has a user in it.
    """
    wrong = SignatureRefused("`htu` is no plain http or https URL")
    if _URI.fullmatch(url) is None:  # first: the parser drops what it does not like
        raise wrong
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme.lower(), parts.hostname, parts.port
    except ValueError:
        raise wrong from None
    if scheme not in _PORTS or not host or "@" in parts.netloc:
        raise wrong
    place = f"[{host}]" if ":" in host else host
    if port is not None and port != _PORTS[scheme]:
        place = f"{place}:{port}"
    return f"{scheme}://{place}{_without_dots(_ENCODED.sub(_decoded, parts.path))}"


def _shown_key(unverified: jose.UnverifiedJws) -> PublicKey | P256Key:
    """The public key in the header, of the kind that the algorithm is for."""
    jwk = unverified.header.get("jwk")
    if not isinstance(jwk, dict):
        raise SignatureRefused("the proof's header has no `jwk`")
    try:
        if unverified.header["alg"] == es256.ALGORITHM:
            return P256Key.from_jwk(jwk)
        return PublicKey.from_jwk(jwk)
    except KeyRefused as error:
        raise SignatureRefused(f"the proof's `jwk` is no key for its `alg`: {error}") from None


def _require_nonce(claims: dict[str, Any], nonces: Nonces | None, now: datetime) -> None:
    """A nonce that is there is always checked; one that is not is missed where it is demanded."""
    nonce = claims.get("nonce")
    if nonce is None and "nonce" not in claims:
        if nonces is not None and nonces.demanded:
            raise NonceRefused("the proof has no nonce")
    elif nonces is None or not isinstance(nonce, str) or not nonces.accept(nonce, now):
        raise NonceRefused("the proof's nonce is not one of this server's, or too old")


def _bare(url: str) -> str:
    return url.partition("#")[0].partition("?")[0]


def _decoded(match: re.Match[str]) -> str:
    if match[1] is None:
        raise SignatureRefused("`htu` has a `%` that encodes nothing")
    character = chr(int(match[1], 16))
    return character if _UNRESERVED.fullmatch(character) else match[0].upper()


def _without_dots(path: str) -> str:
    """The path without `.` and `..` (RFC 3986 section 5.2.4); an empty one is `/`."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments and segments[-1] in {".", ".."}:
        kept.append("")
    return "/" + "/".join(kept)
