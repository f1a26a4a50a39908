"""HTTP towards the OpenID provider: one bounded exchange at a time, and nothing followed."""

from __future__ import annotations

import anyio
import httpx2

from mcp_authz import limits
from mcp_authz.errors import FetchRefused
from mcp_authz.fetching import system_trust


class BoundedTransport(httpx2.AsyncBaseTransport):
    """Carries each request over a connection of its own, in bounded time, for an answer of bounded size."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Return the whole answer.

        Raises:
            FetchRefused: it cannot be had, or is too long or too late.
        """
        host = request.url.host
        try:
            with anyio.fail_after(limits.PROVIDER_TIME.total_seconds()):
                return await _exchanged(request)
        except TimeoutError:
            seconds = limits.PROVIDER_TIME.total_seconds()
            raise FetchRefused(f"`{host}` did not answer within {seconds:g} seconds") from None
        except httpx2.HTTPError as error:
            raise FetchRefused(f"`{host}` cannot be reached: {type(error).__name__}") from None


async def _exchanged(request: httpx2.Request) -> httpx2.Response:
    async with httpx2.AsyncHTTPTransport(verify=system_trust(), trust_env=False) as transport:
        answer = await transport.handle_async_request(request)
        try:
            if answer.headers.get("content-encoding", "identity").strip().lower() != "identity":
                raise FetchRefused(f"`{request.url.host}` sent something compressed, which was not asked for")
            body = bytearray()
            async for part in answer.aiter_raw():
                body += part
                if len(body) > limits.PROVIDER_BYTES:
                    raise FetchRefused(f"`{request.url.host}` sent more than {limits.PROVIDER_BYTES} bytes")
        finally:
            await answer.aclose()
    return httpx2.Response(answer.status_code, headers=answer.headers, content=bytes(body), request=request)


def client_options() -> dict[str, object]:
    """What every client towards the provider is made with."""
    return {
        "transport": BoundedTransport(),
        "trust_env": False,
        "follow_redirects": False,
        "timeout": None,
        "headers": {"accept-encoding": "identity"},
    }


async def fetch_document(url: str) -> httpx2.Response:
    """Return the answer to a GET of `url`, whatever its status is.

    Raises:
        FetchRefused: as `BoundedTransport`.
    """
    async with httpx2.AsyncClient(**client_options()) as http:  # type: ignore[arg-type]
        return await http.get(url, headers={"accept": "application/json"})
