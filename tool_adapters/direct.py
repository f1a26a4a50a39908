"""Calls to a server of 2026-07-28 over HTTP: one POST, one answer, as JSON or as a stream; the only door to aiohttp.

That revision has no session and nothing to resume, so a call needs nothing of the SDK's transport but its headers, and
costs a tenth of what it costs there. What is an answer, and what is said when there is none, is the same in both.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from itertools import count
from ssl import SSLContext
from typing import Any, Final

import aiohttp
from mcp_types import METHOD_NOT_FOUND, ErrorData
from pydantic import ValidationError
from pydantic_core import from_json

from mcp_authz.errors import DownstreamRefusal
from mcp_authz.limits import ANSWER_BYTES
from mcp_authz.rules import strict_json
from tool_adapters.sdk import Broken, failure

Heard = Callable[[str, Mapping[str, Any]], None]

_CONNECTIONS: Final = 512
# Reading has no bound here: an event stream may be silent for long, and every call has a timeout of its own.
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, connect=30, sock_connect=10)
_NOT_SENT: Final = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)
_TOO_LARGE: Final = f"its answer is larger than {ANSWER_BYTES} bytes"
_NO_MESSAGE: Final = "its answer is no JSON-RPC message"


class DirectCalls:
    """A pool of connections to one server, which belong to no caller: no cookie is kept, no redirect followed."""

    def __init__(self, url: str, client: aiohttp.ClientSession) -> None:
        self._url = url
        self._client = client
        self._ids = count(1)

    async def send(
        self, method: str, params: Mapping[str, Any], headers: Mapping[str, str], heard: Heard
    ) -> dict[str, Any]:
        """Return the server's result with every member it sent; what it says before the result is `heard`.

        Raises:
            Broken: there was no answer.
            DownstreamRefusal: the answer was a JSON-RPC error.
        """
        number = f"call-{next(self._ids)}"
        body = strict_json.dump({"jsonrpc": "2.0", "id": number, "method": method, "params": params})
        try:
            async with self._client.post(self._url, data=body, headers=headers, allow_redirects=False) as response:
                return _result(await _message(response, heard), number)
        except _NOT_SENT as error:
            raise Broken(f"it cannot be reached ({type(error).__name__})", sent=False) from None
        except (aiohttp.ClientError, OSError) as error:
            raise Broken(f"the connection broke ({type(error).__name__})", sent=True) from None


@asynccontextmanager
async def direct_calls(url: str, headers: Mapping[str, str], tls: SSLContext) -> AsyncIterator[DirectCalls]:
    """The pool is open; every request has the operator's `headers`."""
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=_CONNECTIONS, ssl=tls),
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={
            **headers,
            "accept": "application/json, text/event-stream",
            "accept-encoding": "identity",  # so that a bound on bytes is a bound on memory
            "content-type": "application/json",
        },
        timeout=_TIMEOUT,
        auto_decompress=False,
    ) as client:
        yield DirectCalls(url, client)


async def _message(response: aiohttp.ClientResponse, heard: Heard) -> Any:
    """Return the message that answers the request, not yet known to be one."""
    kind = response.headers.get("content-type", "").lower()
    if response.headers.get("content-encoding", "identity") != "identity":
        raise Broken("its answer is compressed although it was asked not to", sent=True)
    if response.status >= 400:
        raise _refused(response.status, kind, await _body(response))
    if response.status == 202:
        raise Broken("it accepted the request without answering it", sent=True)
    if response.status >= 300:
        raise Broken("it answered with a redirect to another place", sent=True)
    if kind.startswith("application/json"):
        return _parsed(await _body(response))
    if not kind.startswith("text/event-stream"):
        raise Broken("its answer is neither JSON nor an event stream", sent=True)
    async for data in _events(response):
        message = _parsed(data)
        if not isinstance(message, dict) or "method" not in message:
            return message
        if "id" not in message and isinstance(message["method"], str):  # this revision has no requests of a server
            params = message.get("params")
            heard(message["method"], params if isinstance(params, dict) else {})
    raise Broken("its answer stream ended without an answer", sent=True)


def _result(message: Any, number: str) -> dict[str, Any]:
    """Return the result in a JSON-RPC response to this request (JSON-RPC 2.0 section 5)."""
    if not isinstance(message, dict) or message.get("jsonrpc") != "2.0":
        raise Broken(_NO_MESSAGE, sent=True)
    if "error" in message and message.get("id") in (number, None):
        raise _failure(message["error"])
    result = message.get("result")
    if message.get("id") != number or not isinstance(result, dict):
        raise Broken(_NO_MESSAGE, sent=True)
    return result


def _refused(status: int, kind: str, body: bytes) -> Broken | DownstreamRefusal:
    """Return what an HTTP error means: a JSON-RPC error of the server's, a wrong credential, or an outage."""
    if kind.startswith("application/json"):
        try:
            message = from_json(body, allow_inf_nan=False)
        except ValueError:
            message = None
        if isinstance(message, dict) and "error" in message:
            return _failure(message["error"])
    if status in (401, 403):
        return Broken(f"it refuses the gateway's credential (HTTP {status})", sent=False)
    if status == 404:
        return DownstreamRefusal(METHOD_NOT_FOUND, "Not Found")
    return Broken(f"it answered HTTP {status}", sent=True)


def _failure(error: Any) -> Broken | DownstreamRefusal:
    try:
        return failure(ErrorData.model_validate(error))
    except ValidationError:
        return Broken(_NO_MESSAGE, sent=True)


def _parsed(data: bytes) -> Any:
    try:
        return from_json(data, allow_inf_nan=False)
    except ValueError:
        raise Broken(_NO_MESSAGE, sent=True) from None


async def _body(response: aiohttp.ClientResponse) -> bytes:
    body = b""
    async for chunk in response.content.iter_any():
        body = body + chunk if body else chunk
        if len(body) > ANSWER_BYTES:
            raise Broken(_TOO_LARGE, sent=True)
    return body


async def _events(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Return the data of each event of type `message` (WHATWG HTML section 9.2.6)."""
    data, kind = bytearray(), b"message"
    async for line in _lines(response):
        name, _, value = line.partition(b":")
        match name:
            case b"data":
                data += value.removeprefix(b" ") + b"\n"
                if len(data) > ANSWER_BYTES:
                    raise Broken(_TOO_LARGE, sent=True)
            case b"event":
                kind = value.removeprefix(b" ")
            case b"" if not line:
                if data and kind == b"message":
                    yield bytes(data[:-1])
                data, kind = bytearray(), b"message"


async def _lines(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Return the lines of the stream, in time that is linear in their length."""
    parts: list[bytes] = []
    size = 0
    async for chunk in response.content.iter_any():
        *whole, rest = chunk.replace(b"\r\n", b"\n").split(b"\n")
        for line in whole:
            yield (b"".join(parts) + line).rstrip(b"\r")
            parts, size = [], 0
        parts.append(rest)
        size += len(rest)
        if size > ANSWER_BYTES:
            raise Broken(_TOO_LARGE, sent=True)
