"""The keys with which this issuer signs tokens and statements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from mcp_authz.rules.keys import PrivateKey, PublicKey, random_bytes
from mcp_authz.store.ports import Store

_SECRET: Final = "issuer-key"  # noqa: S105 - the name of one
_SEED_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerKeys:
    """The key that signs now, and every public key whose signatures count."""

    signing: PrivateKey
    public: Mapping[str, PublicKey]  # kid, which is the RFC 7638 thumbprint -> key

    @classmethod
    async def load(cls, store: Store) -> IssuerKeys:
        """Return the keys of this installation; the first call makes them.

        Raises:
            StoreError: the store cannot be read or written.
        """
        signing = PrivateKey.from_seed(await store.secret(_SECRET, lambda: random_bytes(_SEED_BYTES)))
        return cls(signing=signing, public={signing.public.thumbprint: signing.public})

    @property
    def kid(self) -> str:
        """The id of the key that signs now."""
        return self.signing.public.thumbprint

    @property
    def jwks(self) -> dict[str, Any]:
        """The public keys as a JWK Set (RFC 7517 section 5)."""
        return {
            "keys": [{**key.jwk, "kid": kid, "use": "sig", "alg": "EdDSA"} for kid, key in sorted(self.public.items())]
        }
