"""How the gateway listens: uvicorn, a request's head bounded in size and time, and no log line that strangers cause."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import uvicorn
from starlette.types import ASGIApp
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
