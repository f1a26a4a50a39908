"""From the URL of a gateway to where agents sign in for it: RFC 9728, then RFC 8414, each naming exactly the other."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import SplitResult, urlsplit

import httpx2

from mcp_authz.client.door import Door, NoAnswer
from mcp_authz.client.talk import Ask, Talk, carry
from mcp_authz.errors import InputError

_LOOPBACK: Final = frozenset({"localhost", "127.0.0.1", "::1"})


def endpoint(url: str) -> str:
    """Return the URL of the MCP endpoint that is meant: `/mcp` of an origin, or the URL as it is.

    Raises:
        InputError: it is no URL, or one by which a token would travel in the open.
    """
    parts = safe_url(url)
    path = parts.path.rstrip("/")
    return f"{parts.scheme}://{parts.netloc}{path or '/mcp'}"


def safe_url(url: str) -> SplitResult:
    """Return the parts of a URL, once it is known that nothing travels to it in the open.

    Raises:
        InputError: it is no URL, or one by which a token would travel in the open.
    """
    try:
        parts = urlsplit(url)
        safe = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts))
    except ValueError:
        raise InputError(f"`{url}` is no URL") from None
    if not safe or not parts.hostname or parts.username is not None or parts.query or parts.fragment:
        raise InputError(f"`{url}` must be a URL such as https://authz.example.com; plain http is for localhost only")
    return parts


def is_loopback(parts: SplitResult) -> bool:
    """Whether what is sent there stays on this machine."""
    return parts.hostname in _LOOPBACK


async def discover(http: httpx2.AsyncClient, url: str) -> Door:
    """Return where agents sign in for the resource `url`.

    Raises:
        NoAnswer: nobody says so, or what is said does not belong together.
    """
    return await carry(http, looking_up(url))


def looking_up(url: str) -> Talk[Door]:
    """The talk that finds where agents sign in for the resource `url`.

    Raises:
        NoAnswer: nobody says so, or what is said does not belong together.
    """
    resource = yield from _metadata(url, "oauth-protected-resource")
    if resource.get("resource") != url:  # RFC 9728 section 3.3
        raise NoAnswer(f"{url} says that it is `{resource.get('resource')}`; use that URL, if you trust it")
    servers = resource.get("authorization_servers")
    issuer = servers[0] if isinstance(servers, list) and servers else None
    if not isinstance(issuer, str) or not _is_safe(issuer):
        raise NoAnswer(f"{url} names no authorization server that can be trusted")
    server = yield from _metadata(issuer, "oauth-authorization-server")
    if server.get("issuer") != issuer:  # RFC 8414 section 3.3
        raise NoAnswer(f"the authorization server of {url} says that it is another")
    token = server.get("token_endpoint")
    if not isinstance(token, str) or not _is_safe(token):
        raise NoAnswer(f"the authorization server {issuer} names no token endpoint that can be trusted")
    return Door(issuer=issuer, token_endpoint=token)


def _metadata(url: str, kind: str) -> Talk[dict[str, Any]]:
    parts = urlsplit(url)
    where = f"{parts.scheme}://{parts.netloc}/.well-known/{kind}{parts.path.rstrip('/')}"
    answer = yield Ask(url=where)
    try:
        body = answer.json() if answer.status_code == 200 else None
    except ValueError:
        raise NoAnswer(f"no gateway answers at {url}") from None
    if not isinstance(body, dict):
        raise NoAnswer(f"{url} is no gateway: there is nothing at {where}")
    return body


def _is_safe(url: str) -> bool:
    try:
        endpoint(url)
    except InputError:
        return False
    return True
