"""The one way in which the gateway fetches a document from a URL that somebody else chose.

A URL from outside must not become a way to look at what is near the gateway. So every address that the host's name has
is judged before anything is sent, and the connection goes to an address that was judged: the name is not asked again.
No redirect is followed and no proxy used, and time and size are bounded for the whole of it.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import cache
from typing import Final
from urllib.parse import urlsplit

import anyio
import httpx2

from mcp_authz import limits
from mcp_authz.errors import FetchRefused, InputError
from mcp_authz.rules.client_metadata import require_url
from mcp_authz.rules.public_address import is_public

_ADDRESSES: Final = 4  # of a host that are tried; more are no help within the time there is
_TYPES: Final = frozenset({"application/json", "application/jwk-set+json"})

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


async def resolve(host: str, port: int) -> Sequence[str]:
    """Return every address of the host, as the system knows it.

    Raises:
        OSError: it has none.
    """
    found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetcher:
    """Fetches JSON documents by https from hosts on the public internet."""

    resolve: Resolve = resolve
    may_reach: Callable[[str], bool] = is_public
    trust: ssl.SSLContext | None = None  # whose certificates count; None: those that the system trusts
    patience: timedelta = limits.METADATA_TIME

    async def __call__(self, url: str) -> bytes:
        """Return the document at `url`, at most `limits.METADATA_BYTES` long; its content is not looked at.

        Raises:
            FetchRefused: the URL may not be fetched, or there is no such document.
        """
        try:
            require_url(url)
            with anyio.fail_after(self.patience.total_seconds()):
                return await self._fetched(url)
        except InputError as error:
            raise FetchRefused(str(error)) from None
        except TimeoutError:
            seconds = self.patience.total_seconds()
            raise FetchRefused(f"`{url}` did not answer whole within {seconds:g} seconds") from None

    async def _fetched(self, url: str) -> bytes:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port or 443
        addresses = await judged(host, port, resolve=self.resolve, may_reach=self.may_reach)
        async with httpx2.AsyncClient(
            verify=self.trust or system_trust(), trust_env=False, follow_redirects=False, timeout=None
        ) as http:
            for address in addresses[:_ADDRESSES]:
                try:
                    return await _read(http, url, address, port)
                except httpx2.ConnectError as error:
                    failed = str(error)
                except (httpx2.HTTPError, httpx2.InvalidURL) as error:
                    raise FetchRefused(f"`{url}` cannot be fetched: {type(error).__name__}") from None
        raise FetchRefused(f"`{url}` cannot be reached: {failed[:200]}")


async def judged(host: str, port: int, *, resolve: Resolve, may_reach: Callable[[str], bool]) -> Sequence[str]:
    """Return every address of the host, once each of them is known to be one that may be reached.

    Raises:
        FetchRefused: one of them is not, or there is none.
    """
    try:
        addresses = await resolve(host, port)
    except (OSError, UnicodeError):
        raise FetchRefused(f"host `{host}` has no address") from None
    if not addresses:
        raise FetchRefused(f"host `{host}` has no address")
    if not all(may_reach(address) for address in addresses):
        raise FetchRefused(f"host `{host}` has an address that is not on the public internet; nothing was asked there")
    return addresses


@cache
def system_trust() -> ssl.SSLContext:
    """Whose certificates count by default; read once, since that takes a while in which nothing else happens."""
    return httpx2.create_ssl_context(trust_env=False)


async def _read(http: httpx2.AsyncClient, url: str, address: str, port: int) -> bytes:
    """The document, asked for at this very address; certificate and `Host` are those of the name."""
    parts = urlsplit(url)
    literal = f"[{address}]" if ":" in address else address
    request = http.build_request(
        "GET",
        f"https://{literal}:{port}{parts.path}",
        headers={"host": parts.netloc, "accept": "application/json", "accept-encoding": "identity"},
        extensions={"sni_hostname": parts.hostname},
    )
    answer = await http.send(request, stream=True)
    try:
        _require_document(answer, url)
        return await bounded_body(answer, url)
    finally:
        await answer.aclose()


async def bounded_body(answer: httpx2.Response, url: str) -> bytes:
    """The body as it was sent: nothing is unpacked, so that the bound on bytes is one on memory.

    Raises:
        FetchRefused: it is longer than a document may be.
    """
    body = bytearray()
    async for part in answer.aiter_raw():
        body += part
        if len(body) > limits.METADATA_BYTES:
            raise FetchRefused(f"`{url}` is longer than {limits.METADATA_BYTES} bytes")
    return bytes(body)


def _require_document(answer: httpx2.Response, url: str) -> None:
    if answer.is_redirect:
        raise FetchRefused(f"`{url}` leads elsewhere (HTTP {answer.status_code}); give the URL where the document is")
    if answer.status_code != 200:
        raise FetchRefused(f"`{url}` answers with HTTP {answer.status_code}")
    if answer.headers.get("content-encoding", "identity").strip().lower() != "identity":
        raise FetchRefused(f"`{url}` is sent compressed, which was not asked for")
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in _TYPES and not (kind.startswith("application/") and kind.endswith("+json")):
        raise FetchRefused(f"`{url}` is no JSON document: its content type is `{kind[:64]}`")
