"""What a person agrees to on the page, whole, and what their passkey signs by which they agree to exactly this."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Final

from mcp_authz.authorization import AuthorizationRequest
from mcp_authz.principals import AgentName, PersonName
from mcp_authz.rules.canonical import canonical
from mcp_authz.rules.keys import b64url
from mcp_authz.rules.scope import Scope

_CHALLENGE: Final = b"mcp-authz consent challenge 1\x00"  # so that no other signature of a passkey passes for this


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    """One answer to one request: who lets whom do what, for how long, and where the code for it goes."""

    issuer: str
    person: PersonName
    client_name: str  # as the page shows it
    agent: AgentName
    request: AuthorizationRequest
    chosen: frozenset[Scope]
    days: int


def consent_challenge(agreed: Agreement, nonce: bytes) -> bytes:
    """Return what a passkey signs by which its person agrees to exactly this: a SHA-256, 32 bytes."""
    request = agreed.request
    answer = {
        "iss": agreed.issuer,
        "sub": f"user:{agreed.person}",
        "client": request.client,
        "client_name": agreed.client_name,
        "redirect_uri": request.redirect_uri,
        "agent": f"agent:{agreed.agent}",
        "scope": sorted(agreed.chosen),
        "days": agreed.days,
        "code_challenge": request.challenge,
        "dpop_jkt": request.confirmation,
        "state": request.state,
        "nonce": b64url(nonce),
    }
    return hashlib.sha256(_CHALLENGE + canonical(answer)).digest()
