"""A gateway in this process, for looking at its steps one by one; the same configuration as the comparison's."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from bench.governed import AGENT, NAME, SCOPE, enrol, settings
from bench.wire import ARGUMENTS, request
from mcp_authz.config import parse_config
from mcp_authz.identity import Identifier
from mcp_authz.ids import new_id
from mcp_authz.installation import open_installation, utc_now
from mcp_authz.issuer_keys import IssuerKeys
from mcp_authz.model import Tool, ToolCall
from mcp_authz.outcome import Forwarded
from mcp_authz.principals import AccessToken, Caller, Thumbprint
from mcp_authz.protocol.channel import ModernChannel
from mcp_authz.protocol.reading import Read, Request, read
from mcp_authz.rules import jose
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.rules.token import ACCESS_TOKEN, access_claims
from mcp_authz.wiring import Running, run_gateway

PORT = 8642  # of the public URL; nothing listens there


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """A running gateway, and one agent's way into it."""

    running: Running
    identifier: Identifier
    issuer: IssuerKeys
    token: str

    @property
    def request(self) -> Request:
        """The request as the endpoint reads it."""
        head, _, body = request(PORT, tool=NAME, token=self.token).partition(b"\r\n\r\n")
        lines = [line.partition(": ") for line in head.decode("latin-1").split("\r\n")[1:]]
        return Request(raw=body, headers=tuple((name, value) for name, _, value in lines), peer="127.0.0.1")

    @property
    def tool(self) -> Tool:
        """The tool that is called."""
        tool = self.running.catalog.find(NAME)
        assert tool is not None
        return tool

    @property
    def tool_call(self) -> ToolCall:
        """The call that is made."""
        return ToolCall(tool=self.tool, arguments=ARGUMENTS)

    async def caller(self) -> Caller:
        """Steps 3 to 6."""
        return await self.identifier.identify(f"Bearer {self.token}")

    async def call(self) -> None:
        """The whole road, from bytes to outcome."""
        message = read(self.request)
        assert isinstance(message, Read)
        outcome = await self.running.gateway.call(await self.caller(), message.message, channel(message))
        assert isinstance(outcome, Forwarded), outcome


def channel(message: Read) -> ModernChannel:
    """A way back to nobody."""

    async def commit() -> None:
        return

    async def emit(_: Mapping[str, Any]) -> None:
        return

    return ModernChannel(message, emit=emit, commit=commit)


@asynccontextmanager
async def house(directory: Path, behind: str) -> AsyncIterator[House]:
    """The gateway runs in front of the tool server at `behind`; its agent has a session and a token of it."""
    config, key = parse_config(settings(directory, PORT, behind)), PrivateKey.generate()
    async with open_installation(config) as installation:
        await enrol(installation.store, key)
    async with run_gateway(config) as running:
        store = running.installation.store
        issuer = await IssuerKeys.load(store, clock=utc_now)
        token = await _token(running, issuer, key)
        identifier = Identifier(
            keys=issuer.public,
            issuer=config.public_url,
            resource=config.resource,
            sessions=running.sessions,
            clock=utc_now,
        )
        yield House(running=running, identifier=identifier, issuer=issuer, token=token)


async def _token(running: Running, issuer: IssuerKeys, key: PrivateKey) -> str:
    (grant,) = await running.installation.store.grants()
    session, root = await running.sessions.start(grant, purpose="bench", by="user:alice")
    now, config = utc_now(), running.installation.config
    token = AccessToken(
        id=new_id("t"),
        client_id=AGENT,
        actor=root.holder,
        key=Thumbprint(key.public.thumbprint),
        subject="user:alice",
        session=session.id,
        link=root.id,
        scope=parse_scopes(SCOPE),
        issued_at=now,
        expires_at=now + timedelta(minutes=10),
    )
    claims = access_claims(token, issuer=config.public_url, audience=config.resource, chain=(root.holder,))
    return jose.sign(claims, typ=ACCESS_TOKEN, key=issuer.signing, kid=issuer.kid)
