"""Delegation steps that carry their own proof: each is signed by whoever delegates, so that nobody else can make one.

The form is the Attenuating Agent Token (draft-niyikiza-oauth-attenuating-agent-tokens): a compact JWS of type
`aat+jwt`, whose holder's key signs the next one. The root is signed by the gateway and says for whom, in which session
and why.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.errors import ConstraintError, DelegationError, KeyRefused, ScopeError, SignatureRefused
from mcp_authz.rules import jose
from mcp_authz.rules.constraint import ToolsMap, parse_tools, to_json
from mcp_authz.rules.delegation import check_narrows
from mcp_authz.rules.jose import UnverifiedJws
from mcp_authz.rules.keys import PrivateKey, PublicKey, b64url, equal
from mcp_authz.rules.scope import Scope, parse_scopes

TYP: Final = "aat+jwt"
_DETAIL: Final = "attenuating_agent_token"
_BY_KEY: Final = "urn:ietf:params:oauth:jwk-thumbprint:sha-256:"  # RFC 9278
_UUID7: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Purpose:
    """What a root link says beside what every link says: for whom, in which session, and why."""

    subject: str  # `user:NAME`
    subject_issuer: str
    session: str
    purpose: str


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


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedLink:
    """One step whose signature was verified, as a `delegation.Step`."""

    id: str
    session: str
    parent: str | None
    holder: PublicKey
    scope: frozenset[Scope]
    tools: ToolsMap | None
    depth: int
    max_depth: int
    issued_at: datetime
    expires_at: datetime
    max_calls: int | None
    reason: str
    digest: bytes  # SHA-256 of its signing input; what the next step names as its parent


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedChain:
    """Verified steps, root to leaf; made by `verify_links` only."""

    purpose: Purpose
    links: tuple[SignedLink, ...]

    @property
    def leaf(self) -> SignedLink:
        """The step of whoever presents the chain."""
        return self.links[-1]


def sign_root(given: Given, purpose: Purpose, *, issuer: str, key: PrivateKey) -> str:
    """Return the root link: the gateway's own statement of what a person agreed to."""
    own = {
        "iss": issuer,
        "sub": purpose.subject,
        "sub_iss": purpose.subject_issuer,
        "sid": purpose.session,
        "purpose": purpose.purpose,
        "del_depth": 0,
    }
    return jose.sign({**own, **_claims(given)}, typ=TYP, key=key, kid=key.public.thumbprint)


def derive(chain: Sequence[str], given: Given, *, key: PrivateKey) -> str:
    """Return the link by which the holder of the chain's last one gives some of it to the next holder.

    The links are read and not verified: who derives was given them, and whoever is shown the result verifies all.

    Raises:
        DelegationError: it would give more than the last link has, or `key` is not that link's holder's.
        SignatureRefused: a link cannot be read.
    """
    unverified = _read_all(chain)
    parent = _read_link(unverified[-1], session="", parent=None)
    if parent.holder != key.public:
        raise DelegationError("the last link was given to another key")
    own = {
        "iss": f"{_BY_KEY}{key.public.thumbprint}",
        "par_hash": b64url(parent.digest),
        "del_depth": parent.depth + 1,
    }
    signed = jose.sign({**own, **_claims(given)}, typ=TYP, key=key)
    check_narrows(parent, _read_link(jose.read(signed), session="", parent=parent.id))
    return signed


def verify_links(
    links: Sequence[str], *, issuer: str, keys: Mapping[str, PublicKey], presenter: str, now: datetime
) -> SignedChain:
    """Return the chain, once every step is known to be signed by who had what it gives, and to give no more.

    `keys` are the gateway's own, by thumbprint; `presenter` is the thumbprint of the key that presents the chain.

    Raises:
        SignatureRefused: a link is malformed, out of time, or not signed by the holder of the one before.
        DelegationError: something grew along the chain, or the leaf was given to another key.
    """
    unverified = _read_all(links)  # bounds come before cryptography
    root_key = keys.get(unverified[0].kid or "")
    if root_key is None:
        raise SignatureRefused("the first link is not signed by a key of this gateway")
    root_claims = unverified[0].verify(root_key, typ=TYP)  # no claim is believed before its signature
    if root_claims.get("iss") != issuer or "par_hash" in root_claims:
        raise SignatureRefused("the first link is no root of this gateway")
    purpose = _purpose(root_claims)
    verified = [_read_link(unverified[0], session=purpose.session, parent=None)]
    for link in unverified[1:]:
        verified.append(_verified(link, verified[-1]))
    if verified[0].depth != 0 or verified[0].max_depth >= limits.CHAIN_LINKS:
        raise DelegationError(f"chain does not begin at depth 0, or may grow beyond {limits.CHAIN_LINKS} links")
    if len({link.id for link in verified}) != len(verified):
        raise DelegationError("a link occurs twice in the chain")
    for parent, child in pairwise(verified):
        check_narrows(parent, child)
    for link in unverified:
        jose.require_times(link.claims, now=now, skew=limits.CLOCK_SKEW, max_lifetime=limits.SESSION_LIFETIME)
    if not equal(verified[-1].holder.thumbprint.encode(), presenter.encode()):
        raise DelegationError("the last link was given to another key than the one that presents it")
    return SignedChain(purpose=purpose, links=tuple(verified))


def _verified(link: UnverifiedJws, parent: SignedLink) -> SignedLink:
    """The link, once it is signed by the parent's holder, and names them and the parent."""
    claims = link.verify(parent.holder, typ=TYP)
    if claims.get("iss") != f"{_BY_KEY}{parent.holder.thumbprint}":
        raise SignatureRefused("a link names another issuer than the key that signed it")
    if not equal(str(claims.get("par_hash")).encode(), b64url(parent.digest).encode()):
        raise SignatureRefused("a link stands under another link than the one it was made under")
    return _read_link(link, session=parent.session, parent=parent.id)


def _read_all(links: Sequence[str]) -> tuple[UnverifiedJws, ...]:
    if not 1 <= len(links) <= limits.CHAIN_LINKS:
        raise SignatureRefused(f"a chain has 1 to {limits.CHAIN_LINKS} links")
    if sum(len(link) for link in links) > limits.CHAIN_BYTES:
        raise SignatureRefused(f"the links are longer than {limits.CHAIN_BYTES} bytes together")
    return tuple(jose.read(link) for link in links)


def _read_link(link: UnverifiedJws, *, session: str, parent: str | None) -> SignedLink:
    """What the link says; whoever calls this knows whether that is verified.

    Raises:
        SignatureRefused: a claim is missing, or cannot be what it stands for.
    """
    claims = link.claims
    id_ = jose.require_text(claims, "jti")
    if _UUID7.fullmatch(id_) is None:
        raise SignatureRefused("claim `jti` is no UUIDv7 in lower case")
    try:
        holder = PublicKey.from_jwk(_object(_object(claims, "cnf"), "jwk"))
        scope = parse_scopes(jose.require_text(claims, "scope", limits.TOKEN_BYTES))
        tools = _tools(claims)
    except (KeyRefused, ScopeError, ConstraintError) as error:
        raise SignatureRefused(f"a link gives what cannot be given: {error}") from None
    return SignedLink(
        id=id_,
        session=session,
        parent=parent,
        holder=holder,
        scope=scope,
        tools=tools,
        depth=_count(claims, "del_depth"),
        max_depth=_count(claims, "del_max_depth"),
        issued_at=jose.require_time(claims, "iat"),
        expires_at=jose.require_time(claims, "exp"),
        max_calls=_count(claims, "max_calls", least=1) if "max_calls" in claims else None,
        reason=jose.require_text(claims, "reason", limits.PURPOSE) if "reason" in claims else "",
        digest=hashlib.sha256(link.signing_input).digest(),
    )


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


def _purpose(claims: Mapping[str, Any]) -> Purpose:
    subject = jose.require_text(claims, "sub")
    return Purpose(
        subject=subject,
        subject_issuer=jose.require_text(claims, "sub_iss"),
        session=jose.require_text(claims, "sid", limits.ID_CHARACTERS),
        purpose=jose.require_text(claims, "purpose", limits.PURPOSE),
    )


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
    return {**claims, "reason": given.reason} if given.reason else claims


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
