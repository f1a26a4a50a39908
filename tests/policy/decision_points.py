"""Policy decision points as real servers on loopback: one that evaluates Rego, others with any answer at all."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest
from aiohttp import web
from anyio.streams.tls import TLSListener
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mcp_authz.policy.opa import OpaEngine
from mcp_authz.policy.remote import Pdp
from tests.policy.documents import document

SOON = Pdp(timeout=timedelta(seconds=5))  # for servers that answer: two busy cores are no time-out
SHORT = Pdp(timeout=timedelta(milliseconds=200))  # for those that do not

Wire = Callable[[anyio.abc.ByteStream, bytes], Awaitable[None]]


@dataclass
class DecisionPointServer:
    """Where it listens, and every request body that came."""

    base: str
    asked: list[dict[str, Any]] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)  # path and query


@asynccontextmanager
async def serving(
    answer: Callable[[DecisionPointServer, web.Request], Awaitable[web.Response]], port: int = 0
) -> AsyncIterator[DecisionPointServer]:
    """A well-behaved HTTP server with these answers."""
    server = DecisionPointServer(base="")

    async def handle(request: web.Request) -> web.Response:
        server.requests.append(request.path_qs)
        server.headers.append(dict(request.headers))
        if request.method == "POST":
            server.asked.append(await request.json())
        return await answer(server, request)

    app = web.Application(client_max_size=8 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port)
    await site.start()
    try:
        server.base = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield server
    finally:
        await runner.cleanup()


@asynccontextmanager
async def answering(value: Any, *, status: int = 200, **headers: str) -> AsyncIterator[DecisionPointServer]:
    """A server that answers everything with this JSON value."""

    async def answer(_: DecisionPointServer, request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.json_response({}, status=404)
        more = {name.replace("_", "-"): text for name, text in headers.items()}
        return web.json_response(value, status=status, headers=more)

    async with serving(answer) as server:
        yield server


@asynccontextmanager
async def rego(policy: str, *, revision: str = "", port: int = 0) -> AsyncIterator[DecisionPointServer]:
    """OPA's Data API over these Rego rules, evaluated for real; `revision` is what its one bundle has."""
    regopy = pytest.importorskip("regopy", reason="Rego needs regopy, which has no wheel for this system")
    rules = regopy.Interpreter()
    rules.add_module("policy", policy)

    async def answer(server: DecisionPointServer, request: web.Request) -> web.Response:
        rules.set_input(server.asked[-1]["input"])
        path = request.path.removeprefix("/v1/data/").replace("/", ".")
        found = rules.query(f"data.{path}").results
        told: dict[str, Any] = {"result": found[0].expressions[0]} if found and found[0].expressions else {}
        if revision and request.query.get("provenance") == "true":
            told["provenance"] = {"version": "1.0.0", "bundles": {"authz": {"revision": revision}}}
        return web.json_response(told)

    async with serving(answer, port) as server:
        yield server


@dataclass
class Socket:
    """A server of the test's own, byte by byte."""

    base: str
    connections: int = 0
    requests: int = 0

    async def heard(self, requests: int) -> None:
        """So many requests have come."""
        with anyio.fail_after(10):
            while self.requests < requests:  # noqa: ASYNC110 - bounded, and for a test alone
                await anyio.sleep(0.001)


@asynccontextmanager
async def on_the_wire(say: Wire, tls: ssl.SSLContext | None = None) -> AsyncIterator[Socket]:
    """A server that reads a whole request and then says what `say` does, again and again on each connection."""
    listener: Any = await anyio.create_tcp_listener(local_host="127.0.0.1")
    port = listener.extra(anyio.abc.SocketAttribute.local_port)  # noqa: S610
    socket = Socket(base=f"http://127.0.0.1:{port}" if tls is None else f"https://localhost:{port}")
    if tls is not None:
        listener = TLSListener(listener.listeners[0], tls, standard_compatible=False)

    async def serve(stream: anyio.abc.ByteStream) -> None:
        socket.connections += 1
        async with stream:
            try:
                while True:
                    request = await _request(stream)
                    socket.requests += 1
                    await say(stream, request)
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
                return  # who asked has had enough

    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, serve)
        yield socket
        group.cancel_scope.cancel()


def certificate(directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What a server on localhost serves with, and what trusts it and nobody else."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    file = directory / "localhost.pem"
    file.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + made.public_bytes(pem))
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(file)
    return serving, ssl.create_default_context(cadata=made.public_bytes(pem).decode())


async def _request(stream: anyio.abc.ByteStream) -> bytes:
    read = b""
    while b"\r\n\r\n" not in read:
        read += await stream.receive()
    head, _, body = read.partition(b"\r\n\r\n")
    lengths = [int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    while len(body) < sum(lengths):
        body += await stream.receive()
    return head + b"\r\n\r\n" + body


def http(body: bytes | Any, *, status: str = "200 OK", kind: str = "application/json", more: str = "") -> bytes:
    """The bytes of one ordinary answer."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(raw)}\r\n{more}\r\n".encode() + raw


def saying(*parts: bytes) -> Wire:
    """Says these bytes at once."""

    async def say(stream: anyio.abc.ByteStream, _: bytes) -> None:
        for part in parts:
            await stream.send(part)

    return say


@asynccontextmanager
async def opa(base: str, pdp: Pdp = SOON, path: str = "/v1/data/agent/authz/allow") -> AsyncIterator[OpaEngine]:
    """The OPA adapter for a server at `base`."""
    engine = OpaEngine(f"{base}{path}", pdp)
    try:
        yield engine
    finally:
        await engine.aclose()


async def says(value: Any, **changes: Any) -> Any:
    """What the OPA adapter makes of a server with this result."""
    async with answering({"result": value}) as server, opa(server.base) as engine:
        return await engine.evaluate(document(**changes))
