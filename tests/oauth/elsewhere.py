"""A host elsewhere: a real https server on loopback, with a certificate for a public name."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
from anyio.streams.tls import TLSListener
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from mcp_authz.fetching import Fetcher
from mcp_authz.rules.keys import PublicKey

NAME = "agents.example.com"
HERE = "127.0.0.1"

Answer = Callable[[anyio.abc.ByteStream], Awaitable[None]]


def plain(body: bytes, *, status: str = "200 OK", kind: str = "application/json", more: str = "") -> Answer:
    """An ordinary answer."""

    async def send(stream: anyio.abc.ByteStream) -> None:
        head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n{more}\r\n"
        await stream.send(head.encode() + body)

    return send


@dataclass
class Elsewhere:
    """The host, what it answers by path, and who came."""

    port: int
    trust: ssl.SSLContext
    answers: dict[str, Answer] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)  # the first line of each request, and its `host`
    connections: int = 0
    looked_up: list[str] = field(default_factory=list)

    def url(self, path: str = "/coder", name: str = NAME) -> str:
        """A URL of this host."""
        return f"https://{name}:{self.port}{path}"

    def fetcher(self, *addresses: str, **more: Any) -> Fetcher:
        """What fetches from here: the name has these addresses, and only this host's own counts as public."""

        async def resolve(host: str, _: int) -> Sequence[str]:
            self.looked_up.append(host)
            return addresses or (HERE,)

        return Fetcher(
            **{"resolve": resolve, "may_reach": lambda address: address == HERE, "trust": self.trust, **more}
        )

    def declare(self, *keys: PublicKey, path: str = "/coder", **changes: Any) -> str:
        """The host declares these keys from now on; returns the URL where it does."""
        body = {
            "client_id": self.url(path),
            "token_endpoint_auth_method": "private_key_jwt",
            "jwks": {"keys": [key.jwk for key in keys]},
            **changes,
        }
        kept = {name: value for name, value in body.items() if value is not None}
        self.answers[path] = plain(json.dumps(kept).encode())
        return self.url(path)

    async def serve(self, stream: anyio.abc.ByteStream) -> None:
        """Answer one request, and close."""
        self.connections += 1
        async with stream:
            read = b""
            while b"\r\n\r\n" not in read:
                read += await stream.receive()
            lines = read.decode().split("\r\n")
            host = next(line for line in lines if line.lower().startswith("host:"))
            self.asked.append(f"{lines[0]} {host.lower()}")
            answer = self.answers.get(lines[0].split()[1], plain(b"{}", status="404 Not Found"))
            try:
                await answer(stream)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                return  # who asked has had enough


@asynccontextmanager
async def elsewhere(directory: Path) -> AsyncIterator[Elsewhere]:
    """A host that serves."""
    serving, trusting = _certificates(directory)
    (raw,) = (await anyio.create_tcp_listener(local_host=HERE)).listeners
    listener = TLSListener(raw, serving, standard_compatible=False)
    host = Elsewhere(port=raw.extra(anyio.abc.SocketAttribute.local_port), trust=trusting)  # noqa: S610
    async with listener, anyio.create_task_group() as group:
        group.start_soon(listener.serve, host.serve)
        yield host
        group.cancel_scope.cancel()


@cache
def _authority() -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority")])
    made = _certificate(name, name, key).add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    usage = x509.KeyUsage(*(False,) * 5, True, True, False, False)
    return made.add_extension(usage, critical=True).sign(key, hashes.SHA256()), key


def _certificate(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _certificates(directory: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """What the host serves with, and what trusts its authority and nobody else."""
    authority, signing = _authority()
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    made = (
        _certificate(subject, authority.subject, key)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(NAME)]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
        .sign(signing, hashes.SHA256())
    )
    file = directory / "elsewhere.pem"
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(secret + made.public_bytes(pem))
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(file)
    trusting = ssl.create_default_context(cadata=authority.public_bytes(pem).decode())
    return serving, trusting
