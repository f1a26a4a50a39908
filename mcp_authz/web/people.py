"""People on the page, and the clients that they use: who they are, and one person with all that stands for them."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mcp_authz import limits
from mcp_authz.overview import Overview
from mcp_authz.principals import PersonName
from mcp_authz.rules.administration import permits
from mcp_authz.web.desk import Desk
from mcp_authz.web.people_facts import client_row, row, shown_person


class PeoplePages:
    """Shows everybody to those who may see them, and each person themselves; `web.stopping` stops."""

    def __init__(self, desk: Desk, overview: Overview) -> None:
        self._desk = desk
        self._overview = overview

    @property
    def routes(self) -> list[Route]:
        """Where the requests come in."""
        return [Route("/people", self.list), Route("/person/{person}", self.person)]

    async def list(self, request: Request) -> Response:
        """People and clients by name, of either no more than a page has room for."""
        actor, most = await self._desk.actor(request), limits.PEOPLE_SHOWN
        after, behind = (request.query_params.get(name, "") for name in ("after", "client_after"))
        people = [one for one in await self._overview.people(actor) if one.name > after]
        clients = [one for one in await self._overview.clients(actor) if one.handle > behind]
        return await self._desk.page(
            "people",
            actor,
            people=[await row(self._desk.store, person) for person in people[:most]],
            more=people[most - 1].name if len(people) > most else None,
            clients=[client_row(client) for client in clients[:most]],
            more_clients=clients[most - 1].handle if len(clients) > most else None,
            may_stop=permits("revoke client", actor.roles),
        )

    async def person(self, request: Request) -> Response:
        """One person."""
        actor = await self._desk.actor(request)
        found = await self._desk.administration.person(actor, PersonName(request.path_params["person"]))
        return await self._desk.page("person", actor, one=await shown_person(self._desk, actor, found))
