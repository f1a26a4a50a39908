"""How many wrong links and answers one source may bring before it has to wait.

Others may be behind the same address, a proxy's for one: what is right is served whoever was wrong there before.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
from starlette.requests import Request

from mcp_authz import limits
from mcp_authz.errors import AuthzError
from mcp_authz.protocol.throttle import Throttle, source


class TooManyTries(AuthzError):
    """The source got too many wrong lately."""

    code = "too_many_tries"


class Pace:
    """Counts what each source gets wrong; what is right is never counted, and never kept out."""

    def __init__(self) -> None:
        self._throttle = Throttle(burst=limits.LINKS_BURST, per_second=limits.LINKS_PER_SECOND)
        self._narrow = anyio.CapacityLimiter(limits.SIGN_INS_CROWDED)

    @asynccontextmanager
    async def turn(self, request: Request) -> AsyncIterator[None]:
        """The body finds out whether a try is right; those of sources that got too many wrong take turns."""
        if self._throttle.allows(_source(request), time.monotonic()):
            yield
        else:
            async with self._narrow:
                yield

    def charge(self, request: Request) -> None:
        """One more try of the source went wrong.

        Raises:
            TooManyTries: it got too many wrong before, and is told that alone.
        """
        now = time.monotonic()
        has_left = self._throttle.allows(_source(request), now)
        self._throttle.charge(_source(request), now)
        if not has_left:
            raise TooManyTries("too many tries from here went wrong; wait a minute") from None


def _source(request: Request) -> str:
    return source(request.client.host) if request.client is not None else "local"  # by the Unix socket
