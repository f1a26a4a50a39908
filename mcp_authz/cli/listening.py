"""How the gateway listens: uvicorn, a request's head bounded in size and time, and no log line that strangers cause."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import anyio
import uvicorn
from anyio.abc import TaskStatus
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mcp_authz import limits


def listening(app: ASGIApp, **where: Any) -> uvicorn.Config:
    """The one configuration under which the gateway serves; `where` is host and port, and how long a stop may take."""
    return uvicorn.Config(
        app,
        http=BoundedHead,
        ws="none",
        # Below `error` uvicorn writes a line for every request that is no HTTP: a stranger could fill a disk with them.
        log_level="error",
        access_log=False,
        server_header=False,
        # No proxy headers: the peer is who connects, never who a header names.
        proxy_headers=False,
        **where,
    )


class BoundedHead(HttpToolsProtocol):
    """HTTP/1.1 whose request head (request line and headers) must be complete before it is large or late.

    The parser would collect headers without end, and no timer of uvicorn's runs before the first request is complete.
    """

    _late: asyncio.TimerHandle | None = None
    _head = 0  # bytes of a head that is not complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # asyncio does not where the listening socket has no protocol number, and then each answer takes 40 ms more.
        connected = transport.get_extra_info("socket")
        if connected is not None and connected.family in {socket.AF_INET, socket.AF_INET6}:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forget_head()
        super().connection_lost(exc)

    def on_headers_complete(self) -> None:
        self._forget_head()
        super().on_headers_complete()

    def data_received(self, data: bytes) -> None:
        before, in_body = self.cycle, self._is_answering() and self.cycle.more_body
        super().data_received(data)
        if self.cycle is not before or in_body or self.transport.is_closing():
            return  # what was received completed a head, or belongs to a body that is read
        self._head += len(data)
        if not self._is_answering():
            self._expect_head()
        if self._head > limits.HEAD_BYTES:
            self.send_400_response("The headers are too large.")

    def shutdown(self) -> None:
        """What is answered now is answered to its end, if it has one; called when the gateway is told to stop."""
        if self._is_answering() and _is_endless(self.scope["method"], self.scope["headers"]):
            self.transport.close()
        super().shutdown()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _expect_head(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(limits.HEAD_TIME.total_seconds(), self._give_up)

    def _forget_head(self) -> None:
        self._head = 0
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _give_up(self) -> None:
        self._late = None
        if not self.transport.is_closing():
            self.send_400_response("The headers took too long.")


def _is_endless(method: str, headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """Whether a request asks for a stream of news, as pages and clients of 2025-11-25 do: they come again unasked."""
    return method == "GET" and any(name == b"accept" and b"text/event-stream" in value for name, value in headers)


class Server(uvicorn.Server):
    """Leaves the process's signals to `Stop`: uvicorn would end the process by them, with everything still open."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing is captured."""
        yield


class Stop:
    """Ends a gateway by SIGTERM, Ctrl-C or for want of use: what runs is waited for, a second signal does not wait."""

    def __init__(self, start: anyio.CancelScope) -> None:
        self._start = start  # what is given up when the server does not serve yet
        self._server: Server | None = None
        self._before: Callable[[], None] = lambda: None

    def asks(self, server: Server, *, before: Callable[[], None]) -> None:
        """From now on this server is asked to end, and `before` is called just before that."""
        self._server, self._before = server, before

    def __call__(self) -> None:
        """The gateway ends."""
        if self._server is None:
            self._start.cancel()
        else:
            self._before()
            self._server.force_exit = self._server.should_exit
            self._server.should_exit = True

    async def when_told(self, *, task_status: TaskStatus[None]) -> None:
        """Hear the signals, as long as the gateway runs."""
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async for _ in signals:
                self()


class Use:
    """An application that knows since when nobody uses it; an open stream is use."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._running = 0
        self._last = time.monotonic()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        self._running += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._running -= 1
            self._last = time.monotonic()

    async def tell_when_unused(self, idle: timedelta, tell: Stop) -> None:
        """Tell once nobody has used the application for so long."""
        while (left := idle.total_seconds() - self._unused()) > 0:  # noqa: ASYNC110 - until it is unused, not until told
            await anyio.sleep(left)
        tell()

    def _unused(self) -> float:
        """Seconds since the last use."""
        return 0.0 if self._running else time.monotonic() - self._last
