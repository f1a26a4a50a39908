"""Somebody who makes calls that are held, and somebody who approves them."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Final

from bench.governed import NAME, OPERATOR, SCOPE
from bench.wire import MODERN
from mcp_authz import limits
from mcp_authz.agents import Agents, People
from mcp_authz.approvals import Approvals
from mcp_authz.config import Config
from mcp_authz.ids import new_id
from mcp_authz.installation import Installation, utc_now
from mcp_authz.issuer_keys import IssuerKeys
from mcp_authz.model import Assurance, HeldCall
from mcp_authz.principals import AccessToken, AgentName, PersonName, SessionId, Thumbprint
from mcp_authz.rules import jose
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.rules.token import ACCESS_TOKEN, access_claims
from mcp_authz.rules.verdict import make_statement
from mcp_authz.sessions import Sessions
from mcp_authz.store.ports import Event, Store

ALICE: Final = PersonName("alice")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """An agent's token of one session."""

    token: str
    session: SessionId


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """A person with an approver's key, at the store of a gateway."""

    config: Config
    store: Store
    approvals: Approvals
    issuer: IssuerKeys
    key: PrivateKey
    agents: dict[str, PrivateKey] = field(default_factory=dict)

    async def caller(self, name: str) -> Caller:
        """A new session of this agent, which is enrolled if need be."""
        scope, key = parse_scopes(SCOPE), self.agents.get(name) or PrivateKey.generate()
        if name not in self.agents:
            await Agents(self.store, utc_now).add(name, owner=ALICE, key=key.public, ceiling=scope, by=OPERATOR)
            self.agents[name] = key
        sessions = Sessions(self.store, utc_now)
        grant = await sessions.grant(ALICE, name, scope=scope, by=OPERATOR)
        session, root = await sessions.start(grant, purpose="bench", by=OPERATOR)
        token = AccessToken(
            id=new_id("t"),
            client_id=name,
            actor=AgentName(name),
            key=Thumbprint(key.public.thumbprint),
            subject=f"user:{ALICE}",
            session=session.id,
            link=root.id,
            scope=scope,
            issued_at=utc_now(),
            expires_at=utc_now() + limits.ACCESS_TOKEN_LIFETIME,
        )
        url, resource = self.config.public_url, self.config.resource
        claims = access_claims(token, issuer=url, audience=resource, chain=(AgentName(name),))
        signed = jose.sign(claims, typ=ACCESS_TOKEN, key=self.issuer.signing, kid=self.issuer.kid)
        return Caller(token=signed, session=session.id)

    async def approve(self, held: HeldCall) -> None:
        """Alice says yes."""
        statement = make_statement(
            held, person=ALICE, approve=True, assurance=Assurance.SIGNED_IN, reason="", at=utc_now(), key=self.key
        )
        await self.approvals.hear_signed(held.id, ALICE, statement)

    async def call_off(self, caller: Caller) -> None:
        """Every call of this session that waits is over."""
        event = Event(kind="revocation", at=utc_now(), fields={"summary": "bench"})
        await self.store.revoke("session", caller.session, event)


async def enrolled(here: Installation, config: Config) -> Desk:
    """Alice, with a key to approve with."""
    key, people = PrivateKey.generate(), People(here.store, utc_now)
    await people.add(ALICE, by=OPERATOR)
    await people.add_key(ALICE, key.public, by=OPERATOR)
    return Desk(
        config=config,
        store=here.store,
        approvals=Approvals(store=here.store, clock=utc_now, gateway_key=PrivateKey.generate()),
        issuer=await IssuerKeys.load(here.store, clock=utc_now),
        key=key,
    )


async def send(config: Config, caller: Caller, *, line: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """One call on a connection of its own; calls of different lines are not the same."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"name": NAME, "arguments": {"book": "recipes", "line": line}, "_meta": meta}
    body = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}).encode()
    lines = [
        "POST /mcp HTTP/1.1",
        f"host: localhost:{config.listen_port}",
        "content-type: application/json",
        "accept: application/json",
        f"content-length: {len(body)}",
        f"mcp-protocol-version: {MODERN}",
        "mcp-method: tools/call",
        f"mcp-name: {NAME}",
        f"authorization: Bearer {caller.token}",
    ]
    reader, writer = await asyncio.open_connection("127.0.0.1", config.listen_port)
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    await writer.drain()
    return reader, writer


async def answer_of(reader: asyncio.StreamReader) -> bytes:
    """The body of the answer, once it is there.

    Raises:
        AssertionError: it is no result.
    """
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    if b"content-length:" in head:
        body = await reader.readexactly(int(head.partition(b"content-length:")[2].split(b"\r\n")[0]))
    else:
        body = await reader.readuntil(b"0\r\n\r\n")
    if not head.startswith(b"http/1.1 200") or b'"result"' not in body:
        raise AssertionError(f"this was no result: {head!r} {body[:400]!r}")
    return body
