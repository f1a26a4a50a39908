"""An authorization server on a free port, with a real store and one protected resource; only the clock is ours."""

from __future__ import annotations

import hashlib
import json
import socket
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx2
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mcp_authz import limits
from mcp_authz.agents import Agents, People
from mcp_authz.authorization import AuthorizationCode, ClientMethod, RegisteredClient
from mcp_authz.client.delegation import delegate
from mcp_authz.delegating import Asked, Delegations, Source
from mcp_authz.errors import AuthzError
from mcp_authz.fetching import Fetcher
from mcp_authz.hosted import Fetch, HostedAgents
from mcp_authz.ids import new_id
from mcp_authz.issuer_keys import IssuerKeys
from mcp_authz.oauth import OAuthServer, oauth_routes
from mcp_authz.oauth.client import Client
from mcp_authz.oauth.issuing import Issuer
from mcp_authz.principals import (
    AccessToken,
    Agent,
    AgentName,
    Authentication,
    Caller,
    Chain,
    ClientId,
    Grant,
    GrantId,
    Link,
    PersonName,
    Proof,
    Session,
    Thumbprint,
)
from mcp_authz.redeeming import Chains
from mcp_authz.rules import jose
from mcp_authz.rules.constraint import ToolsMap
from mcp_authz.rules.dpop import Nonces, make_proof
from mcp_authz.rules.keys import PrivateKey, Sealer, b64url
from mcp_authz.rules.scope import covered, parse_scopes
from mcp_authz.rules.token import MINIMAL_SCOPE, read_access_token
from mcp_authz.sessions import Sessions
from mcp_authz.step_ups import StepUps
from mcp_authz.store.ports import Admission, Event, Lost, Pin
from mcp_authz.store.sqlite import SqliteStore
from tests.unasked import Unasked

OPERATOR = "user:operator"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
TOKEN, JWT = (f"urn:ietf:params:oauth:token-type:{kind}" for kind in ("access_token", "jwt"))


class Clock:
    """The real time, moved on by tests."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    def advance(self, **by: float) -> None:
        """Let time pass."""
        self.ahead += timedelta(**by)


@dataclass(frozen=True)
class Actor:
    """An enrolled agent with its private key."""

    name: AgentName
    key: PrivateKey


VERIFIER = "v" * 43
CALLBACK = "http://127.0.0.1:3000/callback"
SIGNED_IN = Authentication(at=datetime(2026, 1, 1, tzinfo=UTC), amr=("swk", "user"))


@dataclass(frozen=True)
class App:
    """A registered client, with what it proves itself by."""

    registered: RegisteredClient
    secret: str = ""
    key: PrivateKey | None = None

    @property
    def id(self) -> ClientId:
        return self.registered.id


@dataclass
class House:
    """Everything a test does with the authorization server."""

    issuer: str
    store: SqliteStore
    sessions: Sessions
    delegations: Delegations
    chains: Chains
    agents: Agents
    people: People
    keys: IssuerKeys
    hosted: HostedAgents
    clock: Clock
    step_ups: StepUps
    http: httpx2.AsyncClient
    refusals: Counter[str] = field(default_factory=Counter)
    calls: list[Caller] = field(default_factory=list)  # whom the protected resource has served

    @property
    def resource(self) -> str:
        return f"{self.issuer}/mcp"

    async def person(self, name: str) -> str:
        """A registered person."""
        await self.people.add(name, by=OPERATOR)
        return name

    async def agent(self, name: str, ceiling: str = "pr secret:read", *, owner: str = "alice", **more: Any) -> Actor:
        """An enrolled agent; its owner is registered if need be."""
        if owner not in {person.name for person in await self.people.list()}:
            await self.person(owner)
        actor = Actor(AgentName(name), PrivateKey.generate())
        await self.agents.add(
            name, owner=owner, key=actor.key.public, ceiling=parse_scopes(ceiling), by=OPERATOR, **more
        )
        return actor

    async def grant(self, agent: Actor, scope: str = "pr", *, subject: str = "alice", **more: Any) -> Grant:
        """What a person agreed to."""
        return await self.sessions.grant(subject, agent.name, scope=parse_scopes(scope), by=OPERATOR, **more)

    async def start(
        self, agent: Actor, scope: str = "pr", *, subject: str = "alice", tools: ToolsMap | None = None, **more: Any
    ) -> tuple[Session, Link]:
        """An open session of a new grant."""
        grant = await self.grant(agent, scope, subject=subject, tools=tools)
        return await self.sessions.start(grant, purpose="test", by=OPERATOR, **more)

    async def family(self, **more: Any) -> tuple[Actor, Actor, Session, Link]:
        """A planner with a session for alice, and a coder it may delegate to."""
        planner = await self.agent("planner", depth=3, delegates_to=frozenset({AgentName("coder")}))
        coder = await self.agent("coder", depth=0)
        session, root = await self.start(planner, **more)
        return planner, coder, session, root

    async def client(self, handle: str = "cursor", method: ClientMethod = "none", **more: Any) -> App:
        """A client that an operator registered, with a fresh secret or key where its method wants one."""
        app = App(
            registered=RegisteredClient(
                id=ClientId(f"{handle}-id"),
                handle=handle,
                name=handle.title(),
                kind="registered",
                redirect_uris=(CALLBACK,),
                method=method,
                registered_at=self.clock(),
            ),
            secret=new_id("secret"),
            key=PrivateKey.generate(),
        )
        assert app.key is not None
        if method == "private_key_jwt":
            more = {"jwks": {"keys": [app.key.public.jwk]}, **more}
        elif method != "none":
            more = {"secret": hashlib.sha256(app.secret.encode()).digest(), **more}
        app = replace(app, registered=replace(app.registered, **more))
        await self.store.add_client(app.registered, Event(kind="administration", at=self.clock(), fields={}))
        return app

    async def agreed(
        self,
        app: App,
        person: str = "alice",
        scope: str = "pr",
        *,
        actor: Actor | None = None,
        ceiling: str | None = None,
        days: int = 30,
        **more: Any,
    ) -> str:
        """The code that a client has once the person agreed, as the page where they do writes it."""
        if person not in {one.name for one in await self.people.list()}:
            await self.person(person)
        name = AgentName(f"{app.registered.handle}@{person}") if actor is None else actor.name
        now, asked = self.clock().replace(microsecond=0), parse_scopes(scope)
        agent = None if actor is None else await self.store.agent(name)
        agent = agent or Agent(
            name=name,
            owner=PersonName(person),
            ceiling=asked if ceiling is None else parse_scopes(ceiling),
            client=app.id,
        )
        grant = Grant(
            id=GrantId(new_id("g")),
            subject=PersonName(person),
            agent=name,
            scope=asked,
            tools=None,
            granted_at=now,
            expires_at=now + timedelta(days=days),
            client=app.id,
            authentication=SIGNED_IN,
        )
        text = new_id("code")
        code = AuthorizationCode(
            digest=hashlib.sha256(text.encode()).digest(),
            grant=grant.id,
            client=app.id,
            agent=name,
            redirect_uri=CALLBACK,
            challenge=b64url(hashlib.sha256(VERIFIER.encode()).digest()),
            scope=asked,
            made_at=now,
            expires_at=now + limits.AUTHORIZATION_CODE,
        )
        code = replace(code, **more)
        await self.store.authorize(agent, grant, code, Event(kind="grant", at=now, fields={}))
        return text

    async def ask(
        self, app: App, path: str = "/token", *, headers: dict[str, str] | None = None, **form: Any
    ) -> httpx2.Response:
        """One request of the client, authenticated by its method; a parameter given as None is left out."""
        own, also = self.authenticated(app)
        data = {name: value for name, value in {**own, **form}.items() if value is not None}
        return await self.http.post(f"{self.issuer}{path}", data=data, headers={**also, **(headers or {})})

    def authenticated(self, app: App) -> tuple[dict[str, str], dict[str, str]]:
        """The parameters and the headers by which the client says, or proves, who it is."""
        match app.registered.method:
            case "none":
                return {"client_id": app.id}, {}
            case "client_secret_post":
                return {"client_id": app.id, "client_secret": app.secret}, {}
            case "client_secret_basic":
                return {}, {"Authorization": f"Basic {b64encode(f'{app.id}:{app.secret}'.encode()).decode()}"}
            case "private_key_jwt":
                return {"client_assertion_type": ASSERTION_TYPE, "client_assertion": self.app_assertion(app)}, {}

    def app_assertion(self, app: App, *, typ: str = "JWT", key: PrivateKey | None = None, **claims: Any) -> str:
        """A client assertion of the client; a claim given as None is left out."""
        assert app.key is not None
        return self.assertion(Actor(AgentName(app.id), app.key), typ=typ, key=key, **claims)

    async def redeem_code(self, app: App, code: str, /, **form: Any) -> httpx2.Response:
        """The client shows the code, with its verifier, and where it was sent."""
        base = {"grant_type": "authorization_code", "code": code, "code_verifier": VERIFIER, "redirect_uri": CALLBACK}
        return await self.ask(app, **{**base, **form})

    async def signed_in(self, app: App, person: str = "alice", scope: str = "pr", **more: Any) -> dict[str, Any]:
        """The token response of a client to which a person agreed just now."""
        return expect(await self.redeem_code(app, await self.agreed(app, person, scope, **more)))

    async def refresh(self, app: App, refresh_token: str, /, **form: Any) -> httpx2.Response:
        """The client shows a refresh token."""
        return await self.ask(app, grant_type="refresh_token", refresh_token=refresh_token, **form)

    def assertion(self, actor: Actor, *, typ: str = "JWT", key: PrivateKey | None = None, **claims: Any) -> str:
        """A client assertion of the agent; a claim given as None is left out."""
        now = int(self.clock().timestamp())
        base = {"iss": actor.name, "sub": actor.name, "aud": self.issuer, "iat": now, "exp": now + 60}
        claims = {**base, "jti": new_id("j"), **claims}
        kept = {name: value for name, value in claims.items() if value is not None}
        return jose.sign(kept, typ=typ, key=key or actor.key)

    async def post(
        self, actor: Actor, path: str = "/token", *, headers: dict[str, str] | None = None, **form: str
    ) -> httpx2.Response:
        """One authenticated request of the agent; `form` may bring an assertion of its own."""
        base = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": self.assertion(actor)}
        return await self.http.post(f"{self.issuer}{path}", data={**base, **form}, headers=headers)

    async def sign_in(self, actor: Actor, *, claims: Mapping[str, Any] | None = None, **form: Any) -> dict[str, Any]:
        """The token response of a sign-in."""
        own = {"client_assertion": self.assertion(actor, **claims)} if claims else {}
        return expect(await self.post(actor, grant_type="client_credentials", **own, **form))

    async def token(self, actor: Actor, **form: Any) -> str:
        """An access token."""
        token: str = (await self.sign_in(actor, **form))["access_token"]
        return token

    async def exchange(self, actor: Actor, subject_token: str, kind: str = TOKEN, **form: Any) -> httpx2.Response:
        """One token exchange."""
        return await self.post(actor, grant_type=EXCHANGE, subject_token=subject_token, subject_token_type=kind, **form)

    async def link(self, root: Link, session: Session, to: str, **asked: Any) -> Link:
        """A delegation of the session's first agent, by the use layer itself."""
        source = Source(chain=Chain(links=(root,)), session=session, person=None)
        return await self.delegations.delegate(source, Asked(to=AgentName(to), **asked))

    async def delegate(self, actor: Actor, to: Actor, **form: str) -> dict[str, Any]:
        """The answer to an exchange of the agent's fresh token for one of the delegate."""
        token = form.pop("token", "") or await self.token(actor)
        return expect(await self.exchange(actor, token, requested_actor=f"agent:{to.name}", **form))

    async def delegated(self, actor: Actor, to: Actor, **form: str) -> str:
        """The delegate's own token of a link that the agent makes for it."""
        link = (await self.delegate(actor, to, **form))["link"]
        return await self.token(to, claims={"delegation": link})

    async def root(self, actor: Actor, token: str = "", **form: str) -> str:
        """The signed chain of the agent's own link, by exchange."""
        token = token or await self.token(actor)
        text: str = expect(await self.exchange(actor, token, requested_token_type=JWT, **form))["access_token"]
        return text

    def derive(self, chain: str, holder: Actor, to: Actor | PrivateKey, **given: Any) -> str:
        """The chain with one more link, signed by its holder and by nobody else."""
        key = to.key if isinstance(to, Actor) else to
        return delegate(chain, holder.key, to=key.public, at=self.clock(), **given)

    async def redeem(self, actor: Actor, chain: str, **form: str) -> dict[str, Any]:
        """The answer to an exchange of a chain that was given to the agent's key."""
        return expect(await self.exchange(actor, chain, JWT, **form))

    def proof(self, key: PrivateKey, path: str = "/token", **more: Any) -> dict[str, str]:
        """The header of a request with a DPoP proof by this key."""
        url, at = f"{self.issuer}{path}", self.clock()
        return {"DPoP": make_proof(key, method="POST", url=url, at=at, id=new_id("p"), **more)}

    def read(self, token: str) -> AccessToken:
        """The claims of an access token, as the gateway reads them."""
        return read_access_token(
            token, keys=self.keys.public, issuer=self.issuer, audience=self.resource, now=self.clock()
        )

    async def caller(self, token: str, proof: Proof = Proof.BEARER) -> Caller:
        """Who presents this token, as the gateway sees it."""
        return await self.sessions.identify(self.read(token), proof)

    async def revoke(self, kind: Any, name: str) -> None:
        """The operator revokes something."""
        await self.store.revoke(kind, name, Event(kind="revocation", at=self.clock(), fields={"by": OPERATOR}))

    async def spend(self, caller: Caller) -> int | Lost:
        """One admitted call of the caller, taken from every budget above it."""
        assert caller.session is not None and caller.chain is not None
        pin = Pin(server="acme", tool="merge", digest=bytes(32), definition={}, seen_at=self.clock())
        await self.store.pin_first([pin], Event(kind="pin", at=self.clock()))
        return await self.store.admit(
            Admission(
                event=Event(kind="decision", at=self.clock(), call=new_id("c")),
                agent=caller.agent.name,
                key=caller.key,
                subject=caller.session.subject,
                grant=caller.session.grant,
                session=caller.session.id,
                links=tuple(link.id for link in caller.chain.links),
                server=pin.server,
                tool=pin.tool,
                definition_digest=pin.digest,
            )
        )

    @property
    def issuing(self) -> Issuer:
        """What signs the tokens."""
        return Issuer(store=self.store, issuer=self.issuer, resource=self.resource, keys=self.keys, clock=self.clock)

    def client_of(self, agent: Agent, actor: Actor) -> Client:
        """The agent as a client that has just proved its key."""
        return Client(agent=agent, key=Thumbprint(actor.key.public.thumbprint))

    async def events(self, kind: str) -> list[Mapping[str, Any]]:
        """The fields of the records of one kind."""
        return [record.event.fields for record in await self.store.records(kind=kind, limit=10_000)]

    def server(self, count_refusal: Callable[[str, str], None], *, demand_nonce: bool = False) -> OAuthServer:
        """The authorization server."""
        return OAuthServer(
            store=self.store,
            sessions=self.sessions,
            delegations=self.delegations,
            chains=self.chains,
            issuer=self.issuer,
            resource=self.resource,
            signing=self.keys,
            clock=self.clock,
            count_refusal=count_refusal,
            nonces=Nonces(key=bytes(32), demanded=demand_nonce),
            hosted=self.hosted,
            step_ups=self.step_ups,
        )

    async def serve(self, request: Request) -> Response:
        """The protected resource: challenges as the gateway does, and remembers whom it served."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        try:
            caller = await self.caller(token)
        except AuthzError:
            return self._challenge(401, "invalid_token", MINIMAL_SCOPE)
        asked = json.loads(await request.body())
        needed = parse_scopes(asked.get("needs", ""))
        if scheme != "Bearer" or not all(covered(scope, caller.token.scope) for scope in needed):
            return self._challenge(403, "insufficient_scope", " ".join(sorted({*caller.token.scope, *needed})))
        self.calls.append(caller)
        return JSONResponse({"actor": caller.agent.name, "scope": sorted(caller.token.scope)})

    def _challenge(self, status: int, error: str, scope: str) -> Response:
        where = f"{self.issuer}/.well-known/oauth-protected-resource/mcp"
        value = f'Bearer error="{error}", scope="{scope}", resource_metadata="{where}"'
        return Response(status_code=status, headers={"WWW-Authenticate": value})


def expect(answer: httpx2.Response, status: int = 200) -> dict[str, Any]:
    """The JSON body of an answer that has this status."""
    assert answer.status_code == status, answer.text
    assert answer.headers["cache-control"] == "no-store"
    body: dict[str, Any] = answer.json()
    return body


def refused(answer: httpx2.Response, code: str, status: int = 400) -> None:
    """The answer is an OAuth error of this code and gives nothing else away."""
    body = expect(answer, status)
    assert body["error"] == code, body
    assert body.keys() <= {"error", "error_description"}


def claims_of(token: str) -> dict[str, Any]:
    """The claims of a token, not verified."""
    return jose.read(token).claims


@asynccontextmanager
async def office(
    directory: Path, issuer: str = "http://localhost:8642", *, fetch: Fetch | None = None
) -> AsyncIterator[House]:
    """An authorization server with everything but its network."""
    clock = Clock()
    store = SqliteStore.open(directory / "store.db", sealer=Sealer(bytes(32)), clock=clock)
    keys = await IssuerKeys.load(store, clock=clock)
    delegations = Delegations(store=store, clock=clock, policy=Unasked())
    hosted = HostedAgents(store, clock, fetch or Fetcher())
    chains = Chains(
        store=store, clock=clock, issuer=issuer, keys=keys, delegations=delegations, agent_keys=hosted.keys_of
    )
    async with httpx2.AsyncClient(timeout=10) as http:
        yield House(
            issuer=issuer,
            store=store,
            sessions=Sessions(store, clock, chains.signatures),
            delegations=delegations,
            chains=chains,
            agents=Agents(store, clock),
            people=People(store, clock),
            keys=keys,
            hosted=hosted,
            step_ups=StepUps(clock),
            clock=clock,
            http=http,
        )
    await store.aclose()


@asynccontextmanager
async def house(directory: Path, *, demand_nonce: bool = False, fetch: Fetch | None = None) -> AsyncIterator[House]:
    """An authorization server that serves, with a protected resource beside it; `fetch` reaches hosts elsewhere."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        async with office(directory, f"http://localhost:{listener.getsockname()[1]}", fetch=fetch) as h:
            server = h.server(lambda reason, _peer: h.refusals.update([reason]), demand_nonce=demand_nonce)
            app = Starlette(routes=[*oauth_routes(server), Route("/mcp", h.serve, methods=["POST"])])
            config = uvicorn.Config(
                app, lifespan="off", log_level="error", access_log=False, timeout_graceful_shutdown=1
            )
            web = uvicorn.Server(config)
            async with anyio.create_task_group() as group:
                group.start_soon(web.serve, [listener])
                with anyio.fail_after(10):
                    while not web.started:  # noqa: ASYNC110 - uvicorn has no event for this
                        await anyio.sleep(0.005)
                yield h
                web.should_exit = True
