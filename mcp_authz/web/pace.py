"""How many wrong links and answers one source may bring before it has to wait."""

from __future__ import annotations

import time

from starlette.requests import Request

from mcp_authz import limits
from mcp_authz.errors import AuthzError
from mcp_authz.protocol.throttle import Throttle, source


class TooManyTries(AuthzError):
    """The source got too many wrong lately."""

    code = "too_many_tries"


class Pace:
    """Counts what each source gets wrong; what is right is never counted."""

    def __init__(self) -> None:
        self._throttle = Throttle(burst=limits.LINKS_BURST, per_second=limits.LINKS_PER_SECOND)

    def require(self, request: Request) -> None:
        """The source may try.

        Raises:
            TooManyTries: it has to wait.
        """
        if not self._throttle.allows(_source(request), time.monotonic()):
            raise TooManyTries("too many tries from here went wrong; wait a minute")

    def charge(self, request: Request) -> None:
        """One more try of the source went wrong."""
        self._throttle.charge(_source(request), time.monotonic())


def _source(request: Request) -> str:
    return source(request.client.host) if request.client is not None else "local"  # by the Unix socket
