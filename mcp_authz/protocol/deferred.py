"""Responses between the SDK and the client: one waits for the decision, one is ended where the SDK was stopped.

The SDK would say 200 before anybody knows, and a challenge needs 401 or 403.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
from starlette.types import Message, Send

from mcp_authz.protocol.answers import Error
from mcp_authz.protocol.channel import dump


class Deferred:
    """Stands between the SDK and the client for one call: an event stream begins only once it is released."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._decided = anyio.Event()
        self._refusal: tuple[Error, Any] | None = None
        self._replaced = False
        self._gone = False
        self._when_gone: list[Callable[[], None]] = []

    def over(self) -> None:
        """Nobody reads the response any more: its client has it, or has gone away."""
        self._gone = True
        for do in self._when_gone:
            do()

    def when_gone(self, do: Callable[[], None]) -> None:
        """Have this done when the response is over; at once, if it is."""
        self._when_gone.append(do)
        if self._gone:
            do()

    async def release(self) -> None:
        """Let the SDK's response through from here on."""
        self._decided.set()

    def refuse(self, error: Error, *, request_id: Any) -> bool:
        """Whether the response will be this error with its HTTP status; False when it has begun already."""
        if self._decided.is_set():
            return False
        self._refusal = (error, request_id)
        self._decided.set()
        return True

    async def __call__(self, message: Message) -> None:
        """The SDK's `send`."""
        if self._replaced:
            return
        if message["type"] == "http.response.start" and _is_stream(message):
            await self._decided.wait()
            if self._refusal is not None:
                self._replaced = True
                await self._write(*self._refusal)
                return
        await self._send(message)

    async def _write(self, error: Error, request_id: Any) -> None:
        body = {"jsonrpc": "2.0", "id": request_id, "error": {"code": error.code, "message": error.message}}
        if error.data is not None:
            body["error"]["data"] = error.data
        headers = [(b"content-type", b"application/json")]
        if error.challenge is not None:
            headers.append((b"www-authenticate", error.challenge.encode("latin-1")))
        await self._send({"type": "http.response.start", "status": error.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": dump(body), "more_body": False})


class Ending:
    """Passes a response on, so that one that is cut off in the middle can be ended as if it were whole."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._begun = self._over = False

    async def __call__(self, message: Message) -> None:
        """The `send` of whoever responds."""
        self._begun = True
        self._over = message["type"] == "http.response.body" and not message.get("more_body", False)
        await self._send(message)

    async def end(self) -> None:
        """The response is over, also where whoever responded was stopped."""
        if self._begun and not self._over:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})


def _is_stream(message: Message) -> bool:
    return message["status"] == 200 and any(
        name.lower() == b"content-type" and value.startswith(b"text/event-stream") for name, value in message["headers"]
    )
