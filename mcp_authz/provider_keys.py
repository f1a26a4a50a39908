"""The keys of the company's identity provider, as a running gateway has them: fetched, kept, fetched again."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final

import anyio

from mcp_authz import limits
from mcp_authz.errors import FetchRefused, InputError, SignatureRefused
from mcp_authz.rules.assertion_keys import AssertionKeys, key_of, read_keys, read_signed
from mcp_authz.rules.jose import UnverifiedJws
from mcp_authz.store.ports import Clock

log = logging.getLogger(__name__)

_NONE: Final[AssertionKeys] = {}


class ProviderKeys:
    """The keys of one provider; whatever ids clients name, it is asked at most once a minute."""

    def __init__(self, fetch: Callable[[], Awaitable[bytes]], clock: Clock) -> None:
        """`fetch` returns the provider's JWK Set, or raises `FetchRefused`."""
        self._fetch = fetch
        self._clock = clock
        self._keys = _NONE
        self._read_at: datetime | None = None
        self._tried_at: datetime | None = None
        self._lock = anyio.Lock()

    @property
    def known(self) -> AssertionKeys:
        """The keys that were fetched last; none when that is too long ago."""
        if self._read_at is None or self._clock() - self._read_at >= limits.PROVIDER_KEYS_KEPT:
            return _NONE
        return self._keys

    async def ready(self, text: str) -> None:
        """The provider was asked for its keys, where that may be needed to verify this.

        Whoever verifies it has this done before, while they hold nothing that others wait for: a host can be slow.
        """
        try:
            unverified = read_signed(text)
        except SignatureRefused:
            return
        if self._is_known(unverified):  # without waiting for what somebody else has made the provider be asked
            return
        async with self._lock:
            now = self._clock()
            is_early = self._tried_at is not None and now - self._tried_at < limits.PROVIDER_PAUSE
            if not is_early and not self._is_known(unverified):
                self._tried_at = now
                await self._read(now)

    def _is_known(self, unverified: UnverifiedJws) -> bool:
        """Whether the key by which this claims to be signed was fetched not long ago."""
        is_fresh = self._read_at is not None and self._clock() - self._read_at < limits.PROVIDER_KEYS_FRESH
        return is_fresh and key_of(unverified, self._keys) is not None

    async def _read(self, now: datetime) -> None:
        """The keys are those published now; those that were known before stay where that fails."""
        try:
            self._keys = read_keys(await self._fetch())
            self._read_at = now
        except (FetchRefused, InputError) as error:
            log.warning("the identity provider's keys could not be read; those known before stay: %s", error)
