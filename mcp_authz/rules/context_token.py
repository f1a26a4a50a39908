"""The context token: what the gateway says of one call to the tool server that gets it, and when that is believed.

A JWT of a type of its own, by a key of its own, for one audience, one tool, these arguments and one minute. It is no
authority at the gateway: nothing there reads one. docs/context-token.md is its format.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.errors import InputError, SignatureRefused
from mcp_authz.model import Assurance
from mcp_authz.principals import Mode
from mcp_authz.rules import jose
from mcp_authz.rules.canonical import canonical
from mcp_authz.rules.keys import PrivateKey, PublicKey, b64url, equal, unb64url

TYP: Final = "mcp-context+jwt"
META: Final = "dev.mcp-authz/context"  # the member of `_meta` that carries it
HEADER: Final = "Mcp-Authz-Context"
JWKS_PATH: Final = "/.well-known/mcp-authz/context-jwks.json"
SALT_BYTES: Final = 16

_ASSURANCES: Final = {assurance.label: assurance for assurance in Assurance}


@dataclass(frozen=True, slots=True, kw_only=True)
class Approved:
    """That people approved exactly this call; who they are stays with the gateway."""

    hold: str
    assurance: Assurance  # the weakest proof among the approvals


@dataclass(frozen=True, slots=True, kw_only=True)
class CallContext:
    """On whose behalf one call is made, and by whom; true only as `read_context` returns it."""

    id: str  # of this very forwarding; never given twice
    call: str  # the id of the call in the gateway's audit log
    subject: str  # `pairwise:...` or `user:NAME`; `agent:NAME` of an agent that acts in its own name
    actors: tuple[str, ...]  # `agent:NAME`, the one that acts now first; empty where only the person is to be seen
    session: str  # `pairwise:...` or the session's id, as the subject
    mode: Mode
    tool: str  # as the tool server names it; a method such as `resources/read` stands for itself
    approval: Approved | None = None
    issued_at: datetime
    expires_at: datetime

    @property
    def actor(self) -> str | None:
        """The agent that acts now, `agent:NAME`; None where only the person is to be seen."""
        return self.actors[0] if self.actors else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What a tool server knows of the call that it has got."""

    issuer: str  # the gateway's public URL
    audience: str
    tool: str
    arguments: Mapping[str, Any]


def pairwise(name: str, *, audience: str, key: bytes) -> str:
    """Return what this audience knows `name` as, `user:NAME` or `session:ID`: always the same, and no other's."""
    made = hmac.new(key, canonical([audience, name]), hashlib.sha256).digest()
    return f"pairwise:{b64url(made[:16])}"


def sign_context(
    context: CallContext, *, issuer: str, audience: str, arguments: Mapping[str, Any], salt: bytes, key: PrivateKey
) -> str:
    """Return the token by which the gateway says this of a call with these arguments.

    `act` renders the chain with the current actor outermost (RFC 8693 section 4.1).

    Raises:
        InputError: the arguments have no canonical form.
    """
    claims: dict[str, Any] = {
        "iss": issuer,
        "aud": audience,
        "sub": context.subject,
        "session": context.session,
        "mode": context.mode.value,
        "tool": context.tool,
        "args_salt": b64url(salt),
        "args_s256": b64url(_digest(arguments, salt)),
        "call": context.call,
        "jti": context.id,
        "iat": int(context.issued_at.timestamp()),
        "exp": int(context.expires_at.timestamp()),
    }
    if context.actors:
        claims["act"] = _act(context.actors)
    if context.approval is not None:
        claims["approval"] = {"hold": context.approval.hold, "assurance": context.approval.assurance.label}
    return jose.sign(claims, typ=TYP, key=key, kid=key.public.thumbprint)


def read_context(token: jose.UnverifiedJws, key: PublicKey, expected: Expected, *, now: datetime) -> CallContext:
    """Return what the gateway says, once it is known to say it of exactly this call, and just now.

    Whoever accepts a token remembers its `id` until `expires_at` and the skew of clocks: it counts once. Claims that
    this version does not know are passed over (RFC 7519 section 4).

    Raises:
        SignatureRefused: another type or key, another issuer, audience, tool or arguments, out of time, or malformed.
    """
    claims = token.verify(key, typ=TYP)
    if claims.get("iss") != expected.issuer:
        raise SignatureRefused("the context token is from another gateway")
    if claims.get("aud") != expected.audience:
        raise SignatureRefused(f"the context token is for another audience, not `{expected.audience}`")
    issued_at, expires_at = jose.require_times(
        claims, now=now, skew=limits.CLOCK_SKEW, max_lifetime=limits.CONTEXT_LIFETIME
    )
    if claims.get("tool") != expected.tool:
        raise SignatureRefused(f"the context token is for another tool, not `{expected.tool}`")
    _require_arguments(claims, expected.arguments)
    mode = _mode(claims)
    return CallContext(
        id=jose.require_text(claims, "jti", limits.ID_CHARACTERS),
        call=jose.require_text(claims, "call", limits.ID_CHARACTERS),
        subject=jose.require_text(claims, "sub"),
        actors=_actors(claims, mode),
        session=jose.require_text(claims, "session", limits.ID_CHARACTERS),
        mode=mode,
        tool=expected.tool,
        approval=_approval(claims),
        issued_at=issued_at,
        expires_at=expires_at,
    )


def _digest(arguments: Mapping[str, Any], salt: bytes) -> bytes:
    return hashlib.sha256(salt + canonical(dict(arguments))).digest()


def _require_arguments(claims: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    try:
        salt, said = (unb64url(jose.require_text(claims, name)) for name in ("args_salt", "args_s256"))
        if len(salt) == SALT_BYTES and equal(said, _digest(arguments, salt)):
            return
    except InputError:
        raise SignatureRefused("the context token or the arguments cannot be read") from None
    raise SignatureRefused("the context token is for other arguments; pass them as they came, without defaults")


def _mode(claims: Mapping[str, Any]) -> Mode:
    try:
        return Mode(jose.require_text(claims, "mode"))
    except ValueError:
        raise SignatureRefused("claim `mode` is not `own`, `delegated` or `impersonated`") from None


def _act(actors: tuple[str, ...]) -> dict[str, Any]:
    act: dict[str, Any] = {"sub": actors[-1]}
    for actor in reversed(actors[:-1]):
        act = {"sub": actor, "act": act}
    return act


def _actors(claims: Mapping[str, Any], mode: Mode) -> tuple[str, ...]:
    """The chain in claim `act`, the current actor first; none in mode `impersonated`, and one at least elsewhere."""
    actors: list[str] = []
    act = claims.get("act")
    while act is not None:
        if not isinstance(act, dict) or len(actors) == limits.CHAIN_LINKS:
            raise SignatureRefused(f"claim `act` is no chain of at most {limits.CHAIN_LINKS} actors")
        actors.append(jose.require_text(act, "sub"))
        act = act.get("act")
    if bool(actors) == (mode is Mode.IMPERSONATED):
        raise SignatureRefused("claim `act` does not go with claim `mode`")
    return tuple(actors)


def _approval(claims: Mapping[str, Any]) -> Approved | None:
    if "approval" not in claims:
        return None
    said = claims["approval"]
    if not isinstance(said, dict):
        raise SignatureRefused("claim `approval` is no object")
    assurance = _ASSURANCES.get(jose.require_text(said, "assurance"))
    if assurance is None:
        raise SignatureRefused("claim `approval` has an assurance that is not known here")
    return Approved(hold=jose.require_text(said, "hold", limits.ID_CHARACTERS), assurance=assurance)
