"""A tool server behind Streamable HTTP, in either era; one pool of connections, and no header of any caller."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from contextvars import copy_context
from datetime import timedelta
from typing import Any, Final

import anyio
import httpx2
from mcp_types import METHOD_NOT_FOUND, ErrorData, JSONRPCError, jsonrpc_message_adapter
from pydantic import ValidationError

from mcp_authz.limits import ANSWER_BYTES, CALL_TIMEOUT, NOTICE_TIMEOUT, START_TIMEOUT, STOP_GRACE
from tool_adapters.calls import CURRENT, Call
from tool_adapters.connection import ConnectedDownstream
from tool_adapters.direct import DirectCalls, direct_calls
from tool_adapters.sdk import Session, Streams, Then, broken_answer, http_streams

_LIMITS: Final = httpx2.Limits(max_connections=512, max_keepalive_connections=32)
# Reading has no bound here: an event stream may be silent for long, and every call has a timeout of its own.
_TIMEOUT: Final = httpx2.Timeout(connect=10, write=30, pool=30, read=None)
_REQUEST: Final = re.compile(rb'\{"jsonrpc":"2\.0","id":[^,]+,"method":')  # as the SDK writes one
_NOT_SENT: Final = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol)
_SESSION: Final = "mcp-session-id"


class HttpDownstream(ConnectedDownstream):
    """A server at a URL, spoken to with `headers` of the operator's and none of anybody else's."""

    def __init__(
        self,
        name: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        *,
        start_timeout: timedelta = START_TIMEOUT,
        call_timeout: timedelta = CALL_TIMEOUT,
    ) -> None:
        super().__init__(name, start_timeout=start_timeout, call_timeout=call_timeout)
        self._url = url
        self._headers = dict(headers or {})
        self._client: httpx2.AsyncClient | None = None
        self._direct: DirectCalls | None = None

    @asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Connect and stay connected; the connections of all that happens meanwhile are pooled."""
        headers = {**self._headers, "accept-encoding": "identity"}  # so that a bound on bytes is a bound on memory
        tls = httpx2.create_ssl_context(trust_env=False)
        guard = _Guard(httpx2.AsyncHTTPTransport(verify=tls, limits=_LIMITS, trust_env=False))
        async with (
            direct_calls(self._url, self._headers, tls) as self._direct,
            httpx2.AsyncClient(headers=headers, transport=guard, timeout=_TIMEOUT, trust_env=False) as self._client,
            super().run(),
        ):
            yield

    def _open(self) -> AbstractAsyncContextManager[Streams]:
        assert self._client is not None  # noqa: S101 - `run` opened it
        return http_streams(self._url, self._client)

    async def _send(
        self, session: Session, method: str, params: Mapping[str, Any], headers: Mapping[str, str]
    ) -> dict[str, Any]:
        """Return the result to one request; a server of 2026-07-28 is asked without the SDK's transport."""
        if not session.modern or self._direct is None:
            return await super()._send(session, method, params, headers)
        stamped, lines = session.stamped(method, params, headers)
        return await self._direct.send(method, stamped, lines, self._heard)

    def _heard(self, method: str, params: Mapping[str, Any]) -> None:
        self._calls.heard(method, params, copy_context())


class _Guard(httpx2.AsyncBaseTransport):
    """A transport that answers every request, so that one which fails breaks nothing but itself.

    An exception in one POST would end the SDK's task group and with it every call; here it becomes an answer.
    """

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        call, bound = CURRENT.get(), None
        if request.method == "DELETE":
            call, bound = None, STOP_GRACE.total_seconds()
        elif request.method == "POST" and _REQUEST.match(request.content) is None:
            call, bound = None, NOTICE_TIMEOUT.total_seconds()  # a cancellation outlives its call, but not by much
        try:
            with call.lasting() if call is not None else nullcontext(), anyio.fail_after(bound):
                return await self._exchange(request, call)
        except _NOT_SENT as error:
            return _instead(f"it cannot be reached ({type(error).__name__})", sent=False, outage=True)
        except (httpx2.TransportError, TimeoutError) as error:
            return _instead(f"the connection broke ({type(error).__name__})", sent=True, outage=True)
        return _instead("its call is over", sent=True)

    async def _exchange(self, request: httpx2.Request, call: Call | None) -> httpx2.Response:
        response = await self._inner.handle_async_request(request)
        kind = response.headers.get("content-type", "").lower()
        if response.headers.get("content-encoding", "identity") != "identity":
            await response.aclose()
            return _instead("its answer is compressed although it was asked not to", sent=True)
        if response.status_code < 400 and not kind.startswith("application/json"):
            if call is not None and isinstance(response.stream, httpx2.AsyncByteStream):
                response.stream = _CallStream(response.stream, call)
            return response
        try:
            body = await _read(response)
        finally:
            await response.aclose()
        if body is None:
            return _instead(f"its answer is larger than {ANSWER_BYTES} bytes", sent=True)
        if response.status_code < 400:
            kept = {key: value for key, value in response.headers.items() if key in ("content-type", _SESSION)}
            return httpx2.Response(response.status_code, headers=kept, content=body)
        return _refused(request, response.status_code, kind, body)


def _refused(request: httpx2.Request, status: int, kind: str, body: bytes) -> httpx2.Response:
    """Return what an HTTP error means: a lost session, an outage, or a JSON-RPC error of the server's."""
    said = _rpc_error(kind, body)
    # 404 is what the standard says; many servers that follow the TypeScript examples say 400 with such a message.
    if _SESSION in request.headers and (status == 404 or (status == 400 and "session" in (said or "").lower())):
        return _instead("it has lost the session, which is being opened again", sent=False, then="reconnect")
    if said is not None:
        return httpx2.Response(status, headers={"content-type": "application/json"}, content=body)
    if status in (401, 403):
        return _instead(f"it refuses the gateway's credential (HTTP {status})", sent=False, outage=True)
    if status == 404:
        return _json(ErrorData(code=METHOD_NOT_FOUND, message="Not Found"))
    return _instead(f"it answered HTTP {status}", sent=True, outage=status in (502, 503, 504))


def _rpc_error(kind: str, body: bytes) -> str | None:
    """Return the message of the JSON-RPC error in a body, None if there is none."""
    if not kind.startswith("application/json"):
        return None
    try:
        message = jsonrpc_message_adapter.validate_json(body, by_name=False)
    except ValidationError:
        return None
    return message.error.message if isinstance(message, JSONRPCError) else None


def _instead(sentence: str, *, sent: bool, then: Then = "go on", outage: bool = False) -> httpx2.Response:
    return _json(broken_answer(sentence, sent=sent, then=then, outage=outage))


def _json(error: ErrorData) -> httpx2.Response:
    body = JSONRPCError(jsonrpc="2.0", id=None, error=error).model_dump_json(by_alias=True)
    return httpx2.Response(502, headers={"content-type": "application/json"}, content=body)


async def _read(response: httpx2.Response) -> bytes | None:
    """Return the whole body, or None if it is larger than an answer may be."""
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > ANSWER_BYTES:
            return None
    return bytes(body)


class _CallStream(httpx2.AsyncByteStream):
    """An event stream that ends with the call for whose sake it was opened, whatever the server does."""

    def __init__(self, inner: httpx2.AsyncByteStream, call: Call) -> None:
        self._inner = inner
        self._call = call

    async def __aiter__(self) -> AsyncIterator[bytes]:
        chunks = aiter(self._inner)
        while True:
            with self._call.lasting() as scope:
                chunk = await anext(chunks, None)
            if scope.cancelled_caught:
                raise httpx2.ReadError("its call is over")
            if chunk is None:
                return
            yield chunk

    async def aclose(self) -> None:
        await self._inner.aclose()
