"""Questions to passkeys that anybody may ask for: nothing is remembered of one before a passkey has answered it.

A list of them would be full of one stranger's within a second, and whoever is showing their passkey would be left out.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from datetime import datetime
from typing import Final

from mcp_authz import limits
from mcp_authz.errors import Conflict
from mcp_authz.rules.keys import equal, random_bytes
from mcp_authz.store.ports import Clock

_RANDOM: Final = 8  # bytes
_TOLD: Final = 8 + _RANDOM  # bytes that say when it was asked, and tell it from all others of that moment


class Strangers:
    """Knows its own questions by a key of this process, and answers by having seen them."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._key = random_bytes(32)
        self._answered: OrderedDict[bytes, datetime] = OrderedDict()  # and until when that has to be known

    def put(self) -> bytes:
        """A nonce of 32 bytes that nobody can guess; it is a question for a few minutes."""
        asked_at = int(self._clock().timestamp() * 1_000_000)
        told = asked_at.to_bytes(_TOLD - _RANDOM) + random_bytes(_RANDOM)
        return told + self._mark(told)

    def require(self, nonce: bytes) -> None:
        """The nonce is a question of ours that waits.

        Raises:
            Conflict: it was answered already, or asked too long ago, or never.
        """
        told, mark = nonce[:_TOLD], nonce[_TOLD:]
        is_ours = equal(mark, self._mark(told))
        age = self._clock().timestamp() - int.from_bytes(told[: _TOLD - _RANDOM]) / 1_000_000
        if not is_ours or age >= limits.CHALLENGE_LIFETIME.total_seconds() or nonce in self._answered:
            raise Conflict("the passkey was asked too long ago, or has answered already; try again")

    def answer(self, nonce: bytes) -> None:
        """A passkey has answered it: it is worth nothing any more.

        Raises:
            Conflict: as `require`.
        """
        self.require(nonce)
        now = self._clock()
        while self._answered and now >= next(iter(self._answered.values())):
            self._answered.popitem(last=False)
        self._answered[nonce] = now + limits.CHALLENGE_LIFETIME

    def _mark(self, told: bytes) -> bytes:
        return hmac.digest(self._key, told, "sha256")[:16]
