"""Public keys that somebody publishes at a URL: an agent's metadata document, a JWK set, or a key alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import anyio
import httpx2

from mcp_authz.client.discovery import endpoint
from mcp_authz.client.door import NoAnswer
from mcp_authz.errors import ConfigError, InputError, KeyRefused, NotFound
from mcp_authz.rules import strict_json
from mcp_authz.rules.keys import PublicKey

_LARGEST: Final = 64 * 1024  # bytes of a document with keys
_SECONDS: Final = 5.0


def is_url(text: str) -> bool:
    """Whether the text is meant as a URL, rather than as a file or a key."""
    return text.startswith(("https://", "http://"))


async def published_keys(place: str) -> Mapping[str, PublicKey]:
    """Return the keys in the file or at the URL, by thumbprint, in the order in which they stand there.

    Raises:
        InputError: it is no document with keys, or the URL is one by which it would travel in the open.
        KeyRefused: a key of it is none.
        NotFound: there is nothing.
        NoAnswer: nobody answers.
    """
    raw = await _fetched(place) if is_url(place) else _file(Path(place))
    try:
        keys = read_keys(strict_json.parse_object(raw, max_bytes=_LARGEST))
    except (InputError, KeyRefused) as error:
        raise type(error)(f"`{place}`: {error}") from None
    return {key.thumbprint: key for key in keys}


def read_keys(document: Mapping[str, Any]) -> tuple[PublicKey, ...]:
    """Return the Ed25519 keys of a document with `jwks`, of a JWK set (RFC 7517 section 5), or of one JWK.

    Raises:
        InputError: it has none.
        KeyRefused: one of them is no key.
    """
    jwks = document.get("jwks", document)
    listed = jwks.get("keys", [jwks]) if isinstance(jwks, Mapping) else None
    if not isinstance(listed, list) or not all(isinstance(jwk, dict) for jwk in listed):
        raise InputError("there is no JWK set in it")
    found = tuple(PublicKey.from_jwk(jwk) for jwk in listed if jwk.get("crv", "Ed25519") == "Ed25519")
    if not found:
        raise InputError("there is no Ed25519 key in it")
    return found


def _file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(_LARGEST + 1)
    except OSError as error:
        raise ConfigError(f"`{path}` cannot be read: {error.strerror}") from None


async def _fetched(url: str) -> bytes:
    """What is at the URL: from there and nowhere that it points to, in time, and of a sensible size."""
    endpoint(url)  # https, or this machine
    body = b""
    try:
        with anyio.fail_after(_SECONDS):
            async with (
                httpx2.AsyncClient(trust_env=False, timeout=_SECONDS, follow_redirects=False) as http,
                http.stream(
                    "GET", url, headers={"accept": "application/json", "accept-encoding": "identity"}
                ) as answer,
            ):
                if answer.status_code != 200:
                    raise NotFound(f"there is nothing at {url} (HTTP status {answer.status_code})")
                async for chunk in answer.aiter_raw():
                    body += chunk
                    if len(body) > _LARGEST:
                        raise InputError(f"what is at {url} is longer than {_LARGEST} bytes")
    except (httpx2.HTTPError, TimeoutError):
        raise NoAnswer(f"nobody answers at {url}") from None
    return body
