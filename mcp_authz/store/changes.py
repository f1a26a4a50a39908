"""Waiting for what is written to a database, by this process or by another: whoever waits is told, and looks."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from mcp_authz import limits
from mcp_authz.store.bell import Bell

_TOLD: Final = limits.CHANGES_LOOKED_FOR.total_seconds()
_UNTOLD: Final = limits.CHANGES_LOOKED_FOR_ALONE.total_seconds()


class Changes:
    """Numbers what is seen of a database, one number for each time that it is seen to have changed."""

    def __init__(self, version: Callable[[], object], bell: Bell) -> None:
        """`version` returns another value than before when anything was written since; `bell` tells of others."""
        self._version = version
        self._bell = bell
        self._seen: object = None
        self._number = 0
        self._waiting: set[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = set()
        self._lock = threading.Lock()

    def tell(self) -> None:
        """Whoever waits looks again now; may be called by any thread."""
        with self._lock:
            for loop, wake in self._waiting:
                with suppress(RuntimeError):  # a loop that was closed has nobody left who waits
                    loop.call_soon_threadsafe(wake.set)

    async def after(self, since: int) -> int:
        """The number of what is there now, once it is another than `since`; numbers begin with 1.

        Raises:
            StoreError: the store cannot be read, or is closed.
        """
        waiting = (asyncio.get_running_loop(), asyncio.Event())
        with self._lock:  # before the first look, so that nothing written after it goes unheard
            self._waiting.add(waiting)
        pause = _TOLD if self._bell.listen(self.tell) else _UNTOLD
        try:
            while (number := self._look()) == since:
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await waiting[1].wait()
                waiting[1].clear()
            return number
        finally:
            with self._lock:
                self._waiting.discard(waiting)

    def _look(self) -> int:
        version = self._version()
        if version != self._seen:
            self._seen = version
            self._number += 1
        return self._number
