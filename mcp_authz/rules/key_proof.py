"""A proof that a public key is its sender's own: the key signs for which agent, and at which endpoint, it is meant.

The form is a compact JWS of type `mcp-authz-key+jwt` with the key in its header (`jwk`), over `sub` (the agent's name),
`aud` (the URL of the endpoint), `iat` and `jti`. An endpoint registers a key once and for good, so that a proof has no
second use, and none is remembered.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from mcp_authz import limits
from mcp_authz.errors import SignatureRefused
from mcp_authz.rules import jose
from mcp_authz.rules.keys import PrivateKey, PublicKey

TYP: Final = "mcp-authz-key+jwt"


def rotation_url(issuer: str, agent: str) -> str:
    """Where an agent replaces its own key; the audience of the proof that the new one makes there."""
    return f"{issuer}/agents/{agent}/key"


def enrolment_url(issuer: str, agent: str) -> str:
    """Where an agent registers its first key by a one-time code; the audience of that key's proof."""
    return f"{issuer}/agents/{agent}/enrol"


def prove_key(key: PrivateKey, *, agent: str, audience: str, id: str, at: datetime) -> str:
    """Return the proof by which the holder of `key` asks for it to be this agent's."""
    claims = {"sub": agent, "aud": audience, "iat": int(at.timestamp()), "jti": id}
    return jose.sign_showing_key(claims, typ=TYP, key=key)


def read_key_proof(text: str, *, agent: str, audience: str, now: datetime) -> PublicKey:
    """Return the key that made the proof, for this agent and this endpoint, just now.

    Raises:
        KeyRefused: the key in it is malformed, of small order, or of another type.
        SignatureRefused: it is no such proof, or for another agent, endpoint or time.
    """
    proof = jose.read(text, allow_jwk=True)
    jwk = proof.header.get("jwk")
    if not isinstance(jwk, dict):
        raise SignatureRefused("the proof does not show its key (`jwk` in the header)")
    key = PublicKey.from_jwk(jwk)
    claims = proof.verify(key, typ=TYP)
    if claims.get("sub") != agent or claims.get("aud") != audience:
        raise SignatureRefused("the proof is for another agent or another endpoint")
    jose.require_text(claims, "jti", limits.ID_CHARACTERS)
    _require_fresh(jose.require_time(claims, "iat"), now)
    return key


def _require_fresh(issued_at: datetime, now: datetime) -> None:
    age: timedelta = now - issued_at
    if not -limits.CLOCK_SKEW <= age <= limits.KEY_PROOF_AGE + limits.CLOCK_SKEW:
        raise SignatureRefused("the proof is too old, or from the future; compare the clocks")
