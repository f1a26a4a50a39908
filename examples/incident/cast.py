"""The people, agents and real parts of the incident demo: a gateway on a port, a tool server process, stock clients."""

from __future__ import annotations

import asyncio
import socket
import sys
import tomllib
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx2
import uvicorn
from mcp import Client, MCPError
from mcp.client.auth.extensions.client_credentials import PrivateKeyJWTOAuthProvider, SignedJWTParameters
from mcp.client.streamable_http import streamable_http_client

from examples.client import Memory
from mcp_authz.agents import People
from mcp_authz.cli.serve import open_app
from mcp_authz.config import Config, parse_config
from mcp_authz.errors import AuthzError
from mcp_authz.installation import utc_now
from mcp_authz.model import Assurance, HoldId, HoldState
from mcp_authz.principals import PersonName
from mcp_authz.rules.display import displayed
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.log import first_break
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.rules.verdict import make_statement
from mcp_authz.store.offline import stored_head, stored_records
from mcp_authz.store.ports import Event, Record
from mcp_authz.wiring import Running

HERE = Path(__file__).parent
BY = "user:operator"
ENVELOPE = "dev.mcp-authz/outcome"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - a type, RFC 8693 section 3
ASSERTION = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass(frozen=True)
class Actor:
    """An agent with its key."""

    name: str
    key: PrivateKey


@dataclass(frozen=True)
class Said:
    """What a call came back with."""

    text: str
    is_error: bool
    envelope: Mapping[str, Any]

    @property
    def verdict(self) -> str:
        """The outcome in one word: done, or what the gateway says."""
        return str(self.envelope.get("outcome", "done")).upper()


@dataclass(frozen=True)
class Waiting:
    """A call that waits for a person, in the request that made it."""

    hold: str
    call: asyncio.Task[Said]

    async def give_up(self) -> None:
        """Its client goes away; the hold stays."""
        self.call.cancel()
        await asyncio.wait([self.call])


@dataclass
class Stage:
    """A running gateway and everybody on it."""

    config: Config
    running: Running
    state: Path
    exits: AsyncExitStack
    approvers: dict[str, PrivateKey] = field(default_factory=dict)
    clients: dict[str, Client] = field(default_factory=dict)

    async def person(self, name: str, *groups: str) -> None:
        """A person with an approver key."""
        people, key = People(self.running.installation.store, utc_now), PrivateKey.generate()
        await people.add(name, groups=frozenset(groups), by=BY)
        await people.add_key(name, key.public, by=BY)
        self.approvers[name] = key

    async def agent(self, name: str, ceiling: str, **more: Any) -> Actor:
        """An agent that alice owns, enrolled with a fresh key."""
        key = PrivateKey.generate()
        more = {"owner": "alice", "ceiling": parse_scopes(ceiling), "by": BY, **more}
        await self.running.agents.add(name, key=key.public, **more)
        return Actor(name, key)

    async def start(self, person: str, agent: str, scope: str, purpose: str) -> None:
        """A session: the person's consent, used for one task."""
        grant = await self.running.sessions.grant(person, agent, scope=parse_scopes(scope), by=f"user:{person}")
        await self.running.sessions.start(grant, purpose=purpose, by=f"user:{person}")

    async def delegate(self, holder: Actor, to: str, scope: str, *, seconds: int) -> str:
        """The holder exchanges its own token for a delegation to another agent (RFC 8693); returns the link's id."""
        async with httpx2.AsyncClient(base_url=self.config.public_url) as http:
            own = await self._token(http, holder, {"grant_type": "client_credentials", "scope": scope})
            form = {
                "grant_type": EXCHANGE,
                "subject_token": own["access_token"],
                "subject_token_type": ACCESS_TOKEN,
                "requested_actor": f"agent:{to}",
                "scope": scope,
                "expires_in": str(seconds),
            }
            link: str = (await self._token(http, holder, form))["link"]
        return link

    async def _token(self, http: httpx2.AsyncClient, actor: Actor, form: dict[str, str]) -> dict[str, Any]:
        assertion = _signing(actor).create_assertion_provider()
        proved = {"client_assertion_type": ASSERTION, "client_assertion": await assertion(self.config.public_url)}
        answer = await http.post("/token", data={**form, **proved})
        answer.raise_for_status()
        token: dict[str, Any] = answer.json()
        return token

    async def client(self, actor: Actor) -> Client:
        """The stock SDK client of this agent: it logs in with the agent's key, and asks for more scope when told to."""
        if actor.name not in self.clients:
            self.clients[actor.name] = await self.exits.enter_async_context(self._connected(actor))
        return self.clients[actor.name]

    @asynccontextmanager
    async def _connected(self, actor: Actor) -> AsyncIterator[Client]:
        auth = PrivateKeyJWTOAuthProvider(
            server_url=self.config.resource,
            storage=Memory(),
            client_id=actor.name,
            assertion_provider=_signing(actor).create_assertion_provider(),
            issuer=self.config.public_url,
        )
        async with (
            httpx2.AsyncClient(auth=auth, timeout=30) as http,
            Client(streamable_http_client(self.config.resource, http_client=http)) as client,
        ):
            yield client

    async def held(self, actor: Actor, tool: str, arguments: dict[str, Any]) -> Waiting:
        """One call that has to wait, as soon as its client has been told so."""
        told = asyncio.Event()

        async def progress(*_: object) -> None:
            told.set()

        call = asyncio.create_task(self.call(actor, tool, arguments, progress))
        await told.wait()
        (waits,) = await self.running.installation.store.holds(states=(HoldState.PENDING,))
        return Waiting(waits.id, call)

    async def call(self, actor: Actor, tool: str, arguments: dict[str, Any], progress: Any = None) -> Said:
        """One call of one of the company's tools."""
        client = await self.client(actor)
        result = await client.call_tool(f"acme__{tool}", arguments, progress_callback=progress)
        text = " ".join(getattr(part, "text", "") for part in result.content)
        return Said(text, bool(result.is_error), (result.meta or {}).get(ENVELOPE, {}))

    async def try_call(self, actor: Actor, tool: str, arguments: dict[str, Any]) -> str:
        """Like `call`, for when there may be no way in any more; one word."""
        try:
            said = await self.call(actor, tool, arguments)
        except MCPError as error:
            return f"is refused ({error.error.message})"
        return f"is denied ({said.envelope.get('reason')})" if said.is_error else "still works"

    async def shown(self, hold: str) -> str:
        """What an approver sees of a hold, and signs."""
        held = await self.running.installation.store.hold(HoldId(hold))
        assert held is not None
        return displayed(held)

    async def verdict(self, hold: str, person: str, *, approve: bool) -> None:
        """A person answers with their own key."""
        held = await self.running.installation.store.hold(HoldId(hold))
        assert held is not None
        statement = make_statement(
            held,
            person=PersonName(person),
            approve=approve,
            assurance=Assurance.SIGNED_IN,
            reason="",
            at=utc_now(),
            key=self.approvers[person],
        )
        await self.running.approvals.hear_signed(held.id, PersonName(person), statement)

    async def approve_again(self, hold: str, person: str) -> str:
        """Another verdict on a hold that has been used."""
        try:
            await self.verdict(hold, person, approve=True)
        except AuthzError as error:
            return f"refused ({error.code})"
        return "accepted"

    async def revoke(self, link: str) -> None:
        """The delegation is over."""
        fields = {"by": "user:alice", "link": link, "summary": "alice revoked the delegation of planner to coder"}
        event = Event(kind="revocation", at=utc_now(), fields=fields)
        await self.running.installation.store.revoke("link", link, event)

    async def records(self) -> tuple[Record, ...]:
        """The whole log."""
        return await self.running.installation.store.records(limit=1000)

    def verify(self) -> str:
        """Whether the log hangs together, read from the file as an auditor would."""
        path = self.config.data / "store.db"
        head = stored_head(path)
        broken = first_break(stored_records(path, limit=10_000), head=head)
        return f"VERIFIED, {head[0]} records, unbroken" if broken is None else f"BROKEN: {broken.why}"


def _signing(actor: Actor) -> SignedJWTParameters:
    return SignedJWTParameters(
        issuer=actor.name, subject=actor.name, signing_key=actor.key.to_pem(), signing_algorithm="EdDSA"
    )


@asynccontextmanager
async def on_stage(directory: Path) -> AsyncIterator[Stage]:
    """The gateway serves on a free port, with the company's tool server behind it."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        values = tomllib.loads((HERE / "gateway.toml").read_text())
        state = directory / "state"
        values |= {"public_url": f"http://localhost:{listener.getsockname()[1]}", "data_dir": str(directory / "data")}
        values["servers"]["acme"] |= {
            "command": [sys.executable, "-m", "examples.incident.server", "--state", str(state)],
            "cwd": str(HERE.parent.parent),
        }
        config = parse_config(values)
        async with open_app(config) as (app, running):
            server = uvicorn.Server(uvicorn.Config(app.asgi, log_level="critical", timeout_graceful_shutdown=1))
            async with anyio.create_task_group() as group:
                group.start_soon(server.serve, [listener])
                while not server.started:  # noqa: ASYNC110 - uvicorn has no event for this
                    await anyio.sleep(0.01)
                async with AsyncExitStack() as exits:
                    yield Stage(config=config, running=running, state=state, exits=exits)
                server.should_exit = True
