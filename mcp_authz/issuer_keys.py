"""The keys with which this issuer signs tokens and statements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mcp_authz import limits
from mcp_authz.live_keys import LiveKeys
from mcp_authz.rules.keys import PrivateKey, PublicKey
from mcp_authz.store.ports import Clock, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerKeys:
    """The key that signs now, and every public key whose signatures count.

    `public` and `roots` are always of now: a key that is rotated leaves them by itself. Whoever has a replaced key can
    write any time into a token, so that access tokens count by it only as long as an honest one can live.
    """

    live: LiveKeys
    public: Mapping[str, PublicKey]  # kid, which is the RFC 7638 thumbprint -> key; for access tokens
    roots: Mapping[str, PublicKey]  # the same for the roots of chains, which live as long as sessions

    @classmethod
    async def load(cls, store: Store, *, clock: Clock) -> IssuerKeys:
        """Return the keys of this installation; the first call makes one.

        Raises:
            StoreError: the store cannot be read or written, or a key does not open.
        """
        live = await LiveKeys.load(store, "issuer", clock=clock)
        return cls(
            live=live,
            public=live.counting(limits.TOKEN_KEY_OVERLAP),
            roots=live.counting(limits.ROOT_KEY_OVERLAP),
        )

    @property
    def signing(self) -> PrivateKey:
        """The key that signs now."""
        return self.live.signing

    @property
    def kid(self) -> str:
        """The id of the key that signs now; `signing` may be another a moment later."""
        return self.signing.public.thumbprint

    @property
    def jwks(self) -> dict[str, Any]:
        """The public keys as a JWK Set (RFC 7517 section 5)."""
        return self.live.jwks
