"""A proof of one call: the holder of a chain's last link signs tool and arguments, for this gateway, just now.

The form is the invocation proof of draft-niyikiza-oauth-attenuating-agent-tokens: a compact JWS of type `aat-pop+jwt`
over the canonical form (RFC 8785) of its whole payload. It counts once: whoever accepts one remembers its `id`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.errors import InputError, SignatureRefused
from mcp_authz.rules import jose
from mcp_authz.rules.canonical import canonical
from mcp_authz.rules.keys import PrivateKey, PublicKey, b64url, equal
from mcp_authz.rules.message import OWN_META

TYP: Final = "aat-pop+jwt"
INVOCATION: Final = f"{OWN_META}invocation"
"""The member of a request's `_meta` that has its proof."""

DELEGATION: Final = f"{OWN_META}delegation"
"""The member that has the signed links, root first, where a request brings them along."""

BOUND: Final[Mapping[str, frozenset[str]]] = {
    "resources/read": frozenset({"uri"}),
    "prompts/get": frozenset({"name", "arguments"}),
    "completion/complete": frozenset({"ref", "argument", "context"}),
    "tasks/get": frozenset({"taskId"}),
    "tasks/update": frozenset({"taskId", "inputResponses"}),
    "tasks/cancel": frozenset({"taskId"}),
}
"""The parameters that say what a request asks for, by method; beside them it has `_meta` and what answers questions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proved:
    """What is signed about one call."""

    link: str  # the id of the chain's last link
    tool: str
    arguments: Mapping[str, Any]
    audience: str  # the resource URI of the gateway


@dataclass(frozen=True, slots=True, kw_only=True)
class CallProof:
    """A verified proof: its id, to be remembered, and until when it could be shown again."""

    id: str
    expires_at: datetime


def proved(method: str, params: Mapping[str, Any], *, link: str, audience: str) -> Proved:
    """Return what is signed about a request: of a call its tool and arguments, of others the method and parameters.

    No tool has the name of a method, so that neither can be taken for the other.

    Raises:
        InputError: the request is none that can be signed, or names nothing.
    """
    if method == "tools/call":
        tool, arguments = params.get("name"), params.get("arguments", {})
    elif method in BOUND:
        tool, arguments = method, {name: value for name, value in params.items() if name in BOUND[method]}
    else:
        raise InputError("requests of this method are not signed")
    if not isinstance(tool, str) or not isinstance(arguments, dict):
        raise InputError("the request does not say what it calls, or with what arguments")
    return Proved(link=link, tool=tool, arguments=arguments, audience=audience)


def prove_call(call: Proved, *, id: str, at: datetime, key: PrivateKey) -> str:
    """Return the proof by which the holder of `key` says that it makes exactly this call.

    Raises:
        InputError: the arguments have no canonical form.
    """
    claims = {
        "jti": id,
        "iat": int(at.timestamp()),
        "aat_id": call.link,
        "aat_tool": call.tool,
        "aat_aud": call.audience,
        **_arguments(call.arguments),
    }
    return jose.sign(claims, typ=TYP, key=key)


def read_call_proof(proof: str, call: Proved, *, holder: PublicKey, now: datetime) -> CallProof:
    """Return the proof, once it is known to be the holder's, of exactly this call, and of now.

    Raises:
        SignatureRefused: another key, link, tool, audience or arguments, another time, or another spelling.
    """
    unverified = jose.read(proof, max_bytes=limits.CALL_PROOF_BYTES)
    claims = unverified.verify(holder, typ=TYP)
    try:
        wanted = {"aat_id": call.link, "aat_tool": call.tool, "aat_aud": call.audience, **_arguments(call.arguments)}
        spelled, expected = canonical(dict(claims)), canonical(wanted)
        said = canonical({name: value for name, value in claims.items() if name not in {"jti", "iat"}})
    except InputError:
        raise SignatureRefused("the proof says something that has no canonical form") from None
    if b64url(spelled).encode() != unverified.signing_input.partition(b".")[2]:
        raise SignatureRefused("the proof is not written in canonical form (RFC 8785)")
    if not equal(said, expected):
        raise SignatureRefused("the proof is of another call: link, tool, audience or arguments differ")
    issued_at = jose.require_time(claims, "iat")
    if abs(now - issued_at) > limits.CLOCK_SKEW:
        raise SignatureRefused("the proof was not signed just now; compare the clocks and sign again")
    id_ = jose.require_text(claims, "jti", limits.ID_CHARACTERS)
    return CallProof(id=id_, expires_at=issued_at + limits.CLOCK_SKEW)


def _arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments as a proof carries them: themselves, or their digest where they are large."""
    spelled = canonical(dict(arguments))
    if len(spelled) <= limits.CALL_PROOF_ARGUMENTS:
        return {"hta": dict(arguments)}
    return {"hta_s256": b64url(hashlib.sha256(spelled).digest())}
