"""Questions to passkeys that wait for their answer: each is answered once, within minutes, by whom it was put to."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from mcp_authz import limits
from mcp_authz.errors import Conflict
from mcp_authz.rules.keys import random_bytes
from mcp_authz.store.ports import Clock

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting(Generic[T]):
    about: T
    until: datetime


class Challenges(Generic[T]):
    """Remembers, in this process, what each random nonce was handed out for."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: OrderedDict[bytes, _Waiting[T]] = OrderedDict()

    def put(self, about: T) -> bytes:
        """A nonce of 32 random bytes that stands for this question; the oldest question makes room where it must."""
        nonce = random_bytes(32)
        self._waiting[nonce] = _Waiting(about=about, until=self._clock() + limits.CHALLENGE_LIFETIME)
        while len(self._waiting) > limits.CHALLENGES:
            self._waiting.popitem(last=False)
        return nonce

    def take(self, nonce: bytes) -> T:
        """What the nonce was handed out for; it is worth nothing any more.

        Raises:
            Conflict: it was answered already, or too long ago, or never handed out.
        """
        found = self._waiting.pop(nonce, None)
        if found is None or self._clock() >= found.until:
            raise Conflict("the passkey was asked too long ago, or has answered already; try again")
        return found.about
