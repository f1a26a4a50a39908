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
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.errors import ConstraintError, DelegationError, InputError, KeyRefused, ScopeError, SignatureRefused
from mcp_authz.rules import jose
from mcp_authz.rules import link_id as ids
from mcp_authz.rules.constraint import ToolsMap, parse_tools, to_json
from mcp_authz.rules.delegation import check_narrows
from mcp_authz.rules.jose import UnverifiedJws
from mcp_authz.rules.keys import PrivateKey, PublicKey, b64url, equal
from mcp_authz.rules.scope import Scope, parse_scopes

TYP: Final = "aat+jwt"
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


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedChain:
    """Verified steps, root to leaf; made by `verify_links` only."""

    purpose: Purpose
    links: tuple[SignedLink, ...]

    @property
    def leaf(self) -> SignedLink:
        """The step of whoever presents the chain."""
        return self.links[-1]


def parse_chain(text: str) -> tuple[str, ...]:
    """Return the links of a chain as it is written to a file or sent: one after the other, root first.

    Raises:
        SignatureRefused: there is none, or there are too many, or they are too long.
    """
    if len(text) > limits.CHAIN_BYTES:
        raise SignatureRefused(f"the links are longer than {limits.CHAIN_BYTES} bytes together")
    links = tuple(text.split())
    _require_bounds(links)
    return links


def write_chain(links: Sequence[str]) -> str:
    """Return the text of a chain, which `parse_chain` reads."""
    return "".join(f"{link}\n" for link in links)


def sign_root(given: Given, purpose: Purpose, *, issuer: str, key: PrivateKey) -> str:
    """Return the root link: the gateway's own statement of what a person agreed to.

    Its `act` says through whom it came to its holder (RFC 8693 section 4.1).
    """
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
    return jose.sign({**own, **_claims(given)}, typ=TYP, key=key, kid=key.public.thumbprint)


def read_unverified(links: Sequence[str]) -> tuple[SignedLink, ...]:
    """Return what the links say; nothing of it is verified. For who was given them, and for people who look.

    Raises:
        SignatureRefused: a link cannot be read.
    """
    found = list[SignedLink]()
    for unverified in _read_all(links):
        parent = found[-1] if found else None
        # Who signed it is said by the link itself here: nobody's key but the holder's before could have.
        signer = None if parent is None else parent.holder
        found.append(_read_link(unverified, session=_text(unverified, "sid"), parent=parent, signer=signer))
    return tuple(found)


def read_purpose(links: Sequence[str]) -> Purpose:
    """Return what the root says of person, session and purpose; not verified.

    Raises:
        SignatureRefused: it cannot be read.
    """
    return _purpose(_read_all(links)[0].claims)


def derive(chain: Sequence[str], given: Given, *, key: PrivateKey) -> str:
    """Return the link by which the holder of the chain's last one gives some of it to the next holder.

    The links are read and not verified: who derives was given them, and whoever is shown the result verifies all.

    Raises:
        DelegationError: it would give more than the last link has, or `key` is not that link's holder's.
        SignatureRefused: a link cannot be read.
    """
    if len(chain) >= limits.CHAIN_LINKS:
        raise DelegationError(f"the chain has {len(chain)} links; more than {limits.CHAIN_LINKS} are not possible")
    parent = read_unverified(chain)[-1]
    if parent.holder != key.public:
        raise DelegationError("the last link was given to another key")
    own = {
        "iss": f"{_BY_KEY}{key.public.thumbprint}",
        "par_hash": b64url(parent.digest),
        "del_depth": parent.depth + 1,
    }
    signed = jose.sign({**own, **_claims(given)}, typ=TYP, key=key)
    check_narrows(parent, _read_link(jose.read(signed), session=parent.session, parent=parent, signer=key.public))
    return signed


def verify_links(
    links: Sequence[str], *, issuer: str, keys: Mapping[str, PublicKey], presenter: str, now: datetime
) -> SignedChain:
    """Return the chain, once it is known to be what `verify_signatures` says, live, and the presenter's.

    `keys` are the gateway's own, by thumbprint; `presenter` is the thumbprint of the key that presents the chain.

    Raises:
        SignatureRefused: a link is malformed, out of time, or not signed by the holder of the one before.
        DelegationError: something grew along the chain, or the leaf was given to another key.
    """
    chain = verify_signatures(links, issuer=issuer, keys=keys)
    for link in chain.links:
        if link.issued_at > now + limits.CLOCK_SKEW:
            raise SignatureRefused("a link is issued in the future; compare the clocks")
        if link.expires_at <= now - limits.CLOCK_SKEW:
            raise SignatureRefused("a link has expired")
    if not equal(chain.leaf.holder.thumbprint.encode(), presenter.encode()):
        raise DelegationError("the last link was given to another key than the one that presents it")
    return chain


def verify_signatures(links: Sequence[str], *, issuer: str, keys: Mapping[str, PublicKey]) -> SignedChain:
    """Return the chain, once every step is known to be signed by who had what it gives, and to give no more.

    What it says is true for good; whether it is of use now, and to whom, `verify_links` says.

    Raises:
        SignatureRefused: a link is malformed, or not signed by the holder of the one before.
        DelegationError: something grew along the chain.
    """
    unverified = _read_all(links)  # bounds come before cryptography
    root_key = keys.get(unverified[0].kid or "")
    if root_key is None:
        raise SignatureRefused("the first link is not signed by a key of this gateway")
    root_claims = unverified[0].verify(root_key, typ=TYP)  # no claim is believed before its signature
    if root_claims.get("iss") != issuer or "par_hash" in root_claims:
        raise SignatureRefused("the first link is no root of this gateway")
    purpose = _purpose(root_claims)
    verified = [_read_link(unverified[0], session=purpose.session, parent=None, signer=root_key)]
    for link in unverified[1:]:
        verified.append(_verified(link, verified[-1]))
    if verified[0].depth != 0 or verified[0].max_depth >= limits.CHAIN_LINKS:
        raise DelegationError(f"chain does not begin at depth 0, or may grow beyond {limits.CHAIN_LINKS} links")
    if len({link.id for link in verified}) != len(verified):
        raise DelegationError("a link occurs twice in the chain")
    for parent, child in pairwise(verified):
        check_narrows(parent, child)
    return SignedChain(purpose=purpose, links=tuple(verified))


def _verified(link: UnverifiedJws, parent: SignedLink) -> SignedLink:
    """The link, once it is signed by the parent's holder, and names them and the parent."""
    claims = link.verify(parent.holder, typ=TYP)
    if claims.get("iss") != f"{_BY_KEY}{parent.holder.thumbprint}":
        raise SignatureRefused("a link names another issuer than the key that signed it")
    if not equal(str(claims.get("par_hash")).encode(), b64url(parent.digest).encode()):
        raise SignatureRefused("a link stands under another link than the one it was made under")
    return _read_link(link, session=parent.session, parent=parent, signer=parent.holder)


def _require_bounds(links: Sequence[str]) -> None:
    if not 1 <= len(links) <= limits.CHAIN_LINKS:
        raise SignatureRefused(f"a chain has 1 to {limits.CHAIN_LINKS} links")
    if sum(len(link) for link in links) > limits.CHAIN_BYTES:
        raise SignatureRefused(f"the links are longer than {limits.CHAIN_BYTES} bytes together")


def _read_all(links: Sequence[str]) -> tuple[UnverifiedJws, ...]:
    _require_bounds(links)
    return tuple(jose.read(link) for link in links)


def _read_link(link: UnverifiedJws, *, session: str, parent: SignedLink | None, signer: PublicKey | None) -> SignedLink:
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
        holder = PublicKey.from_jwk(_object(_object(claims, "cnf"), "jwk"))
        scope = parse_scopes(jose.require_text(claims, "scope", limits.TOKEN_BYTES))
        tools = _tools(claims)
    except (InputError, KeyRefused, ScopeError, ConstraintError) as error:
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
        child=_child(claims),
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
        agents=_agents(claims),
    )


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


def _child(claims: Mapping[str, Any]) -> str:
    if "child" not in claims:
        return ""
    name = jose.require_text(claims, "child", limits.NAME)
    if _CHILD.fullmatch(name) is None:
        raise SignatureRefused("claim `child` is no name: a-z, 0-9 and, not first, a hyphen")
    return name


def _text(link: UnverifiedJws, name: str) -> str:
    value = link.claims.get(name)
    return value if isinstance(value, str) else ""


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
