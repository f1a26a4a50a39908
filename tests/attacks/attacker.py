"""What an attacker has: a tool server of their own, raw sockets, and the handshake era spoken by hand."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import anyio
import httpx2

from tests.world import ENVELOPE, World

SPY = Path(__file__).parent.parent / "servers" / "spy.py"
LEGACY_VERSION = "2025-11-25"
SOON = 20.0


@dataclass(frozen=True)
class Spy:
    """A tool server of the attacker's, and what it saw."""

    directory: Path

    @property
    def heard(self) -> bytes:
        """Every byte it was given."""
        path = self.directory / "heard"
        return path.read_bytes() if path.exists() else b""

    @property
    def ran(self) -> list[Any]:
        """The calls that really ran: tool and arguments."""
        path = self.directory / "ran"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def lists(self, *tools: Mapping[str, Any]) -> None:
        """From now on it lists these tools."""
        (self.directory / "tools.json").write_text(json.dumps(tools))

    def config(self, **more: Any) -> dict[str, Any]:
        """The server entry by which a gateway starts it as a child process."""
        return {"command": [sys.executable, str(SPY), str(self.directory)], "cwd": str(self.directory), **more}


def tool(name: str, **more: Any) -> dict[str, Any]:
    """A tool's definition."""
    return {"name": name, "description": f"does {name}", "inputSchema": {"type": "object"}, **more}


def spy(directory: Path, *tools: Mapping[str, Any]) -> Spy:
    """A tool server of the attacker's that keeps its files in `directory`."""
    directory.mkdir(parents=True, exist_ok=True)
    server = Spy(directory)
    server.lists(*tools)
    return server


@contextmanager
def serving(server: Spy) -> Iterator[str]:
    """The URL at which the spy serves over HTTP."""
    command = [sys.executable, str(SPY), str(server.directory), "http"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/mcp"
        finally:
            process.kill()


@dataclass
class Handshake:
    """A session of the handshake era, spoken by hand."""

    http: httpx2.AsyncClient
    url: str
    headers: dict[str, str]
    session: str = ""
    ids: Iterator[int] = field(default_factory=lambda: count(7))

    async def send(self, body: Mapping[str, Any] | bytes, **headers: str) -> httpx2.Response:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = {**self.headers, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return await self.http.post(self.url, content=raw, headers=lines)

    async def request(self, method: str, params: Mapping[str, Any] | None = None, **headers: str) -> dict[str, Any]:
        """The message that answers one request."""
        body = {"jsonrpc": "2.0", "id": next(self.ids), "method": method, "params": dict(params or {})}
        return answer_in(await self.send(body, **headers))

    async def call(self, tool: str, arguments: Any, **params: Any) -> dict[str, Any]:
        """The message that answers one call."""
        return await self.request("tools/call", {"name": tool, "arguments": arguments, **params})


def answer_in(response: httpx2.Response) -> dict[str, Any]:
    """The JSON-RPC answer in a response, whether it is JSON or a stream."""
    if response.headers["content-type"].startswith("text/event-stream"):
        data = [line[6:] for line in re.split("\r\n|\r|\n", response.text) if line.startswith("data: ")]
        answers = [message for part in data if part and "id" in (message := json.loads(part))]
        answer: dict[str, Any] = answers[-1]
        return answer
    body: dict[str, Any] = response.json()
    return body


def reason(answer: Mapping[str, Any]) -> str:
    """Why a call was denied, whether a result or an error says it."""
    said: Any = answer["error"]["data"] if "error" in answer else answer["result"]["_meta"][ENVELOPE]
    return str(said["reason"])


@asynccontextmanager
async def handshake(w: World, token: str, *, capabilities: Any = None, **headers: str) -> AsyncIterator[Handshake]:
    """An initialized session of the handshake era."""
    lines = {
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "authorization": f"Bearer {token}",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    async with httpx2.AsyncClient(timeout=SOON) as http:
        session = Handshake(http, w.url, lines)
        params = {
            "protocolVersion": LEGACY_VERSION,
            "capabilities": capabilities or {},
            "clientInfo": {"name": "attacker", "version": "1"},
        }
        opened = await session.send({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params})
        assert opened.status_code == 200, opened.text
        session.session = opened.headers["mcp-session-id"]
        lines |= {"mcp-session-id": session.session, "mcp-protocol-version": LEGACY_VERSION}
        await session.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        yield session


async def spoken(w: World, raw: bytes, *, then: bytes = b"", until: float = SOON) -> bytes:
    """Everything that the gateway says to these bytes until it closes or stops talking."""
    port = int(w.config.public_url.rpartition(":")[2])
    said = b""
    async with await anyio.connect_tcp("127.0.0.1", port) as stream:
        with anyio.move_on_after(until):
            try:
                await stream.send(raw)
                if then:
                    await stream.send(then)
                while not complete(said):
                    said += await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                pass
    return said


def complete(said: bytes) -> bool:
    """Whether one whole response has been read."""
    head, gap, body = said.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if gap and line.startswith(b"content-length:"):
            return len(body) >= int(line.split(b":")[1])
    return bool(gap) and body.endswith(b"0\r\n\r\n")


def status_of(said: bytes) -> int:
    """The status of a response."""
    return int(said.split(b" ", 2)[1])


async def until(condition: Callable[[], Awaitable[Any]]) -> None:
    """Return once the condition holds; for what another process or a task of the gateway does by and by."""
    with anyio.fail_after(SOON):
        while not await condition():  # noqa: ASYNC110 - what is waited for has no event that could be seen from here
            await anyio.sleep(0.01)
