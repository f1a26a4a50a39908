"""A receiver of webhooks: a real server on loopback that writes down what it gets, and answers as it is told."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import httpx2
from anyio.streams.tls import TLSListener

from mcp_authz.rules.webhook_signature import make_secret, read_secret, signed_headers
from tests.oauth.elsewhere import HERE, _certificates
from tests.world import World

FAST = tuple(timedelta(milliseconds=20) for _ in range(4))


@dataclass(frozen=True)
class Post:
    """One request."""

    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Receiver:
    """What listens, what came, and what is answered."""

    port: int
    scheme: str = "http"
    posts: list[Post] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)  # status lines with further headers; afterwards `204 No Content`
    connections: int = 0
    came: anyio.Event = field(default_factory=anyio.Event)
    serve_with: Callable[[Any], Awaitable[None]] | None = None

    def path_of(self, number: int) -> str:
        return self.posts[number].path

    def url(self, path: str = "/hook") -> str:
        return f"{self.scheme}://localhost:{self.port}{path}"

    async def got(self, count: int) -> list[Post]:
        """So many requests, as soon as they are here."""
        with anyio.fail_after(10):
            while len(self.posts) < count:
                self.came = anyio.Event()
                await self.came.wait()
        return self.posts

    async def serve(self, stream: anyio.abc.ByteStream) -> None:
        self.connections += 1
        async with stream:
            if self.serve_with is not None:
                await self.serve_with(stream)
                return
            read = b""
            while b"\r\n\r\n" not in read:
                read += await stream.receive()
            head, _, body = read.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
            while len(body) < int(headers.get("content-length", "0")):
                body += await stream.receive()
            self.posts.append(Post(path=first.split()[1], headers=headers, body=body))
            answer = self.answers.pop(0) if self.answers else "204 No Content"
            await stream.send(f"HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())
            self.came.set()


@asynccontextmanager
async def receiver(serving: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
    """A receiver that listens; with TLS where it is given what to serve with."""
    (raw,) = (await anyio.create_tcp_listener(local_host=HERE)).listeners
    listener: Any = raw if serving is None else TLSListener(raw, serving, standard_compatible=False)
    made = Receiver(port=raw.extra(anyio.abc.SocketAttribute.local_port), scheme="https" if serving else "http")  # noqa: S610
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, made.serve)
        yield made
        group.cancel_scope.cancel()


def certificates(directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What a receiver by the name of `agents.example.com` serves with, and what trusts it."""
    return _certificates(directory)


def secret(directory: Path, name: str, seed: int = 1) -> str:
    """A file with a secret that only its owner may read; returns its path."""
    path = directory / name
    path.write_text(make_secret(bytes([seed]) * 32) + "\n")
    path.chmod(0o600)
    return str(path)


def answering(directory: Path, url: str, **more: Any) -> dict[str, Any]:
    """The configuration of a webhook that may answer."""
    return {
        "url": url,
        "tells": "everything",
        "secret_file": secret(directory, "out.whsec", 1),
        "callback_secret_file": secret(directory, "back.whsec", 2),
        **more,
    }


@dataclass
class Bot:
    """Whoever has the secret of a webhook's answers, and sends some."""

    w: World
    name: str = "team"
    seed: int = 2

    async def send(
        self,
        body: Any,
        *,
        message_id: str = "msg_1",
        at: datetime | None = None,
        headers: Any = None,
        sent: bytes | None = None,
    ) -> httpx2.Response:
        """The answer to a signed request; `sent` is what is sent instead of what was signed."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        key = read_secret(make_secret(bytes([self.seed]) * 32))
        signed = signed_headers(key, message_id=message_id, at=at or self.w.clock(), body=raw)
        lines = [("content-type", "application/json"), *signed.items()] if headers is None else headers
        url = f"{self.w.config.public_url}/webhooks/{self.name}/verdict"
        async with httpx2.AsyncClient(timeout=10) as http:
            return await http.post(url, content=raw if sent is None else sent, headers=lines)
