"""A forwarder that adds one header to each request and changes nothing else: for clients that cannot carry a token.

The other way nothing is read, only copied. Where `Host` or `Origin` name the forwarder's own address they name the
gateway's afterwards, as a proxy in front of it would have it; any other value arrives as it was sent, to be refused.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

PIECE = 65536


@asynccontextmanager
async def forwarder(url: str, header: Callable[[], str]) -> AsyncIterator[str]:
    """The URL at which requests for `url` are taken; each gets the header line that `header` returns at that time."""
    there = urlsplit(url)
    here = ""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            back, out = await asyncio.open_connection("127.0.0.1", there.port)
            answers = asyncio.create_task(_copy(back, writer))
            try:
                while True:
                    head = await reader.readuntil(b"\r\n\r\n")
                    out.write(_changed(head, here, there.netloc, header()))
                    await _copy_body(head, reader, out)
            finally:
                out.close()
                await answers

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        here = f"localhost:{server.sockets[0].getsockname()[1]}"
        yield f"http://{here}{there.path}"


def _changed(head: bytes, here: str, there: str, header: str) -> bytes:
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    moved = (_moved(line, here.encode(), there.encode()) for line in lines)
    return b"\r\n".join([first, *moved, header.encode(), b"", b""])


def _moved(line: bytes, here: bytes, there: bytes) -> bytes:
    name, _, value = line.partition(b":")
    if name.lower() not in {b"host", b"origin"} or value.strip() not in {here, b"http://" + here}:
        return line
    return line.replace(here, there)


async def _copy_body(head: bytes, reader: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
    """The request's body goes on, as long as its head says that it is (RFC 9112 section 6.3)."""
    lines = (line.lower().partition(b":") for line in head.split(b"\r\n"))
    fields = {name: value.strip() for name, _, value in lines}
    if fields.get(b"transfer-encoding") == b"chunked":
        size = 1
        while size:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            out.write(line + await reader.readexactly(size + 2))
    else:
        out.write(await reader.readexactly(int(fields.get(b"content-length", b"0"))))
    await out.drain()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(PIECE):
            writer.write(piece)
            await writer.drain()
    writer.close()
