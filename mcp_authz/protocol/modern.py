"""Calls of 2026-07-28, read and answered by ASGI itself: the path that most calls take."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any, Final

import anyio
from starlette.types import Receive, Send

from mcp_authz.errors import StoreError
from mcp_authz.gateway import Gateway
from mcp_authz.principals import Caller
from mcp_authz.protocol.answers import BROKEN, Answer, Error, Places, Result, answer, in_stream, unavailable
from mcp_authz.protocol.channel import ModernChannel, dump, sse
from mcp_authz.protocol.reading import Read
from mcp_authz.rules.message import Message
from mcp_authz.seldom import trouble

log = logging.getLogger(__name__)

SERVER_INFO: Final = "io.modelcontextprotocol/serverInfo"
READ: Final = "resources/read"
PING_SECONDS: Final = 15.0  # a proxy that sees nothing for longer may close the stream

_SSE_HEADERS: Final = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]


class Exchange:
    """One request and its response: JSON until the decision stands, a stream from then on."""

    def __init__(self, read: Read, send: Send, *, server_info: Mapping[str, Any]) -> None:
        self.read = read
        self._send = send
        self._server_info = server_info
        self._streams = "text/event-stream" in read.headers.get("accept", "")
        self._committed = False
        self._finished = False
        self._lock = asyncio.Lock()

    async def commit(self) -> None:
        """The status is 200 and the client knows it; only a client that takes streams is told before the answer."""
        if self._streams and not self._committed:
            self._committed = True
            await self._send({"type": "http.response.start", "status": 200, "headers": _SSE_HEADERS})

    async def emit(self, message: Mapping[str, Any]) -> None:
        """Send one message ahead of the answer."""
        if self._streams:
            async with self._lock:
                await self.commit()
                await self._send({"type": "http.response.body", "body": sse(message), "more_body": True})

    async def ping(self) -> None:
        """Write a comment while the stream is open."""
        async with self._lock:
            if self._committed and not self._finished:
                await self._send({"type": "http.response.body", "body": b": ping\r\n\r\n", "more_body": True})

    async def finish(self, said: Answer) -> None:
        """Send the answer and end the response."""
        async with self._lock:
            self._finished = True
            if self._committed:
                body = self._body(in_stream(said, self.read.message) if isinstance(said, Error) else said)
                await self._send({"type": "http.response.body", "body": sse(body), "more_body": False})
                return
            status = said.status if isinstance(said, Error) else 200
            headers = [(b"content-type", b"application/json")]
            if isinstance(said, Error) and said.challenge is not None:
                headers.append((b"www-authenticate", said.challenge.encode("latin-1")))
            await self._send({"type": "http.response.start", "status": status, "headers": headers})
            await self._send({"type": "http.response.body", "body": dump(self._body(said)), "more_body": False})

    def _body(self, said: Answer) -> dict[str, Any]:
        envelope: dict[str, Any] = {"jsonrpc": "2.0", "id": self.read.message.id}
        match said:
            case Result(result=result):
                meta = result.get("_meta")
                stamped = {**(meta if isinstance(meta, dict) else {}), SERVER_INFO: self._server_info}
                whole = {"resultType": "complete", **result, "_meta": stamped}
                return {**envelope, "result": cacheable(whole) if self.read.message.method == READ else whole}
            case Error(code=code, message=message, data=data):
                error = {"code": code, "message": message}
                return {**envelope, "error": error if data is None else {**error, "data": data}}


def cacheable(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """What was read, with the two members that this revision demands and older servers do not send.

    Whatever its server says of it, it is for this caller only: the next one may not be permitted to read it.
    """
    if result["resultType"] != "complete":
        return result
    return {"ttlMs": 0, **result, "cacheScope": "private"}


async def serve_call(gateway: Gateway, caller: Caller, exchange: Exchange, receive: Receive, *, places: Places) -> None:
    """One request that reaches a tool server is answered; when the client goes away, the call is cancelled."""
    message = exchange.read.message
    channel = ModernChannel(exchange.read, emit=exchange.emit, commit=exchange.commit)
    with anyio.CancelScope() as scope:
        watching = asyncio.get_running_loop().create_task(_watch(receive, exchange, channel, scope))
        try:
            await exchange.finish(await _said(gateway, caller, message, channel, places))
        finally:
            watching.cancel()


async def _said(gateway: Gateway, caller: Caller, message: Message, channel: ModernChannel, places: Places) -> Answer:
    try:
        return answer(await gateway.call(caller, message, channel), message, caller.token, places=places)
    except StoreError as error:
        trouble.error(error, "call refused, the store cannot be used: %s", error)
        return unavailable(error)
    except Exception:
        log.exception("call failed in the gateway itself")
        return BROKEN


async def _watch(receive: Receive, exchange: Exchange, channel: ModernChannel, scope: anyio.CancelScope) -> None:
    """Cancel the call when its client goes away; a client that stays hears something now and then."""
    try:
        while not await _is_gone(receive):
            await exchange.ping()
    except Exception as error:  # noqa: BLE001 - whoever can be told nothing, and cannot be listened to, is gone
        log.warning("a client cannot be reached any more: %s", type(error).__name__)
    channel.is_gone = True
    scope.cancel()


async def _is_gone(receive: Receive) -> bool:
    """Whether the client went away, once that is so or it was silent for long enough."""
    try:
        async with asyncio.timeout(PING_SECONDS):
            while (await receive())["type"] != "http.disconnect":
                pass
    except TimeoutError:
        return False
    return True
