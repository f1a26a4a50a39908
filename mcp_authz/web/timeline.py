"""The audit log as a page: what happened, newest first, with filters, and one call's story."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mcp_authz.administration import Administration, RolesOfPeople
from mcp_authz.rules.audit_filter import Filter
from mcp_authz.rules.sentence import sentence
from mcp_authz.store.ports import Clock
from mcp_authz.web.pages import page
from mcp_authz.web.visitor import Cookies

_SHOWN = 100


class Timeline:
    """Shows records to those who may read them."""

    def __init__(self, administration: Administration, roles: RolesOfPeople, cookies: Cookies, clock: Clock) -> None:
        self._administration = administration
        self._roles = roles
        self._cookies = cookies
        self._clock = clock

    @property
    def routes(self) -> list[Route]:
        """Where the requests come in."""
        return [Route("/audit", self.list)]

    async def list(self, request: Request) -> Response:
        """The newest records that the person may read."""
        person = (await self._cookies.visitor(request)).person
        found = await self._administration.records(self._roles.actor(person), Filter(), limit=_SHOWN)
        rows = [(record, sentence(record.event)) for record in reversed(found)]
        return page("timeline", now=self._clock(), person=person.name, rows=rows)
