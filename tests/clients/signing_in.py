"""A person in front of a browser who answers what a client asks, and the loopback address where clients listen."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import anyio

from tests.web.browser import Person

SOON = 20.0  # seconds; every wait is bounded by it


@dataclass
class Receiver:
    """Where a client on this computer is sent its answers."""

    url: str
    answers: asyncio.Queue[dict[str, str]] = field(default_factory=asyncio.Queue)

    async def answer(self) -> dict[str, str]:
        """The parameters of the next answer."""
        with anyio.fail_after(SOON):
            return await self.answers.get()


@asynccontextmanager
async def receiver(host: str = "127.0.0.1") -> AsyncIterator[Receiver]:
    """A loopback address that hears answers, and tells the browser that it can be closed."""
    heard = Receiver(url="")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        target = urlsplit(head.split(b" ")[1].decode())
        body = b"You can go back to the program."
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        await writer.drain()
        writer.close()
        if target.path == "/callback":
            heard.answers.put_nowait({name: values[0] for name, values in parse_qs(target.query).items()})

    async with await asyncio.start_server(serve, host, 0) as server:
        heard.url = f"http://{host}:{server.sockets[0].getsockname()[1]}/callback"
        yield heard


async def agree(them: Person, url: str) -> str:
    """The person opens what a client asked to be opened, reads it and agrees; returns what the page said."""
    await them.page.goto(url)
    await them.page.get_by_role("button", name="Agree").wait_for()
    shown = await them.page.locator("main").inner_text()
    await them.page.get_by_role("button", name="Agree").click()
    await them.page.wait_for_url("http://127.0.0.1:*/**")
    return shown
