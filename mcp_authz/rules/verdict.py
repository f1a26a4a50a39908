"""A verdict as a signed statement over one action digest and over what the approver was shown."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.errors import Conflict, InputError, SignatureRefused
from mcp_authz.model import Assurance, HeldCall, Verdict
from mcp_authz.principals import PersonName
from mcp_authz.rules import jose, strict_json
from mcp_authz.rules.canonical import canonical
from mcp_authz.rules.display import displayed_digest
from mcp_authz.rules.keys import PrivateKey, PublicKey, b64url, equal

TYP: Final = "approval+jwt"
SEND_BACK: Final = "send-back"
CHALLENGE: Final = b"mcp-authz approval challenge 1\x00"  # so that no other signature of a passkey passes for this


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadVerdict:
    """What a verified statement says."""

    approve: bool
    reason: str
    signed_by: str
    terms: Mapping[str, Any]
    sent_back: bool = False


def make_statement(
    held: HeldCall,
    *,
    person: PersonName,
    approve: bool,
    assurance: Assurance,
    reason: str,
    at: datetime,
    key: PrivateKey,
    terms: Mapping[str, Any] | None = None,
    proof: Mapping[str, Any] | None = None,
    sent_back: bool = False,
) -> str:
    """Return the compact JWS, `typ` `approval+jwt`, by which `key` says what `person` answered to this hold.

    `terms` is what the person narrowed; `proof` is how the gateway knows that it was them, where it is who signs.
    What is `sent_back` is no approval.
    """
    claims = {
        "sub": f"user:{person}",
        "hold": held.id,
        "act_s256": b64url(held.digest),
        "shown_s256": b64url(displayed_digest(held)),
        "verdict": _word(approve, sent_back),
        "assurance": assurance.label,
        "reason": reason,
        "iat": int(at.timestamp()),
        **({"terms": dict(terms)} if terms else {}),
        **({"proof": dict(proof)} if proof else {}),
    }
    return jose.sign(claims, typ=TYP, key=key, kid=key.public.thumbprint)


def word(verdict: Verdict) -> str:
    """What a statement calls this answer: `approve`, `deny` or `send-back`."""
    return _word(verdict.approve, verdict.sent_back)


def _word(approve: bool, sent_back: bool) -> str:
    return SEND_BACK if sent_back else "approve" if approve else "deny"


def read_statement(
    statement: str, *, held: HeldCall, person: PersonName, keys: Mapping[str, PublicKey], now: datetime
) -> ReadVerdict:
    """Return what the statement says, once it is known to be this person's answer to exactly this hold.

    Raises:
        SignatureRefused: another type, key, person, hold, action or display, a time that is not now, or an assurance or
            a proof that the approver's key alone does not give.
    """
    unverified = jose.read(statement)
    key = keys.get(str(unverified.header.get("kid")))
    if key is None:
        raise SignatureRefused("verdict is not signed by a key of the approver")
    claims = unverified.verify(key, typ=TYP)
    bound = {
        "sub": f"user:{person}",
        "hold": held.id,
        "act_s256": b64url(held.digest),
        "shown_s256": b64url(displayed_digest(held)),
    }
    for name, value in bound.items():
        if not equal(str(claims.get(name)).encode(), value.encode()):
            raise SignatureRefused(f"verdict is about something else: `{name}` differs")
    if claims.get("assurance") != Assurance.SIGNED_IN.label or "proof" in claims:
        raise SignatureRefused("verdict says more of itself than that a key of the approver signed it: `signed-in`")
    issued, reason, terms = claims.get("iat"), claims.get("reason", ""), claims.get("terms", {})
    if isinstance(issued, bool) or not isinstance(issued, int):
        raise SignatureRefused("verdict does not say when it was given")
    if not isinstance(reason, str) or not isinstance(terms, dict):
        raise SignatureRefused("verdict has a claim of the wrong type")
    if abs(now.timestamp() - issued) > limits.CLOCK_SKEW.total_seconds():
        raise SignatureRefused("verdict was not signed just now; check the clock and sign again")
    given = claims.get("verdict")
    if given not in {"approve", "deny", SEND_BACK}:
        raise SignatureRefused(f"verdict is neither approve nor deny nor {SEND_BACK}")
    return ReadVerdict(
        approve=given == "approve",
        sent_back=given == SEND_BACK,
        reason=reason,
        signed_by=key.thumbprint,
        terms=terms,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PasskeyProof:
    """A passkey's signature over `approval_challenge`, with all it takes to verify it again (WebAuthn Level 3).

    Only the edge that verified signature, origin and user verification makes one.
    """

    credential: bytes
    authenticator_data: bytes
    client_data: bytes  # clientDataJSON, as the browser wrote it
    signature: bytes
    nonce: bytes  # 32 bytes, random, chosen by the gateway for this one answer

    def to_json(self) -> dict[str, str]:
        """The claim `proof` of a statement; all values base64url."""
        return {
            "type": "webauthn",
            "credential": b64url(self.credential),
            "authenticator_data": b64url(self.authenticator_data),
            "client_data": b64url(self.client_data),
            "signature": b64url(self.signature),
            "nonce": b64url(self.nonce),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInProof:
    """A person's sign-in of just now, by which the gateway knows that it was them; their provider said so.

    Only the edge that knows whose browser it was makes one.
    """

    issuer: str
    amr: tuple[str, ...]  # how they signed in there (RFC 8176), as far as the provider says
    at: datetime

    def to_json(self) -> dict[str, Any]:
        """The claim `proof` of a statement."""
        return {
            "type": "sign-in",
            "issuer": self.issuer,
            "amr": list(self.amr),
            "auth_time": int(self.at.timestamp()),
        }


def approval_challenge(
    held: HeldCall, *, person: PersonName, reason: str, terms: Mapping[str, Any], nonce: bytes
) -> bytes:
    """Return what a passkey signs by which `person` approves exactly this: a SHA-256, 32 bytes."""
    answer = {
        "sub": f"user:{person}",
        "hold": held.id,
        "act_s256": b64url(held.digest),
        "shown_s256": b64url(displayed_digest(held)),
        "verdict": "approve",
        "reason": reason,
        "terms": dict(terms),
        "nonce": b64url(nonce),
    }
    return hashlib.sha256(CHALLENGE + canonical(answer)).digest()


def require_same(held: HeldCall, *, act_s256: str, shown_s256: str) -> None:
    """These are the digests of this very action, and of what has to be shown of it.

    Raises:
        Conflict: one of them is not.
    """
    for name, given, digest in (
        ("act_s256", act_s256, held.digest),
        ("shown_s256", shown_s256, displayed_digest(held)),
    ):
        if not equal(given.encode(), b64url(digest).encode()):
            raise Conflict(f"the answer is about something else: `{name}` is not that of hold `{held.id}`")


def require_challenge(proof: PasskeyProof, challenge: bytes) -> None:
    """The passkey signed this challenge, if it signed anything.

    Raises:
        SignatureRefused: it was asked something else.
    """
    try:
        asked = str(strict_json.parse_object(proof.client_data).get("challenge"))
    except InputError:
        raise SignatureRefused("the passkey's answer cannot be read") from None
    if not equal(asked.encode(), b64url(challenge).encode()):
        raise SignatureRefused("the passkey's answer is about something else")
