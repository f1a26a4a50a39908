"""What is under way, calls and streams: each ends as soon as what its caller stands on is revoked, by any process.

One rule decides whether a caller still stands, the same that lets a request in: steps 5 and 6 of the road.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Final

import anyio

from mcp_authz import limits
from mcp_authz.errors import StoreError, TokenRefused
from mcp_authz.principals import AccessToken, Caller, Proof
from mcp_authz.store.ports import Store

log = logging.getLogger(__name__)

Identify = Callable[[AccessToken, Proof], Awaitable[Caller]]

_PAUSE: Final = limits.WAIT_PAUSE.total_seconds()
_TROUBLE: Final = 0.25  # seconds between two looks at a store that cannot be read


class Underway:
    """What runs for whom, in this process. Nothing is looked up while nothing is revoked."""

    def __init__(self, store: Store, identify: Identify) -> None:
        """`identify` is `Sessions.identify`."""
        self._store = store
        self._identify = identify
        self._running: dict[anyio.CancelScope, Caller] = {}
        self._somebody = anyio.Event()
        self._seen = 0

    @contextmanager
    def while_standing(self, caller: Caller) -> Iterator[anyio.CancelScope]:
        """The body is cancelled, and `cancelled_caught`, once the caller's authority is revoked.

        A call begins before its decision is on disk: what is revoked later than that is seen, whenever it happens.
        """
        with anyio.CancelScope() as scope:
            self._running[scope] = caller
            self._somebody.set()
            try:
                yield scope
            finally:
                del self._running[scope]

    async def run(self) -> None:
        """Whatever loses its authority ends; without end."""
        changed = 0
        self._seen = await self._newest()
        while True:
            if not self._running:
                self._somebody = anyio.Event()
                await self._somebody.wait()
            try:
                changed = await self._store.changed(changed)
                newest = await self._newest()
                if newest != self._seen:
                    await self._end_what_fell()
                    self._seen = newest
            except StoreError as error:
                log.error("what runs cannot be watched, the store cannot be read: %s", error)
                await anyio.sleep(_TROUBLE)
            await anyio.sleep(_PAUSE)

    async def _newest(self) -> int:
        last = await self._store.last_of("revocation")
        return 0 if last is None else last.sequence

    async def _end_what_fell(self) -> None:
        for scope, caller in list(self._running.items()):
            if scope in self._running and not await self._stands(caller):
                log.info("what %s had under way has ended: its authority was revoked", caller.agent.name)
                scope.cancel()

    async def _stands(self, caller: Caller) -> bool:
        try:
            now = await self._identify(caller.token, caller.proof)
        except TokenRefused:
            return False
        return now.session is not None or caller.session is None
