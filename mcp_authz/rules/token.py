"""Access tokens (RFC 9068): what they say, and when they are believed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.errors import InputError, ScopeError, SignatureRefused
from mcp_authz.principals import AccessToken, AgentName, LinkId, Mode, SessionId, Thumbprint
from mcp_authz.rules import jose
from mcp_authz.rules.keys import PublicKey
from mcp_authz.rules.scope import Scope, parse_scopes

ACCESS_TOKEN: Final = "at+jwt"  # noqa: S105 - a media type (RFC 9068 section 2.1)

MINIMAL_SCOPE: Final = Scope("mcp:connect")
"""What every access token has: leave to connect, list and ask; no tool needs it, so it permits no call."""

ACTOR_PROFILE: Final = "ai_agent"

Keys = Mapping[str, PublicKey]  # kid -> key


def access_claims(
    token: AccessToken, *, issuer: str, audience: str, chain: tuple[AgentName, ...] = ()
) -> dict[str, Any]:
    """Return the claims of an access token; `chain` is the holders, root first, and empty in the agent's own name.

    `sid`, `lnk` (leaf link) and `akt` (thumbprint of the agent key that logged in, left out for a client agent, which
    has none) are ours; `act` renders the chain
    with the current actor outermost (RFC 8693 section 4.1), and `mode` is how they stand to the subject. `cnf.jkt` is
    the key that must prove each use (RFC 9449 section 6.1).
    """
    claims: dict[str, Any] = {
        "iss": issuer,
        "aud": audience,
        "sub": token.subject,
        "client_id": token.client_id,
        "scope": " ".join(sorted(token.scope)),
        "iat": int(token.issued_at.timestamp()),
        "exp": int(token.expires_at.timestamp()),
        "jti": token.id,
    }
    if token.key is not None:
        claims["akt"] = token.key
    if token.authentication is not None:
        claims |= {"auth_time": int(token.authentication.at.timestamp()), "amr": list(token.authentication.amr)}
    if token.link is not None:
        claims |= {"sid": token.session, "lnk": token.link, "act": _act(chain, issuer)}
    if token.mode is not None:
        claims["mode"] = token.mode.value
    if token.confirmation is not None:
        claims["cnf"] = {"jkt": token.confirmation}
    return claims


def read_access_token(token: str, *, keys: Keys, issuer: str, audience: str, now: datetime) -> AccessToken:
    """Return the token's claims, once it is known to be one of ours, for this resource, and in time (step 3).

    Raises:
        SignatureRefused: it is not: another type, key, issuer or audience, out of time, or a claim is missing.
        InputError: a claim is there and cannot be what it stands for.
    """
    claims, kid = _read(token, typ=ACCESS_TOKEN, keys=keys, issuer=issuer)
    if claims.get("aud") != audience:  # RFC 9068 section 4; ours have one audience, so a list is not one of ours
        raise SignatureRefused("the token is for another audience")
    issued_at, expires_at = jose.require_times(
        claims, now=now, skew=limits.CLOCK_SKEW, max_lifetime=limits.ACCESS_TOKEN_LIFETIME
    )
    client_id, subject = jose.require_text(claims, "client_id"), jose.require_text(claims, "sub")
    return AccessToken(
        id=jose.require_text(claims, "jti"),
        client_id=client_id,
        actor=_actor(claims, subject, client_id, issuer),
        key=Thumbprint(jose.require_text(claims, "akt")) if "akt" in claims else None,
        subject=subject,
        session=SessionId(jose.require_text(claims, "sid")) if "sid" in claims else None,
        link=LinkId(jose.require_text(claims, "lnk")) if "lnk" in claims else None,
        scope=_scopes(claims),
        issued_at=issued_at,
        expires_at=expires_at,
        confirmation=_confirmation(claims),
        mode=_mode(claims),
        signed_by=kid,
    )


@lru_cache(maxsize=512)
def _parsed(token: str) -> jose.UnverifiedJws:
    """What these very bytes say, whoever wrote them; their signature is looked at each time."""
    return jose.read(token)


def _read(token: str, *, typ: str, keys: Keys, issuer: str) -> tuple[dict[str, Any], str]:
    """The claims, once signed by one of these keys as an object of this type for this issuer; and by which one."""
    unverified = _parsed(token)
    kid = unverified.kid or ""
    key = keys.get(kid)
    if key is None:
        raise SignatureRefused("the token's `kid` is not one of our keys")
    claims = unverified.verify(key, typ=typ)
    if claims.get("iss") != issuer:
        raise SignatureRefused("the token is from another issuer")
    return claims, kid


def _act(chain: tuple[AgentName, ...], issuer: str) -> dict[str, Any]:
    act: dict[str, Any] = {}
    for name in chain:  # the root's holder innermost
        outer: dict[str, Any] = {"sub": f"agent:{name}", "iss": issuer, "sub_profile": ACTOR_PROFILE}
        act = {**outer, "act": act} if act else outer
    return act


def _actor(claims: Mapping[str, Any], subject: str, client_id: str, issuer: str) -> AgentName:
    """The agent that acts: the outermost `act`, or the subject itself in the agent's own name.

    It is the client; or, where no agent key logged in, the one agent that the client is for the subject.
    """
    delegated, chain = [name for name in ("act", "sid", "lnk") if name in claims], tuple[str, ...]()
    if not delegated:
        actor = subject
    elif len(delegated) == 3:
        chain = _chain(claims["act"], issuer)
        if not subject.startswith("user:") and chain[0] != subject:  # an agent for itself, and those it delegated to
            raise SignatureRefused("the token's subject is no person, and not the agent that the chain begins with")
        actor = chain[-1]
    else:
        raise SignatureRefused("the token names some of actor, session and link, and not all")
    if "akt" not in claims:
        if len(delegated) != 3 or len(chain) != 1 or not subject.startswith("user:"):
            raise SignatureRefused("the token of a client without a key is not for one person, or not its own")
    elif actor != f"agent:{client_id}":
        raise SignatureRefused("the token's actor is not its client")
    return AgentName(actor.removeprefix("agent:"))


def _chain(act: object, issuer: str) -> tuple[str, ...]:
    """The agents that `act` names, the first one of the session first."""
    found = list[str]()
    while act is not None:
        if not isinstance(act, dict) or act.get("iss") != issuer or len(found) == limits.CHAIN_LINKS:
            raise SignatureRefused("claim `act` does not name agents of this issuer")
        found.append(jose.require_text(act, "sub"))
        act = act.get("act")
    if not found:
        raise SignatureRefused("claim `act` names nobody")
    if not all(one.startswith("agent:") for one in found):
        raise SignatureRefused("claim `act` names somebody who is no agent")
    return tuple(reversed(found))


def _mode(claims: Mapping[str, Any]) -> Mode | None:
    if "mode" not in claims:
        return None
    try:
        return Mode(jose.require_text(claims, "mode"))
    except ValueError:
        raise SignatureRefused("claim `mode` is none that is known here") from None


def _confirmation(claims: Mapping[str, Any]) -> Thumbprint | None:
    if "cnf" not in claims:
        return None
    confirmation = claims["cnf"]
    if not isinstance(confirmation, dict) or confirmation.keys() != {"jkt"}:
        raise SignatureRefused("the token is bound to a key in a way that cannot be checked here")
    return Thumbprint(jose.require_text(confirmation, "jkt"))


def _scopes(claims: Mapping[str, Any]) -> frozenset[Scope]:
    try:
        return parse_scopes(jose.require_text(claims, "scope", limits.TOKEN_BYTES))
    except ScopeError as error:
        raise InputError(f"claim `scope` cannot be read: {error}") from None
