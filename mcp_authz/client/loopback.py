"""The redirect of a program on a person's own machine: a browser is opened, and one answer received (RFC 8252).

`http://127.0.0.1:PORT/callback` listens only while somebody is awaited, and takes only the answer to what was asked.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final

import anyio
import anyio.to_thread
from anyio.abc import SocketAttribute, SocketStream

from mcp_authz.client.code_flow import is_answer
from mcp_authz.client.door import SignInRefused

_PATH: Final = "/callback"
_REQUEST: Final = 16 * 1024  # bytes of a request; a browser's are smaller
_PATIENCE: Final = 10.0  # seconds for one request
_PAGE: Final = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>:root{{color-scheme:light dark}}
body{{font:1.1rem/1.6 system-ui,sans-serif;max-width:32rem;margin:18vh auto;padding:0 1rem}}</style>
<h1>{title}</h1><p>{text}</p></html>"""
_THANKS: Final = _PAGE.format(
    title="Thank you", text="You can close this window. The program that sent you here goes on."
)
_OTHER: Final = _PAGE.format(title="Nothing here", text="This is not the answer that is waited for. Start again there.")
_LINES: Final = (
    "Content-Type: text/html; charset=utf-8\r\nCache-Control: no-store\r\nReferrer-Policy: no-referrer\r\n"
    "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'\r\n"
    "X-Content-Type-Options: nosniff\r\nConnection: close\r\n"
)

Opener = Callable[[str], object]
"""Shows a URL to a person."""


def browser(url: str) -> None:
    """The person's browser shows the URL, where there is one, and it is printed on stderr in any case.

    Without a display none is opened: it would be one of text, and take the terminal.
    """
    import webbrowser

    sys.stderr.write(f"To sign in, open:\n\n  {url}\n\n")
    sys.stderr.flush()
    if sys.platform in {"darwin", "win32"} or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        with suppress(webbrowser.Error):
            webbrowser.open(url)


class Loopback:
    """Takes people to their browser and gets the answer at a port of this machine; a free one when `port` is 0."""

    def __init__(self, *, port: int = 0, seconds: float = 300, show: Opener = browser) -> None:
        self._port = port
        self._seconds = seconds
        self._show = show

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[Listening]:
        """An answer is waited for while the body runs.

        Raises:
            SignInRefused: the port is somebody else's.
        """
        try:
            listener = await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=self._port)
        except OSError as error:
            raise SignInRefused(f"port {self._port} cannot be listened at: {error.strerror}") from None
        async with listener:
            port = listener.extra(SocketAttribute.local_port)  # noqa: S610 - of anyio, not of Django
            yield Listening(listener, f"http://127.0.0.1:{port}{_PATH}", self._seconds, self._show)


class Listening:
    """A port at which an answer comes in."""

    def __init__(self, listener: anyio.abc.Listener[SocketStream], uri: str, seconds: float, show: Opener) -> None:
        self.uri = uri
        self._listener = listener
        self._seconds = seconds
        self._show = show
        self._state = ""
        self._came = anyio.Event()
        self._answer = ""

    async def answer(self, url: str, state: str) -> str:
        """Return the URL that the person was sent back to, after they were shown `url`.

        Whatever has another state is told so, and changes nothing.

        Raises:
            SignInRefused: they did not come back in time.
        """
        self._state = state
        with anyio.move_on_after(self._seconds):
            async with anyio.create_task_group() as group:
                group.start_soon(self._listener.serve, self._visited)
                await anyio.to_thread.run_sync(self._show, url, abandon_on_cancel=True)
                await self._came.wait()
                group.cancel_scope.cancel()
        if not self._answer:
            raise SignInRefused(f"nobody came back from the browser within {self._seconds:.0f} seconds; sign in again")
        return self._answer

    async def _visited(self, stream: SocketStream) -> None:
        async with stream:
            with anyio.move_on_after(_PATIENCE), suppress(OSError, anyio.BrokenResourceError, anyio.EndOfStream):
                method, path = await _request_line(stream)
                is_ours = method == "GET" and path.partition("?")[0] == _PATH and is_answer(self._state, path)
                status, page = ("200 OK", _THANKS) if is_ours else ("404 Not Found", _OTHER)
                body = page.encode()
                head = f"HTTP/1.1 {status}\r\n{_LINES}Content-Length: {len(body)}\r\n\r\n"
                with anyio.CancelScope(shield=True), anyio.move_on_after(1):
                    await stream.send(head.encode() + body)
                    await stream.send_eof()
                if is_ours and not self._came.is_set():
                    self._answer = f"{self.uri.removesuffix(_PATH)}{path}"
                    self._came.set()


async def _request_line(stream: SocketStream) -> tuple[str, str]:
    """The method and the target of an HTTP request, once it has come whole; of something else, nothing."""
    raw = b""
    while b"\r\n\r\n" not in raw:
        if len(raw) > _REQUEST:
            return "", ""
        raw += await stream.receive(_REQUEST)
    words = raw.partition(b"\r\n")[0].decode("ascii", "replace").split(" ")
    return (words[0], words[1]) if len(words) == 3 and words[1].startswith("/") else ("", "")
