"""Turns at what is slow: whoever asks for much at once is served one by one, and others meanwhile."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import anyio

from mcp_authz.errors import AuthzError


class SlowDown(AuthzError):
    """Whoever asks has too much under way."""

    code = "slow_down"


@dataclass(slots=True, kw_only=True)
class _Line:
    lock: anyio.Lock = field(default_factory=anyio.Lock)
    waiting: int = 0


class Turns:
    """One turn at a time for each name, with so many in line; a name without a line is not remembered."""

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._lines: dict[str, _Line] = {}

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """The body runs while no other one of this name does.

        Raises:
            SlowDown: too many of this name are in line already.
        """
        line = self._lines.setdefault(name, _Line())
        if line.waiting >= self._most:
            raise SlowDown(f"{self._most} of your requests wait to be served; ask for less at once")
        line.waiting += 1
        try:
            async with line.lock:
                yield
        finally:
            line.waiting -= 1
            if line.waiting == 0:
                self._lines.pop(name, None)
