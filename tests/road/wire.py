"""A client without any SDK, in both eras: it sends what a test says and keeps every message as it came."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import anyio
import httpx2

from tests.world import MODERN, Actor, ClientActor, World, modern_call

HANDSHAKE = "2025-11-25"
SOON = 20.0  # seconds; every wait is bounded by it


@dataclass
class Reply:
    """One response while it arrives: its status and headers are here, messages follow."""

    response: httpx2.Response
    messages: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._read, self._chunks = b"", self.response.aiter_bytes()

    @property
    def status(self) -> int:
        return self.response.status_code

    @property
    def challenge(self) -> str:
        return str(self.response.headers.get("www-authenticate", ""))

    async def arriving(self) -> AsyncIterator[dict[str, Any]]:
        """Every further message of the body, as it arrives."""
        if self.response.is_closed:
            return
        if not self.response.headers.get("content-type", "").startswith("text/event-stream"):
            raw = await self.response.aread()
            if raw:
                self.messages.append(json.loads(raw))
                yield self.messages[-1]
            return
        async for line in self._lines():
            if line.startswith(b"data:") and line[5:].strip():
                self.messages.append(json.loads(line[5:]))
                yield self.messages[-1]

    async def _lines(self) -> AsyncIterator[bytes]:
        """The lines of an event stream, which end with CR and LF and nothing else (not with U+2028)."""
        while True:
            line, found, rest = self._read.partition(b"\n")
            if found:
                self._read = rest
                yield line.rstrip(b"\r")
                continue
            chunk = await anext(self._chunks, None)
            if chunk is None:
                return
            self._read += chunk

    async def next(self, method: str) -> dict[str, Any]:
        """The parameters of the next notification of this method."""
        with anyio.fail_after(SOON):
            async for message in self.arriving():
                if message.get("method") == method:
                    return dict(message["params"])
        raise AssertionError(f"no {method} in {self.messages}")

    async def end(self) -> dict[str, Any]:
        """The response itself, once the body has ended."""
        with anyio.fail_after(SOON):
            async for _ in self.arriving():
                pass
        answers = [message for message in self.messages if "method" not in message]
        assert len(answers) == 1, self.messages
        return answers[0]

    async def result(self) -> dict[str, Any]:
        """The result, when it is one."""
        answer = await self.end()
        return dict(answer["result"])

    def said(self, method: str) -> list[dict[str, Any]]:
        """The parameters of the notifications of this method so far."""
        return [message["params"] for message in self.messages if message.get("method") == method]


@dataclass
class Wire:
    """One client with one access token, in one era."""

    url: str
    mode: str
    http: httpx2.AsyncClient
    headers: dict[str, str]
    numbers: count[int] = field(default_factory=lambda: count(1))

    @asynccontextmanager
    async def send(self, method: str, params: dict[str, Any] | None = None, **more: Any) -> AsyncIterator[Reply]:
        """One request on its way; the body of the `with` runs once status and headers are here."""
        body: dict[str, Any] = {"jsonrpc": "2.0", "id": next(self.numbers), "method": method}
        body |= {} if params is None else {"params": params}
        async with self.post(body, **more) as reply:
            yield reply

    @asynccontextmanager
    async def post(self, body: dict[str, Any], **headers: str) -> AsyncIterator[Reply]:
        """One message as it stands."""
        lines = {**self.headers, **headers}
        async with self.http.stream("POST", self.url, content=json.dumps(body).encode(), headers=lines) as response:
            yield Reply(response)

    @asynccontextmanager
    async def calling(
        self, tool: str, arguments: Any, *, meta: Any = None, capabilities: Any = None, **params: Any
    ) -> AsyncIterator[Reply]:
        """One `tools/call` on its way."""
        if self.mode == MODERN:
            body = modern_call(tool, arguments, meta=meta, capabilities=capabilities, **params)
            body["id"] = next(self.numbers)
            names = {"mcp-protocol-version": MODERN, "mcp-method": "tools/call", "mcp-name": tool}
            async with self.post(body, **names) as reply:
                yield reply
            return
        params = {"name": tool, "arguments": arguments, **({"_meta": meta} if meta else {}), **params}
        async with self.send("tools/call", params) as reply:
            yield reply

    async def call(self, tool: str, arguments: Any = None, **more: Any) -> Reply:
        """One whole `tools/call`; `messages` has everything that came."""
        async with self.calling(tool, arguments or {}, **more) as reply:
            with anyio.fail_after(SOON):
                async for _ in reply.arriving():
                    pass
        return reply

    async def ask(self, method: str, params: dict[str, Any] | None = None) -> Reply:
        """One whole request of another method."""
        if self.mode == MODERN:
            meta = modern_call("", {})["params"]["_meta"]
            names = {"mcp-protocol-version": MODERN, "mcp-method": method}
            sending = self.send(method, {**(params or {}), "_meta": meta}, **names)
        else:
            sending = self.send(method, params)
        async with sending as reply:
            with anyio.fail_after(SOON):
                async for _ in reply.arriving():
                    pass
        return reply

    async def tell(self, method: str, params: dict[str, Any]) -> int:
        """One notification; the HTTP status."""
        async with self.post({"jsonrpc": "2.0", "method": method, "params": params}) as reply:
            return reply.status


@asynccontextmanager
async def wire(
    w: World, actor: Actor | ClientActor, mode: str, scope: str | None = None, **capabilities: Any
) -> AsyncIterator[Wire]:
    """A client that has its token, and its session where the era has one."""
    token = await w.token(actor, scope)
    headers = {
        "authorization": f"Bearer {token}",
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
    }
    async with httpx2.AsyncClient(timeout=SOON) as http:
        client = Wire(url=w.url, mode=mode, http=http, headers=headers)
        if mode != MODERN:
            hello = {
                "protocolVersion": HANDSHAKE,
                "capabilities": capabilities,
                "clientInfo": {"name": "wire", "version": "1"},
            }
            async with client.send("initialize", hello) as reply:
                assert reply.status == 200, await reply.response.aread()
                await reply.result()
                session = reply.response.headers["mcp-session-id"]
            client.headers |= {"mcp-session-id": session, "mcp-protocol-version": HANDSHAKE}
            assert await client.tell("notifications/initialized", {}) == 202
        yield client
