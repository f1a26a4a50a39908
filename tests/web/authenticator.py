"""An authenticator in a few lines, and a browser without a window: what a test does that no honest browser would."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from webauthn.helpers import encode_cbor

from mcp_authz.accounts import Accounts
from mcp_authz.model import HoldId
from mcp_authz.principals import PersonName
from mcp_authz.rules.keys import b64url, unb64url
from tests.world import OPERATOR, World

PRESENT, VERIFIED, ATTESTED = 0x01, 0x04, 0x40


@dataclass
class Authenticator:
    """One credential of the ES256 kind, and what it says of itself."""

    rp_id: str = "localhost"
    flags: int = PRESENT | VERIFIED
    count: int = 0  # 0: it does not count
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    id: bytes = field(default_factory=lambda: os.urandom(16))
    handle: bytes = b""

    def make(self, options: dict[str, Any], origin: str, **client: Any) -> dict[str, Any]:
        """The answer to a registration's question."""
        self.handle = unb64url(options["user"]["id"])
        numbers = self.key.public_key().public_numbers()
        cose = {1: 2, 3: -7, -1: 1, -2: numbers.x.to_bytes(32, "big"), -3: numbers.y.to_bytes(32, "big")}
        attested = bytes(16) + len(self.id).to_bytes(2, "big") + self.id + encode_cbor(cose)
        told = client_data("webauthn.create", options["challenge"], origin, **client)
        data = self._data(self.flags | ATTESTED) + attested
        made = encode_cbor({"fmt": "none", "attStmt": {}, "authData": data})
        return self._answer(clientDataJSON=told, attestationObject=made)

    def show(self, options: dict[str, Any], origin: str, **client: Any) -> dict[str, Any]:
        """The answer to a sign-in's or an approval's question."""
        told, data = client_data("webauthn.get", options["challenge"], origin, **client), self._data(self.flags)
        signature = self.key.sign(data + hashlib.sha256(told).digest(), ec.ECDSA(hashes.SHA256()))
        return self._answer(clientDataJSON=told, authenticatorData=data, signature=signature, userHandle=self.handle)

    def _data(self, flags: int) -> bytes:
        return hashlib.sha256(self.rp_id.encode()).digest() + bytes([flags]) + self.count.to_bytes(4, "big")

    def _answer(self, **response: bytes) -> dict[str, Any]:
        told = {name: b64url(value) for name, value in response.items()}
        return {"id": b64url(self.id), "rawId": b64url(self.id), "type": "public-key", "response": told}


def client_data(kind: str, challenge: str, origin: str, **more: Any) -> bytes:
    """What a browser says that it asked, and where."""
    return json.dumps({"type": kind, "challenge": challenge, "origin": origin, "crossOrigin": False, **more}).encode()


@dataclass
class Visit:
    """A browser without a window: it keeps cookies and says where its requests come from."""

    w: World
    http: httpx2.AsyncClient
    passkey: Authenticator = field(default_factory=Authenticator)

    @property
    def origin(self) -> str:
        return self.w.config.public_url

    async def get(self, path: str, **headers: str) -> httpx2.Response:
        return await self.http.get(f"{self.origin}{path}", headers=_lines(headers))

    async def post(self, path: str, body: Any, **headers: str) -> httpx2.Response:
        lines = {"origin": self.origin, "content-type": "application/json", **_lines(headers)}
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.http.post(f"{self.origin}{path}", content=raw, headers=lines)

    async def question(self, path: str, body: Any = None) -> tuple[str, dict[str, Any]]:
        """What a passkey is asked."""
        answer = await self.post(f"{path}/question", body or {})
        assert answer.status_code == 200, answer.text
        return answer.json()["nonce"], answer.json()["options"]

    async def further(self) -> tuple[str, dict[str, Any]]:
        """What a further passkey is made with, once this one was shown."""
        proof = (await self.post("/passkeys/proof", {})).json()
        shown = self.passkey.show(proof["options"], self.origin)
        return await self.question("/passkeys", {"nonce": proof["nonce"], "answer": shown})

    async def invite(self, name: str) -> str:
        """The path of a one-time link."""
        return f"/welcome/{await Accounts(self.w.store, self.w.clock).invite(PersonName(name), by=OPERATOR)}"

    async def register(self, path: str, **client: Any) -> httpx2.Response:
        nonce, options = await self.question(path)
        made = self.passkey.make(options, client.pop("origin", self.origin), **client)
        return await self.post(f"{path}/passkey", {"nonce": nonce, "answer": made})

    async def sign_in(self, **client: Any) -> httpx2.Response:
        nonce, options = await self.question("/sign-in")
        shown = self.passkey.show(options, client.pop("origin", self.origin), **client)
        return await self.post("/sign-in", {"nonce": nonce, "answer": shown})

    async def approve(self, hold: HoldId, reason: str = "", **client: Any) -> httpx2.Response:
        nonce, options = await self.question(f"/holds/{hold}", {"reason": reason})
        shown = self.passkey.show(options, client.pop("origin", self.origin), **client)
        return await self.post(f"/holds/{hold}/approve", {"nonce": nonce, "answer": shown})


@asynccontextmanager
async def visit(w: World) -> AsyncIterator[Visit]:
    """Somebody without a passkey."""
    async with httpx2.AsyncClient(timeout=30) as http:
        yield Visit(w, http)


@asynccontextmanager
async def visiting(w: World, name: str) -> AsyncIterator[Visit]:
    """Somebody who is registered, has made a passkey, and is signed in."""
    async with visit(w) as them:
        answer = await them.register(await them.invite(name))
        assert answer.status_code == 200, answer.text
        yield them


def _lines(headers: dict[str, str]) -> dict[str, str]:
    return {name.replace("_", "-"): value for name, value in headers.items()}
