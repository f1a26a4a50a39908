"""One gateway with real parts for one test: store, HTTP, tool servers and clients are real; only the clock is ours."""

from __future__ import annotations

import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import anyio
import httpx2
import uvicorn
from mcp import Client
from mcp.client.auth.extensions.client_credentials import PrivateKeyJWTOAuthProvider, SignedJWTParameters
from mcp.client.streamable_http import streamable_http_client

from mcp_authz import limits
from mcp_authz.agents import Agents, People
from mcp_authz.authorization import RegisteredClient
from mcp_authz.cli.listening import listening
from mcp_authz.cli.serve import open_app
from mcp_authz.config import Config, parse_config
from mcp_authz.ids import new_id
from mcp_authz.model import Assurance, HoldId
from mcp_authz.principals import (
    AccessToken,
    Agent,
    AgentName,
    Authentication,
    ClientId,
    Grant,
    GrantId,
    Link,
    PersonName,
    Session,
    SessionId,
    Thumbprint,
)
from mcp_authz.protocol.answers import ENVELOPE
from mcp_authz.protocol.app import App
from mcp_authz.rules import jose
from mcp_authz.rules.keys import PrivateKey, PublicKey
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.rules.token import ACCESS_TOKEN, MINIMAL_SCOPE, access_claims
from mcp_authz.rules.verdict import make_statement
from mcp_authz.store.ports import Event, Record
from mcp_authz.wiring import Running
from tests.servers import loaded

ROOT = Path(__file__).parent.parent
INCIDENT = ("python", "-m", "examples.incident.server")
OPERATOR = "user:operator"
MODERN, LEGACY = "2026-07-28", "legacy"


class Clock:
    """The real time, moved on by tests."""

    def __init__(self) -> None:
        self._ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def advance(self, by: timedelta) -> None:
        """Let time pass."""
        self._ahead += by


class Memory:
    """Where a stock client keeps its tokens."""

    def __init__(self) -> None:
        self.tokens: Any = None
        self.client: Any = None

    async def get_tokens(self) -> Any:
        return self.tokens

    async def set_tokens(self, tokens: Any) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> Any:
        return self.client

    async def set_client_info(self, client_info: Any) -> None:
        self.client = client_info


@dataclass(frozen=True)
class Actor:
    """An enrolled agent with its private key."""

    name: str
    key: PrivateKey


@dataclass(frozen=True)
class ClientActor:
    """A client agent: what a stock client is for one person, with the access token that it got when they agreed."""

    name: str
    access_token: str
    grant: GrantId
    session: SessionId


@dataclass
class Called:
    """What a client got for one call."""

    result: Mapping[str, Any]

    @property
    def text(self) -> str:
        return "\n".join(part["text"] for part in self.result.get("content", []) if part.get("type") == "text")

    @property
    def is_error(self) -> bool:
        return bool(self.result.get("isError"))

    @property
    def envelope(self) -> Mapping[str, Any]:
        envelope: Mapping[str, Any] = (self.result.get("_meta") or {}).get(ENVELOPE, {})
        return envelope

    @property
    def is_held(self) -> bool:
        return self.envelope.get("outcome") == "held"

    @property
    def hold(self) -> HoldId:
        return HoldId(self.envelope["hold"])


@dataclass
class World:
    """A running gateway and everything a test does with it."""

    config: Config
    running: Running
    app: App
    clock: Clock
    directory: Path
    approvers: dict[str, PrivateKey] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.config.resource

    @property
    def store(self) -> Any:
        return self.running.installation.store

    @property
    def state(self) -> Path:
        """Where the incident's tool server keeps its state."""
        return self.directory / "state"

    def deployments(self) -> list[dict[str, Any]]:
        """What was really deployed, as the tool server wrote it down."""
        path = self.state / "deployments.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    async def person(self, name: str, *groups: str) -> str:
        """A registered person with an approver key."""
        people, key = People(self.store, self.clock), PrivateKey.generate()
        await people.add(name, groups=frozenset(groups), by=OPERATOR)
        await people.add_key(name, key.public, by=OPERATOR)
        self.approvers[name] = key
        return name

    async def agent(self, name: str, *, ceiling: str, owner: str = "alice", **more: Any) -> Actor:
        """An enrolled agent."""
        key = PrivateKey.generate()
        more = {k: frozenset(v) if k in {"delegates_to", "roles"} else v for k, v in more.items()}
        await Agents(self.store, self.clock).add(
            name, owner=owner, key=key.public, ceiling=parse_scopes(ceiling), by=OPERATOR, **more
        )
        return Actor(name, key)

    async def grant(self, subject: str, agent: str, scope: str) -> Grant:
        """What a person agreed to."""
        return await self.running.sessions.grant(subject, agent, scope=parse_scopes(scope), by=OPERATOR)

    async def start(self, grant: Grant, **more: Any) -> tuple[Session, Link]:
        """An open session of the grant."""
        more = {"purpose": "test", "by": OPERATOR, **more}
        return await self.running.sessions.start(grant, **more)

    async def ready(self, name: str, scope: str, *, subject: str = "alice", **more: Any) -> Actor:
        """An agent with a person, a grant and an open session for exactly these scopes."""
        if await self.store.person(PersonName(subject)) is None:
            await self.person(subject)
        actor = await self.agent(name, ceiling=scope, owner=subject, **more)
        await self.start(await self.grant(subject, name, scope))
        return actor

    async def client_agent(
        self,
        client: str,
        person: str,
        *,
        scope: str,
        ceiling: str = "*",
        authentication: Authentication | Literal["minute", "unknown"] = "minute",
        confirmation: PublicKey | None = None,
    ) -> ClientActor:
        """The agent that a client is for this person, after they agreed to these scopes: each time a new session.

        `ceiling` is what there is to agree to; `authentication` how they had signed in: with a passkey, a minute ago.
        """
        shown: Authentication | None = None
        if authentication == "minute":
            shown = Authentication(at=self.clock() - timedelta(minutes=1), amr=("swk", "user"))
        elif authentication != "unknown":
            shown = authentication
        now, name = self.clock().replace(microsecond=0), AgentName(f"{client}@{person}")
        if await self.store.person(PersonName(person)) is None:
            await self.person(person)
        known = await self._client(client, now)
        agent = Agent(name=name, owner=PersonName(person), ceiling=parse_scopes(ceiling), client=known.id)
        grant = Grant(
            id=GrantId(new_id("g")),
            subject=PersonName(person),
            agent=name,
            scope=parse_scopes(scope),
            tools=None,
            granted_at=now,
            expires_at=now + timedelta(days=30),
            client=known.id,
            authentication=shown,
        )
        await self.store.authorize(agent, grant, None, Event(kind="grant", at=now, fields={}))
        session, root, event = await self.running.sessions.prepare(grant, purpose="test", by=f"user:{person}")
        await self.store.open_session(session, root, event)
        bound = None if confirmation is None else Thumbprint(confirmation.thumbprint)
        token = AccessToken(
            id=new_id("t"),
            client_id=known.id,
            actor=name,
            key=None,
            subject=session.principal,
            session=session.id,
            link=root.id,
            scope=frozenset({MINIMAL_SCOPE, *grant.scope}),
            issued_at=now,
            expires_at=now + limits.ACCESS_TOKEN_LIFETIME,
            confirmation=bound,
            mode=session.mode,
        )
        keys = self.running.issuer_keys
        claims = access_claims(token, issuer=self.config.public_url, audience=self.url, chain=(name,))
        signed = jose.sign(claims, typ=ACCESS_TOKEN, key=keys.signing, kid=keys.kid)
        return ClientActor(name=name, access_token=signed, grant=grant.id, session=session.id)

    async def _client(self, handle: str, at: datetime) -> RegisteredClient:
        """The registered client with this handle."""
        for known in await self.store.clients():
            if known.handle == handle:
                found: RegisteredClient = known
                return found
        new = RegisteredClient(
            id=ClientId(f"https://{handle}.example/client.json"),
            handle=handle,
            name=handle.title(),
            kind="document",
            redirect_uris=("http://127.0.0.1/callback",),
            registered_at=at,
        )
        await self.store.add_client(new, Event(kind="administration", at=at, fields={}))
        return new

    async def delegate(self, holder: Actor, to: str, scope: str) -> str:
        """What the holder gets for another agent by token exchange (RFC 8693): a token that only that agent can use."""
        exchange = {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": await self.token(holder, scope),
            "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
            "requested_actor": f"agent:{to}",
        }
        return await self.token(holder, scope, **exchange)

    @asynccontextmanager
    async def client(
        self, actor: Actor, mode: str = MODERN, *, claims: Any = None, **more: Any
    ) -> AsyncIterator[Client]:
        """A stock SDK client that logs in with the agent's key; no custom code of ours is in it."""
        auth = stock_auth(self.config, actor, claims)
        async with httpx2.AsyncClient(auth=auth, timeout=30) as http:
            transport = streamable_http_client(self.url, http_client=http)
            async with Client(transport, mode="auto" if mode == MODERN else mode, **more) as client:
                yield client

    async def call(self, actor: Actor, tool: str, mode: str = MODERN, /, **arguments: Any) -> Called:
        """One call by a stock client of its own."""
        async with self.client(actor, mode) as client:
            return await called(client, tool, arguments)

    async def token(self, actor: Actor | ClientActor, scope: str | None = None, **form: str) -> str:
        """An access token, fetched by hand; a client agent has the one that came when its person agreed."""
        if isinstance(actor, ClientActor):
            return actor.access_token
        answer = await self.token_answer(actor, scope, **form)
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["access_token"]
        return token

    async def token_answer(self, actor: Actor, scope: str | None = None, **form: str) -> httpx2.Response:
        """The token endpoint's answer to a client_credentials request, or to whatever `form` says."""
        data = {
            "grant_type": "client_credentials",
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": self.assertion(actor),
            **({"scope": scope} if scope is not None else {}),
            **form,
        }
        async with httpx2.AsyncClient() as http:
            return await http.post(f"{self.config.public_url}/token", data=data)

    def assertion(self, actor: Actor, **claims: Any) -> str:
        """A client assertion (RFC 7523) of the agent."""
        now = int(self.clock().timestamp())
        jti = PrivateKey.generate().public.thumbprint
        base = {"iss": actor.name, "sub": actor.name, "aud": self.config.public_url, "iat": now, "exp": now + 60}
        return jose.sign({**base, "jti": jti, **claims}, typ="JWT", key=actor.key)

    async def post(self, body: Any, token: str | None = None, **headers: str) -> httpx2.Response:
        """One raw POST to the endpoint; `body` is bytes, or JSON to be written."""
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        lines = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        lines |= {name.replace("_", "-"): value for name, value in headers.items()}
        if token is not None:
            lines["authorization"] = f"Bearer {token}"
        async with httpx2.AsyncClient(timeout=30) as http:
            return await http.post(self.url, content=raw, headers=lines)

    async def raw_call(self, token: str | None, tool: str, arguments: Any, **more: Any) -> httpx2.Response:
        """One raw 2026-07-28 `tools/call`."""
        headers = {
            "mcp_protocol_version": MODERN,
            "mcp_method": "tools/call",
            "mcp_name": tool,
            **more.pop("headers", {}),
        }
        return await self.post(modern_call(tool, arguments, **more), token, **headers)

    async def answer(
        self,
        hold: HoldId,
        *,
        by: str,
        approve: bool = True,
        reason: str = "",
        terms: Any = None,
        sent_back: bool = False,
    ) -> None:
        """A person answers a hold with their own key, as the command line does."""
        held = await self.store.hold(hold)
        statement = make_statement(
            held,
            person=PersonName(by),
            approve=approve,
            assurance=Assurance.SIGNED_IN,
            reason=reason,
            at=self.clock(),
            key=self.approvers[by],
            terms=terms,
            sent_back=sent_back,
        )
        await self.running.approvals.hear_signed(hold, PersonName(by), statement)

    async def records(self, kind: str | None = None) -> tuple[Record, ...]:
        """The audit log."""
        records: tuple[Record, ...] = await self.store.records(kind=kind, limit=10_000)
        return records

    async def decisions(self) -> list[Mapping[str, Any]]:
        """The fields of every decision record."""
        return [record.event.fields for record in await self.records("decision")]


def modern_call(
    tool: str, arguments: Any, *, meta: Any = None, capabilities: Any = None, **params: Any
) -> dict[str, Any]:
    """The body of a 2026-07-28 `tools/call`."""
    envelope = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": capabilities or {},
        **(meta or {}),
    }
    return {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": tool, "arguments": arguments, "_meta": envelope, **params},
    }


async def called(client: Client, tool: str, arguments: Mapping[str, Any]) -> Called:
    """Call through the SDK client, its result as it came over the wire."""
    result = await client.call_tool(tool, dict(arguments))
    return Called(result.model_dump(by_alias=True, mode="json", exclude_none=True))


def stock_auth(config: Config, actor: Actor, claims: Any = None) -> PrivateKeyJWTOAuthProvider:
    """The SDK's own OAuth provider with the agent's Ed25519 key."""
    signing = SignedJWTParameters(
        issuer=actor.name,
        subject=actor.name,
        signing_key=actor.key.to_pem(),
        signing_algorithm="EdDSA",
        additional_claims=claims,
    )
    return PrivateKeyJWTOAuthProvider(
        server_url=config.resource,
        storage=Memory(),
        client_id=actor.name,
        assertion_provider=signing.create_assertion_provider(),
        issuer=config.public_url,
    )


def incident_server(directory: Path) -> dict[str, Any]:
    """The configuration of the incident's tool server, classified as the demo does."""
    command = loaded.command("examples.incident.server", "--state", str(directory / "state"))
    repo = {"repo": "{owner}/{repo}"}
    return {
        "command": command,
        "cwd": str(ROOT),
        "environment": "acme",
        "tools": {
            "list_pull_requests": {
                "action": "pr.list",
                "hazard": "read",
                "scopes": ["pr:read:{owner}:{repo}"],
                "resource": repo,
            },
            "open_pull_request": {
                "action": "pr.create",
                "hazard": "write",
                "scopes": ["pr:write:{owner}:{repo}"],
                "resource": repo,
            },
            "merge_pull_request": {
                "action": "pr.merge",
                "hazard": "destructive",
                "scopes": ["pr:merge:{owner}:{repo}"],
                "resource": repo,
            },
            "read_secret": {
                "action": "secret.read",
                "hazard": "read",
                "scopes": ["secret:read"],
                "resource": {"secret_environment": "{environment}"},
            },
            "deploy": {
                "action": "deploy.create",
                "hazard": "destructive",
                "scopes": ["deploy:{environment}"],
                "resource": {**repo, "deploy_environment": "{environment}"},
            },
            "list_deployments": {
                "action": "deploy.list",
                "hazard": "read",
                "scopes": ["deploy:read"],
                "resource": repo,
            },
        },
    }


@asynccontextmanager
async def world(directory: Path, *, servers: Any = None, **config: Any) -> AsyncIterator[World]:
    """A gateway that serves on a free port; with the incident's tool server behind it unless told otherwise.

    `servers` may be a function, for servers that have to know the gateway's public URL.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(128)
        public_url = f"http://localhost:{listener.getsockname()[1]}"
        if callable(servers):
            servers = servers(public_url)
        values = {
            "public_url": public_url,
            "data_dir": str(directory / "data"),
            "servers": {"acme": incident_server(directory)} if servers is None else servers,
            "notify": "none",
            "waiting": {"seconds": 0},  # a held call is told at once; tests of waiting say otherwise
            **config,
        }
        clock, parsed = Clock(), parse_config(values)
        async with open_app(parsed, clock=clock) as (app, running):
            server = uvicorn.Server(listening(app.asgi, timeout_graceful_shutdown=1))
            async with anyio.create_task_group() as group:
                group.start_soon(server.serve, [listener])
                with anyio.fail_after(10):
                    while not server.started:  # noqa: ASYNC110 - uvicorn has no event for this
                        await anyio.sleep(0.005)
                yield World(config=parsed, running=running, app=app, clock=clock, directory=directory)
                server.should_exit = True
