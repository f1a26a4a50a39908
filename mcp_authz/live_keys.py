"""The gateway's keys of one use as they are at every moment, whichever process rotates them."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final, NoReturn

import anyio

from mcp_authz import limits
from mcp_authz.errors import AuthzError, StoreError
from mcp_authz.rules.keys import PrivateKey, PublicKey, random_bytes
from mcp_authz.signing_key import OVERLAP, KeyUse, SigningKey, replaced_at, signer
from mcp_authz.store.ports import Clock, Store

log = logging.getLogger(__name__)

SEED_BYTES: Final = 32
new_seed: Final = partial(random_bytes, SEED_BYTES)

Read = Callable[[], Awaitable[tuple[SigningKey, ...]]]


@dataclass(frozen=True, slots=True)
class _Known:
    """What was read at one time; replaced as a whole, so that a thread sees all of it or none."""

    keys: tuple[SigningKey, ...]
    private: Mapping[str, PrivateKey]  # by kid, of the keys that are not over
    replaced_at: Mapping[str, datetime | None]
    withdrawn: frozenset[str]  # at once: nothing stands that they signed

    @classmethod
    def of(cls, keys: tuple[SigningKey, ...]) -> _Known:
        return cls(
            keys=keys,
            private={key.kid: PrivateKey.from_seed(key.seed) for key in keys if key.seed is not None},
            replaced_at={key.kid: replaced_at(key, keys) for key in keys},
            withdrawn=frozenset(key.kid for key in keys if key.status == "revoked"),
        )


class LiveKeys:
    """Which key signs now, and which keys' signatures count; what time changes is seen at once, the rest by `refresh`.

    Threads may ask; `refresh` belongs to the event loop of the store.
    """

    def __init__(self, read: Read, use: KeyUse, clock: Clock, keys: tuple[SigningKey, ...]) -> None:
        self._read = read
        self._use = use
        self._clock = clock
        self._known = _Known.of(keys)

    @classmethod
    async def load(cls, store: Store, use: KeyUse, *, clock: Clock) -> LiveKeys:
        """Return the keys of this installation; the first call makes one.

        Raises:
            StoreError: the store cannot be read or written, or a key does not open.
        """
        return cls(partial(store.signing_keys, use), use, clock, await store.begin_signing(use, new_seed))

    async def refresh(self) -> None:
        """The keys are those of the store.

        Raises:
            StoreError: it cannot be read, or a key does not open; the keys are as they were.
        """
        keys = await self._read()
        if keys != self._known.keys:
            self._known = _Known.of(keys)

    def distrust(self) -> None:
        """No key signs or counts until they were read again: one may have been taken back meanwhile."""
        self._known = _Known.of(())

    @property
    def signing(self) -> PrivateKey:
        """The key that signs now.

        Raises:
            StoreError: there is none.
        """
        known = self._known
        if (key := signer(known.keys, self._clock())) is None:
            raise StoreError(f"there is no `{self._use}` key to sign with; `mcp-authz keys list` says why")
        return known.private[key.kid]

    @property
    def jwks(self) -> dict[str, Any]:
        """The public keys as a JWK Set (RFC 7517 section 5), those that sign soon included."""
        found = [(kid, self.find(kid, OVERLAP[self._use])) for kid in sorted(self.kids)]
        shown = [(kid, key) for kid, key in found if key is not None]
        return {"keys": [{**key.jwk, "kid": kid, "use": "sig", "alg": "EdDSA"} for kid, key in shown]}

    def counting(self, overlap: timedelta) -> Mapping[str, PublicKey]:
        """Return the public keys by kid, always those of now: one that was replaced counts for `overlap` after that."""
        return _Counting(self, overlap)

    def find(self, kid: str, overlap: timedelta) -> PublicKey | None:
        """Return the key, if its signatures count now."""
        known, now = self._known, self._clock()
        key = next((key for key in known.keys if key.kid == kid), None)
        if key is None or not key.counts(now):
            return None
        ended = known.replaced_at[kid]
        return None if ended is not None and now >= ended + overlap else known.private[kid].public

    def is_withdrawn(self, kid: str) -> bool:
        """Whether the key was taken back at once, as one that somebody else may have."""
        return kid in self._known.withdrawn

    @property
    def kids(self) -> tuple[str, ...]:
        """The ids of all keys there ever were, oldest first."""
        return tuple(key.kid for key in self._known.keys)


class _Counting(Mapping[str, PublicKey]):
    """A view that never has a key which does not count any more."""

    def __init__(self, live: LiveKeys, overlap: timedelta) -> None:
        self._live = live
        self._overlap = overlap

    def __getitem__(self, kid: str) -> PublicKey:
        if (key := self._live.find(kid, self._overlap)) is None:
            raise KeyError(kid)
        return key

    def __iter__(self) -> Iterator[str]:
        return iter([kid for kid in self._live.kids if self._live.find(kid, self._overlap) is not None])

    def __len__(self) -> int:
        return sum(1 for _ in self)


async def follow(store: Store, *live: LiveKeys) -> NoReturn:
    """The keys are those of the store within half a second of each change, by whatever process; without end.

    Where they cannot be read they stay as they were for `limits.SIGNING_KEYS_STALE`, and then none counts.
    """
    seen, trouble, since = 0, "", 0.0
    while True:
        try:
            seen = await store.changed(seen)
            for keys in live:
                await keys.refresh()
            trouble = ""
        except AuthzError as error:
            seen = 0  # looked at again, whether or not anything is written meanwhile
            if not trouble:
                since = anyio.current_time()
            if str(error) != trouble:
                trouble = str(error)
                log.error("the gateway's keys cannot be read; soon none of them counts: %s", trouble)
            if anyio.current_time() - since >= limits.SIGNING_KEYS_STALE.total_seconds():
                for keys in live:
                    keys.distrust()
        await anyio.sleep(limits.SIGNING_KEYS_READ.total_seconds())
