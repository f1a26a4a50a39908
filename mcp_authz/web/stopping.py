"""Stopping on the page: first what would stop, by name and number, then a reason, then it is stopped."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from typing import Any, Final, cast
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mcp_authz import limits
from mcp_authz.administration import Actor, Administration, RolesOfPeople
from mcp_authz.errors import InputError, NotFound
from mcp_authz.principals import AgentName, Link, LinkId, SessionId, Thumbprint
from mcp_authz.rules.display import visible
from mcp_authz.store.ports import Clock, RevocableKind, Store
from mcp_authz.web.door import read_body, text_of
from mcp_authz.web.pages import page
from mcp_authz.web.session_facts import whom
from mcp_authz.web.visitor import Cookies, Visitor

_KINDS: Final[Mapping[str, tuple[str, str]]] = {
    # What the button says, and what goes on.
    "link": ("Prune", "The link above it and its siblings go on."),
    "session": ("End", "What was agreed to stays: another session can be started from it."),
    "agent": ("Revoke", "Whoever delegated to it goes on. The agent never comes back."),
    "key": ("Revoke", "Its holder goes on with another key, if there is one. The key never comes back."),
}


class StoppingPages:
    """Asks `Administration` what may be stopped and stops it there; for what is safe, being signed in is enough."""

    def __init__(
        self, administration: Administration, roles: RolesOfPeople, store: Store, cookies: Cookies, clock: Clock
    ) -> None:
        self._administration = administration
        self._roles = roles
        self._store = store
        self._cookies = cookies
        self._clock = clock

    @property
    def routes(self) -> list[Route]:
        """Where the requests come in."""
        return [
            Route("/stop/calls", self.before_stop_all),
            Route("/stop/calls", self.stop_all, methods=["POST"]),
            Route("/stop/calls/over", self.before_start_all),
            Route("/stop/calls/over", self.start_all, methods=["POST"]),
            Route("/stop/{kind}/{name:path}", self.before_stop),
            Route("/stop/{kind}/{name:path}", self.stop, methods=["POST"]),
        ]

    async def before_stop(self, request: Request) -> Response:
        """What revoking this thing would stop; nothing is changed."""
        _, actor = await self._who(request)
        kind, name = _thing(request)
        stops = await self._administration.foresee(actor, kind, name)
        runs = await self._administration.running(actor, kind, name)
        held = [hold for id_ in stops.holds if (hold := await self._store.hold(id_)) is not None]
        verb, goes_on = _KINDS[kind]
        return page(
            "stop",
            now=self._clock(),
            person=actor.whose,
            stopped=await self._administration.stopped(actor),
            verb=verb,
            what=visible(await self._called(kind, name)),
            goes_on=goes_on,
            already=stops.already,
            links=[(visible(link.holder), link.id, visible(whom(session))) for session, link in stops.links],
            holds=[(visible(hold.actor), visible(hold.tool), hold.id) for hold in held],
            runs=[(visible(run.actor.removeprefix("agent:")), visible(run.tool), run.since) for run in runs],
            post=request.url.path,
            back=await self._back(actor, kind, name),
        )

    async def stop(self, request: Request) -> Response:
        """The thing is revoked, with what descends from it, on record with who it was and why."""
        _, actor = await self._who(request)
        kind, name = _thing(request)
        reason = await _reason(request)
        await self._administration.revoke(actor, kind, name, reason=reason)
        return JSONResponse({"next": await self._back(actor, kind, name)})

    async def before_stop_all(self, request: Request) -> Response:
        """What it means to stop all calls."""
        _, actor = await self._who(request)
        await self._administration.require(actor, "stop-all")
        stopped = await self._administration.stopped(actor)
        return page("stop_all", now=self._clock(), person=actor.whose, stopped=stopped, over=False)

    async def stop_all(self, request: Request) -> Response:
        """Nothing is forwarded any more."""
        _, actor = await self._who(request)
        await self._administration.stop_all(actor, reason=await _reason(request))
        return JSONResponse({"next": "/sessions"})

    async def before_start_all(self, request: Request) -> Response:
        """What it means to forward calls again; it takes a sign-in of just now, because it is not safe."""
        visitor, actor = await self._who(request)
        await self._administration.require(actor, "start-all")
        self._cookies.require_fresh(visitor, limits.APPROVAL_SIGN_IN)
        stopped = await self._administration.stopped(actor)
        return page("stop_all", now=self._clock(), person=actor.whose, stopped=stopped, over=True)

    async def start_all(self, request: Request) -> Response:
        """Calls are forwarded again."""
        visitor, actor = await self._who(request)
        await self._administration.require(actor, "start-all")
        self._cookies.require_fresh(visitor, limits.APPROVAL_SIGN_IN)
        await self._administration.start_all(actor)
        return JSONResponse({"next": "/sessions"})

    async def _who(self, request: Request) -> tuple[Visitor, Actor]:
        visitor = await self._cookies.visitor(request)
        return visitor, self._roles.actor(visitor.person)

    async def _called(self, kind: RevocableKind, name: str) -> str:
        """The thing as a person knows it; whoever is asked may know of it."""
        if kind == "link" and (link := await self._store.link(LinkId(name))) is not None:
            return f"the delegation to {link.holder}"
        if kind == "session" and (session := await self._store.session(SessionId(name))) is not None:
            return f"the session of {session.agent} for {whom(session)}"
        if kind == "key" and (key := await self._store.key(Thumbprint(name))) is not None:
            return f"a key of {key.holder.partition(':')[2]}"
        return f"{kind} {name}"

    async def _back(self, actor: Actor, kind: RevocableKind, name: str) -> str:
        """The page that shows the thing to this actor, or what is above it."""
        if kind == "session":
            return f"/sessions/{name}"
        agents = [AgentName(name)]
        if kind == "link":
            chain = await self._chain(LinkId(name))
            if chain and await self._sees(self._administration.session(actor, chain[0].session)):
                return f"/sessions/{chain[0].session}"
            agents = [link.holder for link in chain]
        if kind == "key" and (key := await self._store.key(Thumbprint(name))) is not None:
            agents = [AgentName(key.holder.removeprefix("agent:"))]
        for agent in agents:
            if await self._sees(self._administration.agent(actor, agent)):
                return f"/agent/{quote(agent)}"
        return "/agents"

    async def _chain(self, name: LinkId) -> list[Link]:
        """The link and those above it."""
        chain, link = list[Link](), await self._store.link(name)
        while link is not None:
            chain.append(link)
            link = None if link.parent is None else await self._store.link(link.parent)
        return chain

    async def _sees(self, asked: Awaitable[object]) -> bool:
        try:
            await asked
        except NotFound:
            return False
        return True


def _thing(request: Request) -> tuple[RevocableKind, str]:
    """What the path names.

    Raises:
        NotFound: nothing that pages stop.
    """
    kind = request.path_params["kind"]
    if kind not in _KINDS:
        raise NotFound("there is nothing here that could be stopped")
    return cast(RevocableKind, kind), request.path_params["name"]


async def _reason(request: Request) -> str:
    body: Mapping[str, Any] = await read_body(request)
    reason = text_of(body, "reason", most=limits.REASON).strip()
    if not reason:
        raise InputError("say why: write a reason, which stays on record")
    return reason
