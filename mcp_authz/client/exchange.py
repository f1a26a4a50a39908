"""One message to the gateway by HTTP, and every message that comes back, as bytes of one JSON-RPC message each."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import httpx2

from mcp_authz import limits
from mcp_authz.client.challenge import read_challenge
from mcp_authz.client.possession import USE_NONCE
from mcp_authz.client.trouble import FORBIDDEN, INTERNAL_ERROR, Trouble

SESSION: Final = "mcp-session-id"
_REFUSED: Final = frozenset({400, 404, 405, 406, 413, 415})
_ACCEPT: Final = "application/json, text/event-stream"


class NotSent(Exception):
    """The gateway did not get the message: it can be sent again."""


class Unauthorized(Exception):
    """The gateway does not take the token; `args[0]` says why."""


class NonceWanted(Exception):
    """The proof of the key has to have another nonce: `args[0]` is the headers that say which (RFC 9449 section 9)."""


class SessionGone(Exception):
    """The gateway does not know the MCP session: nothing was done, and the message can be sent in another."""


@dataclass(slots=True)
class Sending:
    """How far a message has got."""

    is_out: bool = field(default=False)  # the last byte has left: whoever reads it may act on it

    async def trace(self, event: str, _: Mapping[str, Any]) -> None:
        """What the HTTP library tells of a request."""
        if event.endswith("send_request_body.complete"):
            self.is_out = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """The gateway's answer: its headers, and its messages as they come."""

    headers: Mapping[str, str]
    messages: AsyncIterator[bytes]


@asynccontextmanager
async def post(
    http: httpx2.AsyncClient, url: str, raw: bytes, headers: Mapping[str, str], sending: Sending
) -> AsyncIterator[Response]:
    """The message is on its way while the body runs.

    Raises:
        NotSent, Unauthorized, NonceWanted, SessionGone: it can be sent again.
        Trouble: it was refused, or the connection broke.
    """
    lines = {"accept": _ACCEPT, "content-type": "application/json", **headers}
    try:
        async with http.stream(
            "POST", url, content=raw, headers=lines, extensions={"trace": sending.trace}
        ) as response:
            await _require_taken(response)
            yield Response(headers=response.headers, messages=_messages(response))
    except httpx2.HTTPError as error:
        if not sending.is_out:
            raise NotSent from error
        raise Trouble(
            "the connection to the gateway broke before it answered", reason="broken", may_have_run=True
        ) from error


@asynccontextmanager
async def listen(http: httpx2.AsyncClient, url: str, headers: Mapping[str, str]) -> AsyncIterator[AsyncIterator[bytes]]:
    """The stream of the gateway's own messages is open while the body runs.

    Raises:
        NotSent, Unauthorized, NonceWanted, SessionGone, Trouble: there is no such stream, or not any more.
    """
    try:
        async with http.stream("GET", url, headers={"accept": "text/event-stream", **headers}) as response:
            await _require_taken(response)
            yield _messages(response)
    except httpx2.HTTPError as error:
        raise NotSent from error


async def _require_taken(response: httpx2.Response) -> None:
    """Return only if the status is one of success; otherwise say what stands in the way."""
    status = response.status_code
    if 200 <= status < 300:
        return
    said = await _error(response)
    text = str(said.get("message", "")) if said is not None else ""
    challenge = read_challenge(response)
    if status == 401 and challenge.error == USE_NONCE:
        raise NonceWanted(response.headers)
    if status == 401:
        raise Unauthorized(text or "the gateway does not take the agent's token")
    if status == 404 and text.startswith("Session"):
        raise SessionGone
    if said is not None:
        missing = challenge.scope if challenge.error == "insufficient_scope" else frozenset[str]()
        raise Trouble(text, passed=said, refused=status in _REFUSED, scope=missing)
    where = f", to {response.headers['location']}" if "location" in response.headers else ""
    sentence = f"the gateway answered with HTTP status {status}{where}; look whether its URL is the right one"
    raise Trouble(sentence, rpc_code=FORBIDDEN if status == 403 else INTERNAL_ERROR, may_have_run=status >= 500)


async def _error(response: httpx2.Response) -> dict[str, Any] | None:
    """The JSON-RPC error in the body, if there is one."""
    try:
        body = json.loads(await response.aread())
    except ValueError:
        return None
    error = body.get("error") if isinstance(body, dict) else None
    return error if isinstance(error, dict) and isinstance(error.get("code"), int) else None


async def _messages(response: httpx2.Response) -> AsyncIterator[bytes]:
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "text/event-stream":
        async for event in httpx2.EventSource(response, max_event_size=limits.ANSWER_BYTES):
            if event.event == "message" and event.data:
                yield event.data.encode("utf-8", "surrogatepass")
    elif body := await response.aread():
        yield body
