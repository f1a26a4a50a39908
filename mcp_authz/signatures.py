"""Whether the stored links of a chain are what their delegators signed; asked at every use of one.

The signatures are over bytes that never change, so that one verification of them is remembered by their digest. What is
compared with them each time is the stored link.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mcp_authz import limits
from mcp_authz.errors import DelegationError, InputError, SignatureRefused, TokenRefused
from mcp_authz.principals import AccessToken, Link
from mcp_authz.rules import link_id as ids
from mcp_authz.rules.keys import PublicKey
from mcp_authz.rules.signed_link import SignedChain, SignedLink, verify_signatures
from mcp_authz.store.ports import Registry


@dataclass(slots=True, kw_only=True)
class Signatures:
    """Verifies chains that end under this issuer's keys (`kid` -> key), and knows whose tokens count no more."""

    store: Registry
    issuer: str
    keys: Mapping[str, PublicKey]
    is_withdrawn: Callable[[str], bool]  # whether the issuer key was taken back at once
    _counted: frozenset[str] = frozenset()  # the ids of the keys when what is remembered was verified
    _verified: OrderedDict[bytes, tuple[SignedLink, int]] = field(default_factory=OrderedDict)
    _bytes: int = 0  # of the texts of what is remembered

    def verify(self, texts: Sequence[str]) -> SignedChain:
        """Return the chain, once its signatures are verified; each of its links is remembered.

        Raises:
            SignatureRefused, DelegationError: as `verify_signatures`.
        """
        self._forget_if_a_key_ended()
        chain = verify_signatures(texts, issuer=self.issuer, keys=self.keys)
        for link, text in zip(chain.links, texts, strict=True):
            self._remember(link, len(text))
        return chain

    async def require(self, links: Sequence[Link]) -> None:
        """Return only if every link that a delegator signed is stored as it was signed.

        Raises:
            TokenRefused: one is not, or what was signed is not there or not good.
        """
        self._forget_if_a_key_ended()
        for link in reversed(links):  # from the leaf: verifying it verifies those above it
            if link.statement is not None:
                _require_same(link, await self._signed(link.statement))
            elif link.holder_key is not None:  # what the gateway makes is its holder's, by whatever key
                raise TokenRefused(f"link `{link.id}` says that it was signed, and by nothing")

    def require_signer(self, token: AccessToken) -> None:
        """Return only if the key that the token came signed with was not taken back since.

        Raises:
            TokenRefused: it was.
        """
        if token.signed_by is not None and self.is_withdrawn(token.signed_by):
            raise TokenRefused("the key that signed the token was withdrawn")

    def forget(self) -> None:
        """Nothing is remembered: the next use of each link verifies its signatures again."""
        self._verified.clear()
        self._bytes = 0

    def _forget_if_a_key_ended(self) -> None:
        """What a key stood behind that counts no more is not remembered as verified."""
        counted = frozenset(self.keys)
        if not self._counted <= counted:
            self.forget()
        self._counted = counted

    def _remember(self, link: SignedLink, size: int) -> None:
        _, before = self._verified.pop(link.digest, (None, 0))
        self._verified[link.digest] = (link, size)
        self._bytes += size - before
        while self._bytes > limits.LINKS_REMEMBERED:
            _, (_, forgotten) = self._verified.popitem(last=False)
            self._bytes -= forgotten

    async def _signed(self, digest: bytes) -> SignedLink:
        known = self._verified.get(digest)
        if known is not None:
            return known[0]
        kept = await self.store.statements(digest)
        try:
            chain = self.verify([statement.text for statement in kept])
        except (SignatureRefused, DelegationError) as error:
            raise TokenRefused(f"what was signed of a link is not good any more: {error}") from None
        if chain.leaf.digest != digest:
            raise TokenRefused("another statement is kept where a link's own should be")
        return chain.leaf


def _require_same(link: Link, signed: SignedLink) -> None:
    try:
        parent = None if signed.parent is None else ids.link_id(signed.parent)
        same = (
            link.id == ids.link_id(signed.id)
            and link.parent == parent
            and link.holder_key == signed.holder.thumbprint
            and link.signed_by == signed.signer.thumbprint
            and (link.session, link.scope, link.tools) == (signed.session, signed.scope, signed.tools)
            and (link.issued_at, link.expires_at) == (signed.issued_at, signed.expires_at)
            and link.reason == signed.reason
            and (link.max_calls, link.max_depth - link.depth) == (signed.max_calls, signed.max_depth - signed.depth)
        )
    except InputError:
        same = False
    if not same:
        raise TokenRefused(f"link `{link.id}` is stored as something else than its delegator signed")
