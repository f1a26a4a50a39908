"""The claims of a signed link: written from what one step gives, and read back as strictly.

Reading believes nothing: whoever calls these functions knows whether what they read is verified, and by which key. The
claims are those of the Attenuating Agent Token (draft-niyikiza-oauth-attenuating-agent-tokens), and ours beside them.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.errors import ConstraintError, InputError, KeyRefused, ScopeError, SignatureRefused
from mcp_authz.rules import jose
from mcp_authz.rules import link_id as ids
from mcp_authz.rules.constraint import ToolsMap, parse_tools, to_json
from mcp_authz.rules.jose import UnverifiedJws
from mcp_authz.rules.keys import PublicKey, b64url
from mcp_authz.rules.scope import Scope, parse_scopes

_DETAIL: Final = "attenuating_agent_token"
_CHILD: Final = re.compile(rf"[a-z0-9][a-z0-9-]{{0,{limits.NAME - 1}}}")
_BY_KEY: Final = "urn:ietf:params:oauth:jwk-thumbprint:sha-256:"  # RFC 9278


@dataclass(frozen=True, slots=True, kw_only=True)
class Purpose:
    """What a root link says beside what every link says: for whom, in which session, and why."""

    subject: str  # `user:NAME`; `agent:NAME` where an agent works for itself
    subject_issuer: str
    session: str
    purpose: str
    agents: tuple[str, ...] = ()  # `agent:NAME` of every holder so far, the session's first one first


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What one step gives to its holder."""

    id: str  # UUIDv7, lower case
    holder: PublicKey
    scope: frozenset[Scope]
    tools: ToolsMap | None  # None permits every tool that the scopes permit
    max_depth: int
    issued_at: datetime
    expires_at: datetime
    max_calls: int | None = None
    reason: str = ""
    child: str = ""  # the name that the delegator gives to a holder that is nobody yet: `worker-7`


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedLink:
    """One step whose signature was verified, as a `delegation.Step`."""

    id: str
    session: str
    parent: str | None
    signer: PublicKey  # of whoever delegated; the gateway's at the root
    holder: PublicKey
    scope: frozenset[Scope]
    tools: ToolsMap | None
    depth: int
    max_depth: int
    issued_at: datetime
    expires_at: datetime
    max_calls: int | None
    reason: str
    child: str
    digest: bytes  # SHA-256 of its signing input; what the next step names as its parent


def root_claims(given: Given, purpose: Purpose, issuer: str) -> dict[str, Any]:
    """Return what a root says; its `act` says through whom it came to its holder (RFC 8693 section 4.1)."""
    own: dict[str, Any] = {
        "iss": issuer,
        "sub": purpose.subject,
        "sub_iss": purpose.subject_issuer,
        "sid": purpose.session,
        "purpose": purpose.purpose,
        "del_depth": 0,
    }
    if purpose.agents:
        own["act"] = _act(purpose.agents)
    return {**own, **_claims(given)}


def derived_claims(given: Given, parent: SignedLink, signer: PublicKey) -> dict[str, Any]:
    """Return what a link under `parent` says."""
    own = {"iss": issuer_of(signer), "par_hash": b64url(parent.digest), "del_depth": parent.depth + 1}
    return {**own, **_claims(given)}


def issuer_of(key: PublicKey) -> str:
    """Return the issuer of whatever this key derives (RFC 9278)."""
    return f"{_BY_KEY}{key.thumbprint}"


def read_link(link: UnverifiedJws, *, session: str, parent: SignedLink | None, signer: PublicKey | None) -> SignedLink:
    """What the link says; whoever calls this knows whether that is verified, and by which key.

    Raises:
        SignatureRefused: a claim is missing, or cannot be what it stands for.
    """
    claims = link.claims
    id_ = jose.require_text(claims, "jti")
    if "nbf" in claims:  # it would shorten the link's life, and a child's would have to be compared with it
        raise SignatureRefused("claim `nbf` is not supported in a link; it holds from `iat` on")
    issued_at, expires_at = jose.require_time(claims, "iat"), jose.require_time(claims, "exp")
    if not timedelta(0) < expires_at - issued_at <= limits.SESSION_LIFETIME:
        raise SignatureRefused(f"a link lives up to {int(limits.SESSION_LIFETIME.total_seconds())} seconds")
    try:
        ids.link_id(id_)
        holder = holder_of(claims)
        scope = parse_scopes(jose.require_text(claims, "scope", limits.TOKEN_BYTES))
        tools = _tools(claims)
    except (InputError, ScopeError, ConstraintError) as error:
        raise SignatureRefused(f"a link gives what cannot be given: {error}") from None
    return SignedLink(
        id=id_,
        session=session if parent is None else parent.session,
        parent=None if parent is None else parent.id,
        signer=holder if signer is None else signer,
        holder=holder,
        scope=scope,
        tools=tools,
        depth=_count(claims, "del_depth"),
        max_depth=_count(claims, "del_max_depth"),
        issued_at=issued_at,
        expires_at=expires_at,
        max_calls=_count(claims, "max_calls", least=1) if "max_calls" in claims else None,
        reason=jose.require_text(claims, "reason", limits.PURPOSE) if "reason" in claims else "",
        child=child_of(claims),
        digest=hashlib.sha256(link.signing_input).digest(),
    )


def purpose_of(claims: Mapping[str, Any]) -> Purpose:
    """Return what the claims of a root say of person, session and purpose.

    Raises:
        SignatureRefused: something of it is missing.
    """
    subject = jose.require_text(claims, "sub")
    return Purpose(
        subject=subject,
        subject_issuer=jose.require_text(claims, "sub_iss"),
        session=jose.require_text(claims, "sid", limits.ID_CHARACTERS),
        purpose=jose.require_text(claims, "purpose", limits.PURPOSE),
        agents=_agents(claims),
    )


def holder_of(claims: Mapping[str, Any]) -> PublicKey:
    """Return the key to which the claims of a link say that it was given.

    Raises:
        SignatureRefused: there is none.
    """
    try:
        return PublicKey.from_jwk(_object(_object(claims, "cnf"), "jwk"))
    except KeyRefused as error:
        raise SignatureRefused(f"a link is given to no key: {error}") from None


def child_of(claims: Mapping[str, Any]) -> str:
    """Return the name that the claims of a link give to its holder, "" where they give none.

    Raises:
        SignatureRefused: it is no name.
    """
    if "child" not in claims:
        return ""
    name = jose.require_text(claims, "child", limits.NAME)
    if _CHILD.fullmatch(name) is None:
        raise SignatureRefused("claim `child` is no name: a-z, 0-9 and, not first, a hyphen")
    return name


def _claims(given: Given) -> dict[str, Any]:
    claims: dict[str, Any] = {
        "jti": given.id,
        "iat": int(given.issued_at.timestamp()),
        "exp": int(given.expires_at.timestamp()),
        "cnf": {"jwk": given.holder.jwk},
        "del_max_depth": given.max_depth,
        "scope": " ".join(sorted(given.scope)),
    }
    if given.tools is not None:
        claims["authorization_details"] = [{"type": _DETAIL, "tools": to_json(given.tools)}]
    if given.max_calls is not None:
        claims["max_calls"] = given.max_calls
    optional = {"reason": given.reason, "child": given.child}
    return {**claims, **{name: value for name, value in optional.items() if value}}


def _tools(claims: Mapping[str, Any]) -> ToolsMap | None:
    if "authorization_details" not in claims:
        return None
    details = claims["authorization_details"]
    if not isinstance(details, list) or len(details) != 1:
        raise SignatureRefused("claim `authorization_details` is not a list of one entry")
    (entry,) = details
    if not isinstance(entry, dict) or entry.keys() != {"type", "tools"} or entry["type"] != _DETAIL:
        raise SignatureRefused(f"claim `authorization_details` has another entry than one of type `{_DETAIL}`")
    return parse_tools(entry["tools"])


def _act(agents: Sequence[str]) -> dict[str, Any]:
    act: dict[str, Any] = {}
    for agent in agents:  # the session's first one innermost
        act = {"sub": agent, "act": act} if act else {"sub": agent}
    return act


def _agents(claims: Mapping[str, Any]) -> tuple[str, ...]:
    found, act = list[str](), claims.get("act")
    while act is not None:
        if not isinstance(act, dict) or len(found) >= limits.CHAIN_LINKS:
            raise SignatureRefused("claim `act` is no chain of agents")
        found.append(jose.require_text(act, "sub"))
        act = act.get("act")
    return tuple(reversed(found))


def _object(claims: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = claims.get(name)
    if not isinstance(value, dict):
        raise SignatureRefused(f"claim `{name}` is missing or not an object")
    return value


def _count(claims: Mapping[str, Any], name: str, *, least: int = 0) -> int:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise SignatureRefused(f"claim `{name}` is not a whole number of {least} or more")
    return value
