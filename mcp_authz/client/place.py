"""Where the gateway is: at a URL, or on this machine; how HTTP gets there, and where agents sign in."""

from __future__ import annotations

from typing import Final, Protocol

import anyio
import httpx2

from mcp_authz.client import discovery
from mcp_authz.client.door import Door, NoAnswer
from mcp_authz.client.trouble import Trouble

# The gateway closes a connection that nobody uses for five seconds; one that it might be closing is not used.
_LIMITS: Final = httpx2.Limits(max_connections=None, max_keepalive_connections=16, keepalive_expiry=3.0)
_SILENCE: Final = 120.0  # seconds without a byte from a gateway elsewhere; it says something every fifteen


class Place(Protocol):
    """A gateway that may be there or not."""

    patience: float
    """Seconds in which it answers, if it can be had at all."""

    @property
    def name(self) -> str:
        """What tells it from every other gateway."""
        ...

    async def reach(self, *, start: bool = True) -> Reached:
        """Return how to get there, once it is known to be there; with `start` a local one is started.

        Raises:
            Trouble: it cannot be had now.
        """
        ...

    def lost(self) -> None:
        """It did not answer: the next `reach` looks again."""
        ...

    async def aclose(self) -> None:
        """All connections are closed."""
        ...


class Reached:
    """A gateway that is there."""

    __slots__ = ("door", "http", "resource", "url")

    def __init__(self, *, http: httpx2.AsyncClient, url: str, resource: str, door: Door) -> None:
        self.http = http
        self.url = url  # of the MCP endpoint, as HTTP gets there
        self.resource = resource  # the same, as it is published: what tokens and proofs are for
        self.door = door


class Elsewhere:
    """A gateway at a URL."""

    patience = 5.0

    def __init__(self, url: str) -> None:
        self.name = url
        timeout = httpx2.Timeout(_SILENCE, connect=self.patience)
        self._http = httpx2.AsyncClient(trust_env=False, timeout=timeout, limits=_LIMITS)
        self._door: Door | None = None
        self._looking = anyio.Lock()

    async def reach(self, *, start: bool = True) -> Reached:
        """Return how to get there; who lets agents in is looked up once, and again after it was lost."""
        async with self._looking:
            if self._door is None:
                try:
                    with anyio.fail_after(self.patience):
                        self._door = await discovery.discover(self._http, self.name)
                except TimeoutError:
                    raise self._away(f"no gateway answers at {self.name}") from None
                except NoAnswer as error:
                    raise self._away(str(error)) from None
            return Reached(http=self._http, url=self.name, resource=self.name, door=self._door)

    def lost(self) -> None:
        """The next `reach` looks again."""
        self._door = None

    async def aclose(self) -> None:
        """All connections are closed."""
        await self._http.aclose()

    def _away(self, why: str) -> Trouble:
        return Trouble(f"{why}; call again when it is back, nothing has to be restarted")


def http_over(socket: str) -> httpx2.AsyncClient:
    """HTTP to the gateway that listens at a Unix socket."""
    transport = httpx2.AsyncHTTPTransport(uds=socket, verify=False, trust_env=False, limits=_LIMITS)
    return httpx2.AsyncClient(transport=transport, trust_env=False, timeout=httpx2.Timeout(None, connect=5.0))
