"""Who may act for the person who is signed in, and the button that ends it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mcp_authz.accounts import Accounts
from mcp_authz.administration import Actor
from mcp_authz.consent import Consents
from mcp_authz.errors import NotFound
from mcp_authz.principals import AgentName, ClientId, Grant, GrantId, PersonName
from mcp_authz.web.consent_facts import ShownScope, shown_client, shown_scopes
from mcp_authz.web.desk import Desk
from mcp_authz.web.pages import page

_REASON = "stopped on the page"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownGrant:
    """One thing that a person agreed to."""

    id: GrantId
    granted_at: datetime
    expires_at: datetime
    scopes: list[ShownScope]
    only_some: bool  # tools are listed one by one, or arguments bounded


class Access:
    """Lists a person's grants that still count; stopping one takes no more than being signed in, for it is safe."""

    def __init__(self, desk: Desk, *, consents: Consents, accounts: Accounts) -> None:
        self._desk = desk
        self._consents = consents
        self._accounts = accounts

    @property
    def routes(self) -> list[Route]:
        """Where the requests come in."""
        return [
            Route("/access", self.access),
            Route("/access/{grant}/stop", self.stop, methods=["POST"]),
            Route("/access/{grant}/stop-all", self.stop_all, methods=["POST"]),
        ]

    async def access(self, request: Request) -> Response:
        """Everything that may act for this person, what was agreed to last first."""
        visitor = await self._desk.cookies.visitor(request)
        name = visitor.person.name
        by_agent: dict[tuple[AgentName, ClientId | None], list[Grant]] = {}
        for grant in await self._of(name):
            by_agent.setdefault((grant.agent, grant.client), []).append(grant)
        return page(
            "access",
            now=self._desk.clock(),
            who=visitor.actor,
            replaced_at=await self._accounts.replaced_lately(name),
            agents=[
                await self._agent(agent, client, grants)
                for (agent, client), grants in by_agent.items()
                if await self._counts(agent, client)
            ],
        )

    async def stop(self, request: Request) -> Response:
        """One thing that the person agreed to does not count any more."""
        actor, grant = await self._theirs(request)
        await self._stop(actor, grant)
        return JSONResponse({"next": "/access"})

    async def stop_all(self, request: Request) -> Response:
        """Nor does anything else that the same agent was given by the person."""
        actor, theirs = await self._theirs(request)
        for grant in await self._of(theirs.subject):
            if (grant.agent, grant.client) == (theirs.agent, theirs.client):
                await self._stop(actor, grant)
        return JSONResponse({"next": "/access"})

    async def _of(self, name: PersonName | None) -> list[Grant]:
        """What the person agreed to and still counts, newest first."""
        now = self._desk.clock()
        live = [
            grant
            for grant in await self._desk.store.grants()
            if name is not None and grant.subject == name and grant.status == "active" and grant.expires_at > now
        ]
        return sorted(live, key=lambda grant: grant.granted_at, reverse=True)

    async def _counts(self, agent: AgentName, of: ClientId | None) -> bool:
        """Whether neither the agent nor the client was stopped by an operator, which leaves its grants as they are."""
        known = await self._desk.store.agent(agent)
        client = None if of is None else await self._desk.store.client(of)
        return known is not None and known.status == "active" and (client is None or client.status == "active")

    async def _theirs(self, request: Request) -> tuple[Actor, Grant]:
        """The grant, if this person gave it; to anybody else it is as if there were none."""
        visitor = await self._desk.cookies.visitor(request)
        grant = await self._desk.store.grant(GrantId(request.path_params["grant"]))
        if grant is None or grant.subject != visitor.person.name:
            raise NotFound(f"there is nothing here that {visitor.person.name} could stop")
        return visitor.actor, grant

    async def _stop(self, actor: Actor, grant: Grant) -> None:
        await self._desk.administration.revoke(actor, "grant", grant.id, reason=_REASON)

    async def _agent(self, agent: AgentName, of: ClientId | None, grants: list[Grant]) -> dict[str, Any]:
        client = None if of is None else await self._desk.store.client(of)
        known = await self._desk.store.agent(agent)
        return {
            "agent": agent,
            "client": None if client is None else shown_client(client),
            "is_client": known is not None and known.client is not None,
            "grants": [
                ShownGrant(
                    id=grant.id,
                    granted_at=grant.granted_at,
                    expires_at=grant.expires_at,
                    scopes=shown_scopes(self._consents.in_words(grant.scope)),
                    only_some=grant.tools is not None,
                )
                for grant in grants
            ],
        }
