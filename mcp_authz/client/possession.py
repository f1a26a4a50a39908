"""Proofs that the agent's key is here (RFC 9449): one for each request, with the nonce that its server gave last."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from mcp_authz.ids import new_id
from mcp_authz.rules import dpop
from mcp_authz.rules.jose import SigningKey

_NONCE: Final = "dpop-nonce"
USE_NONCE: Final = "use_dpop_nonce"


class Possession:
    """What one client knows of the nonces of the places it goes to, by their published URLs."""

    def __init__(self) -> None:
        self._nonces: dict[str, str] = {}

    def proof(self, key: SigningKey, method: str, url: str, *, at: datetime, token: str | None = None) -> str:
        """Return a proof, good for one request that is sent at once; `url` is the place as it is published."""
        return dpop.make_proof(
            key,
            method=method,
            url=url,
            at=at,
            id=new_id("d"),
            access_token=token,
            nonce=self._nonces.get(url),
        )

    def heard(self, url: str, headers: Mapping[str, str]) -> bool:
        """The nonce in the answer is used from now on (RFC 9449 section 8.2); returns whether there is one."""
        if (nonce := headers.get(_NONCE)) is not None:
            self._nonces[url] = nonce
        return nonce is not None
