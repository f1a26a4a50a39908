"""Delegation steps that carry their own proof: each is signed by whoever delegates, so that nobody else can make one.

The form is the Attenuating Agent Token (draft-niyikiza-oauth-attenuating-agent-tokens): a compact JWS of type
`aat+jwt`, whose holder's key signs the next one. The root is signed by the gateway and says for whom, in which session
and why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Final

from mcp_authz import limits
from mcp_authz.errors import DelegationError, SignatureRefused
from mcp_authz.rules import jose
from mcp_authz.rules.delegation import check_narrows
from mcp_authz.rules.jose import UnverifiedJws
from mcp_authz.rules.keys import PrivateKey, PublicKey, b64url, equal
from mcp_authz.rules.link_claims import (
    Given,
    Purpose,
    SignedLink,
    child_of,
    derived_claims,
    holder_of,
    issuer_of,
    purpose_of,
    read_link,
    root_claims,
)

__all__ = [
    "TYP",
    "ClaimedLink",
    "Given",
    "Purpose",
    "SignedChain",
    "SignedLink",
    "derive",
    "parse_chain",
    "read_claimed",
    "read_issuer",
    "read_purpose",
    "read_unverified",
    "sign_root",
    "verify_derived",
    "verify_links",
    "verify_signatures",
    "write_chain",
]

TYP: Final = "aat+jwt"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedLink:
    """What one link says of where it stands, read alone: nothing of it is verified, and what it gives is not read."""

    link: UnverifiedJws
    id: str
    issuer: str
    holder: PublicKey
    child: str

    def is_signed_by(self, key: PublicKey) -> bool:
        """Whether this key derived it; no other than the one that it names is tried."""
        if self.issuer != issuer_of(key):
            return False
        try:
            self.link.verify(key, typ=TYP)
        except SignatureRefused:
            return False
        return True


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
    """Return the root link: the gateway's own statement of what a person agreed to."""
    return jose.sign(root_claims(given, purpose, issuer), typ=TYP, key=key, kid=key.public.thumbprint)


def read_unverified(links: Sequence[str]) -> tuple[SignedLink, ...]:
    """Return what the links say; nothing of it is verified. For who was given them, and for people who look.

    Raises:
        SignatureRefused: a link cannot be read.
    """
    root, *rest = _read_all(links)
    found = [_believed_root(root)]
    for unverified in rest:
        # Who signed it is said by the link itself here: nobody's key but the holder's before could have.
        found.append(read_link(unverified, session=found[0].session, parent=found[-1], signer=found[-1].holder))
    return tuple(found)


def read_claimed(link: str) -> ClaimedLink:
    """Return what this one link says of itself, at the price of reading it: for who decides whether to verify it.

    Raises:
        SignatureRefused: it cannot be read.
    """
    read = _read(link)
    return ClaimedLink(
        link=read,
        id=jose.require_text(read.claims, "jti"),
        issuer=jose.require_text(read.claims, "iss"),
        holder=holder_of(read.claims),
        child=child_of(read.claims),
    )


def read_purpose(links: Sequence[str]) -> Purpose:
    """Return what the root says of person, session and purpose; not verified.

    Raises:
        SignatureRefused: it cannot be read.
    """
    return purpose_of(_read_all(links)[0].claims)


def read_issuer(links: Sequence[str]) -> str:
    """Return the gateway that the root says it is of; not verified.

    Raises:
        SignatureRefused: it cannot be read.
    """
    return jose.require_text(_read_all(links)[0].claims, "iss")


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
    signed = jose.sign(derived_claims(given, parent, key.public), typ=TYP, key=key)
    check_narrows(parent, read_link(_read(signed), session=parent.session, parent=parent, signer=key.public))
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
    claims = unverified[0].verify(root_key, typ=TYP)  # no claim is believed before its signature
    if claims.get("iss") != issuer or "par_hash" in claims:
        raise SignatureRefused("the first link is no root of this gateway")
    purpose = purpose_of(claims)
    root = read_link(unverified[0], session=purpose.session, parent=None, signer=root_key)
    return SignedChain(purpose=purpose, links=_verified_from(root, unverified[1:]))


def verify_derived(links: Sequence[str]) -> tuple[SignedLink, ...]:
    """Return the links, once each but the first is known to be signed by who had what it gives, and to give no more.

    The first one is believed: for who was given the chain and has no key of the gateway, and for people who look.

    Raises:
        SignatureRefused: a link is malformed, or not signed by the holder of the one before.
        DelegationError: something grew along the chain.
    """
    unverified = _read_all(links)
    return _verified_from(_believed_root(unverified[0]), unverified[1:])


def _verified_from(root: SignedLink, rest: Sequence[UnverifiedJws]) -> tuple[SignedLink, ...]:
    verified = [root]
    for number, link in enumerate(rest, start=2):
        try:
            verified.append(_verified(link, verified[-1]))
        except SignatureRefused as error:
            raise SignatureRefused(f"link {number} of {len(rest) + 1}: {error}") from None
    if root.depth != 0 or root.max_depth >= limits.CHAIN_LINKS:
        raise DelegationError(f"chain does not begin at depth 0, or may grow beyond {limits.CHAIN_LINKS} links")
    if len({link.id for link in verified}) != len(verified):
        raise DelegationError("a link occurs twice in the chain")
    for number, (parent, child) in enumerate(pairwise(verified), start=2):
        try:
            check_narrows(parent, child)
        except DelegationError as error:
            raise DelegationError(f"link {number} of {len(verified)}: {error}") from None
    return tuple(verified)


def _believed_root(link: UnverifiedJws) -> SignedLink:
    session = link.claims.get("sid")
    return read_link(link, session=session if isinstance(session, str) else "", parent=None, signer=None)


def _verified(link: UnverifiedJws, parent: SignedLink) -> SignedLink:
    """The link, once it is signed by the parent's holder, and names them and the parent."""
    claims = link.verify(parent.holder, typ=TYP)
    if claims.get("iss") != issuer_of(parent.holder):
        raise SignatureRefused("a link names another issuer than the key that signed it")
    if not equal(str(claims.get("par_hash")).encode(), b64url(parent.digest).encode()):
        raise SignatureRefused("a link stands under another link than the one it was made under")
    return read_link(link, session=parent.session, parent=parent, signer=parent.holder)


def _require_bounds(links: Sequence[str]) -> None:
    if not 1 <= len(links) <= limits.CHAIN_LINKS:
        raise SignatureRefused(f"a chain has 1 to {limits.CHAIN_LINKS} links")
    if sum(len(link) for link in links) > limits.CHAIN_BYTES:
        raise SignatureRefused(f"the links are longer than {limits.CHAIN_BYTES} bytes together")


def _read_all(links: Sequence[str]) -> tuple[UnverifiedJws, ...]:
    _require_bounds(links)
    return tuple(_read(link) for link in links)


def _read(link: str) -> UnverifiedJws:
    return jose.read(link, max_depth=limits.LINK_JSON_DEPTH)
