"""The door of the page: which requests come in at all, and what every answer carries.

Cookies of localhost go to every port, so another port is another party that the browser counts as the same site: a
request that changes anything must say by its Origin that it comes from this very page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mcp_authz import limits
from mcp_authz.errors import InputError
from mcp_authz.rules import strict_json

_POLICY: Final = "Content-Security-Policy"
ALONE: Final = "default-src 'none'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'; sandbox"
"""The policy of what is no page: it loads nothing, runs nothing and is of no origin."""

HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_READING: Final = frozenset({"GET", "HEAD"})
_SINGLE: Final = ("host", "origin", "cookie", "content-type", "sec-fetch-site")


class Door:
    """Lets a request through to the page if it is for this host and, where it changes anything, from this page."""

    def __init__(self, page: ASGIApp, public_url: str) -> None:
        parts = urlsplit(public_url)
        self._page = page
        self._url = public_url
        self._host = parts.netloc
        port = f":{parts.port}" if parts.port else ""
        # An address is no name that a passkey could be for: whoever comes by one is led to the name.
        self._addresses = {f"127.0.0.1{port}", f"[::1]{port}"} if parts.hostname == "localhost" else set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    # A picture that may be opened by itself has a policy of its own, under which nothing in it runs.
                    if name != _POLICY or headers.get(name) != ALONE:
                        headers[name] = value
            await send(message)

        refusal = self._refusal(Headers(scope=scope), scope)
        await (refusal or self._page)(scope, receive, guarded)

    def _refusal(self, headers: Headers, scope: Scope) -> Response | None:
        """What is answered instead of the page; None: the request is let through."""
        if any(len(headers.getlist(name)) > 1 for name in _SINGLE):
            return PlainTextResponse("A header appears more than once.", 400)
        reads = scope["method"] in _READING
        if headers.get("host") in self._addresses and reads:
            query = scope["query_string"].decode("latin-1")
            path = scope.get("raw_path", scope["path"].encode()).decode("latin-1").partition("?")[0]
            return RedirectResponse(f"{self._url}{path}{'?' if query else ''}{query}", 307)
        if headers.get("host") != self._host:
            return PlainTextResponse(f"This page is at {self._url} and nowhere else.", 421)
        return None if reads else _cross_site(headers, self._url)


def _cross_site(headers: Headers, own: str) -> Response | None:
    if headers.get("origin") != own or headers.get("sec-fetch-site", "same-origin") != "same-origin":
        return PlainTextResponse("This request does not come from this page.", 403)
    # What no form of another page can send without asking first (CORS), which is never allowed.
    if headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        return PlainTextResponse("Send JSON.", 415)
    return None


async def read_body(request: Request) -> dict[str, Any]:
    """The one JSON object that the request brings.

    Raises:
        InputError: it is none, or too long.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limits.PAGE_BODY_BYTES:
            raise InputError("the request is too long")
    return strict_json.parse_object(bytes(body))


def text_of(body: Mapping[str, Any], name: str, *, most: int) -> str:
    """The text member of a body; empty when it is left out.

    Raises:
        InputError: it is no text, or too long.
    """
    value = body.get(name, "")
    if not isinstance(value, str):
        raise InputError(f"`{name}` must be text")
    if len(value) > most:
        raise InputError(f"`{name}` has more than {most} characters")
    return value


async def read_reason(request: Request) -> str:
    """Why the person stops something.

    Raises:
        InputError: they do not say.
    """
    reason = text_of(await read_body(request), "reason", most=limits.REASON).strip()
    if not reason:
        raise InputError("say why: write a reason, which stays on record")
    return reason


def object_of(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The object member of a body.

    Raises:
        InputError: it is none.
    """
    value = body.get(name)
    if not isinstance(value, dict):
        raise InputError(f"`{name}` must be an object")
    return value
