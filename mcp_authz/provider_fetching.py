"""Fetches what a company's identity provider publishes, from URLs that the operator configured.

They may be inside the company: the operator has said whose they are, so no address is judged as `fetching` judges
those of strangers. Time and size are bounded for the whole of it, no redirect is followed and no proxy used.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

import anyio
import httpx2

from mcp_authz import limits
from mcp_authz.errors import FetchRefused, InputError
from mcp_authz.fetching import bounded_body, system_trust
from mcp_authz.rules import strict_json

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_METADATA: Final = "/.well-known/openid-configuration"


def keys_of(issuer: str, jwks_uri: str | None) -> Callable[[], Awaitable[bytes]]:
    """Return what fetches the provider's JWK Set: from `jwks_uri`, or from where the issuer's own metadata says."""

    async def fetch() -> bytes:
        try:
            with anyio.fail_after(limits.PROVIDER_TIME.total_seconds()):
                return await _get(jwks_uri if jwks_uri is not None else await _discovered(issuer))
        except TimeoutError:
            seconds = limits.PROVIDER_TIME.total_seconds()
            raise FetchRefused(f"`{jwks_uri or issuer}` did not answer whole within {seconds:g} seconds") from None

    return fetch


async def _discovered(issuer: str) -> str:
    """Where the provider says that its keys are (OpenID Connect Discovery 1.0 section 4)."""
    url = issuer.rstrip("/") + _METADATA
    try:
        metadata = strict_json.parse_object(await _get(url), max_bytes=limits.METADATA_BYTES)
    except InputError as error:
        raise FetchRefused(f"`{url}` is no metadata of a provider: {error}") from None
    if metadata.get("issuer") != issuer:  # section 4.3
        raise FetchRefused(f"`{url}` is the metadata of another issuer")
    uri = metadata.get("jwks_uri")
    if not isinstance(uri, str) or not _is_fitting(uri, issuer):
        raise FetchRefused(f"`{url}` has no `jwks_uri` by https; set `jwks_uri` in `[enterprise]`")
    return uri


def _is_fitting(uri: str, issuer: str) -> bool:
    """Whether keys from there are as surely the provider's as its metadata; http is for providers on this computer."""
    try:
        where, own = urlsplit(uri), urlsplit(issuer)
    except ValueError:
        return False
    return where.scheme == "https" or (own.scheme == where.scheme == "http" and where.hostname in _LOOPBACK)


async def _get(url: str) -> bytes:
    try:
        async with (
            httpx2.AsyncClient(verify=system_trust(), trust_env=False, follow_redirects=False, timeout=None) as http,
            http.stream("GET", url, headers={"accept": "application/json", "accept-encoding": "identity"}) as answer,
        ):
            if answer.status_code != 200:
                raise FetchRefused(f"`{url}` answers with HTTP {answer.status_code}")
            return await bounded_body(answer, url)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise FetchRefused(f"`{url}` cannot be fetched: {type(error).__name__}") from None
