"""Posts a message to a URL that the operator configured, with the care of `fetching`: an address is judged, then used.

A webhook must not become a way to reach what is near the gateway, whatever becomes of its name: each address is judged
before anything is sent, and the connection goes to one that was judged. No redirect is followed, no proxy used; the
time is bounded, and of the answer only the head is read.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from typing import Final
from urllib.parse import SplitResult, urlsplit

import anyio
import httpx2

from mcp_authz import limits
from mcp_authz.errors import FetchRefused
from mcp_authz.fetching import Resolve, judged, resolve, system_trust
from mcp_authz.rules.public_address import is_public

_ADDRESSES: Final = 4  # of a host that are tried
_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})  # more of 5xx is taken for these


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """How a receiver answered."""

    status: int
    retry_after: timedelta | None = None

    @property
    def is_taken(self) -> bool:
        """Whether the receiver has the message."""
        return 200 <= self.status < 300

    @property
    def is_worth_repeating(self) -> bool:
        """Whether the same message could be taken later."""
        return self.status in _AGAIN or self.status >= 500


@dataclass(frozen=True, slots=True, kw_only=True)
class _Letter:
    to: SplitResult
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Poster:
    """Posts JSON by https to hosts on the public internet, and by http to this computer."""

    resolve: Resolve = resolve
    may_reach: Callable[[str], bool] = is_public
    trust: ssl.SSLContext | None = None  # whose certificates count; None: those that the system trusts
    patience: timedelta = limits.WEBHOOK_TIME

    async def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> Posted:
        """Return how the receiver answered.

        Raises:
            FetchRefused: it may not be reached, or cannot be; the message names its host and nothing more.
        """
        parts = urlsplit(url)
        try:
            with anyio.fail_after(self.patience.total_seconds()):
                return await self._posted(_Letter(to=parts, headers=headers, body=body))
        except TimeoutError:
            seconds = self.patience.total_seconds()
            raise FetchRefused(f"`{parts.hostname}` did not answer within {seconds:g} seconds") from None

    async def _posted(self, letter: _Letter) -> Posted:
        parts = letter.to
        host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        may_reach = self.may_reach if parts.scheme == "https" else is_loopback
        addresses = await judged(host, port, resolve=self.resolve, may_reach=may_reach)
        failed = ""
        # Without a client above it, which would write each address into the log: those of chat services are secrets.
        async with httpx2.AsyncHTTPTransport(verify=self.trust or system_trust(), trust_env=False) as http:
            for address in addresses[:_ADDRESSES]:
                try:
                    return await _post(http, letter, address, port)
                except httpx2.ConnectError as error:
                    failed = str(error)[:200]  # of the connection: no address is in it
                except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
                    raise FetchRefused(f"`{host}` cannot be posted to: {type(error).__name__}") from None
        raise FetchRefused(f"`{host}` cannot be reached: {failed}")


def is_loopback(text: str) -> bool:
    """Whether `text` is an address of this computer."""
    try:
        return ip_address(text).is_loopback
    except ValueError:
        return False


def is_private_or_public(text: str) -> bool:
    """Whether `text` is the address of some host, near or far; not one of the link, where clouds keep credentials."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    one = address if mapped is None else mapped
    nowhere = one.is_link_local or one.is_multicast or one.is_unspecified or one.is_reserved
    return one.is_loopback or not nowhere  # ::1 counts as reserved


async def _post(http: httpx2.AsyncHTTPTransport, letter: _Letter, address: str, port: int) -> Posted:
    """How the receiver at this very address answers; certificate and `Host` are those of the name."""
    parts = letter.to
    literal = f"[{address}]" if ":" in address else address
    query = f"?{parts.query}" if parts.query else ""
    request = httpx2.Request(
        "POST",
        f"{parts.scheme}://{literal}:{port}{parts.path or '/'}{query}",
        headers={**letter.headers, "host": parts.netloc, "content-type": "application/json", "user-agent": "mcp-authz"},
        content=letter.body,
        extensions={"sni_hostname": parts.hostname},
    )
    answer = await http.handle_async_request(request)
    try:
        return Posted(status=answer.status_code, retry_after=_retry_after(answer.headers.get("retry-after", "")))
    finally:
        await answer.aclose()


def _retry_after(text: str) -> timedelta | None:
    """How long the receiver asks to be left alone; a date (RFC 9110 section 10.2.3) is not read."""
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        return None
    return min(timedelta(seconds=int(text)), limits.WEBHOOK_PAUSE_LONGEST)
