"""Tools on the page: what each is taken for and whether it can be called; and one tool, with what changed in it."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from operator import attrgetter
from typing import Final
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mcp_authz import limits
from mcp_authz.administration import Actor
from mcp_authz.catalog import Catalog
from mcp_authz.errors import NotFound
from mcp_authz.model import HoldState
from mcp_authz.naming import pin_called
from mcp_authz.rules.administration import permits
from mcp_authz.web.desk import Desk
from mcp_authz.web.tool_facts import STATES, around, row, servers, shown_tool, state_of

_server: Final = attrgetter("server")


class ToolPages:
    """Shows tools to those who may see them all; what is switched off is switched off by `web.switching`."""

    def __init__(self, desk: Desk, catalog: Catalog) -> None:
        self._desk = desk
        self._catalog = catalog

    @property
    def routes(self) -> list[Route]:
        """Where the requests come in."""
        return [Route("/tools", self.list), Route("/tool/{tool:path}", self.tool)]

    async def list(self, request: Request) -> Response:
        """Servers, and tools by server: all, one server's, or those in one state; no more than a page has room for."""
        actor = await self._who(request, "tools list")
        asked = {name: request.query_params.get(name, "") for name in ("server", "state", "after")}
        off = await self._desk.store.switched_off()
        wanted = [
            tool
            for tool in self._catalog.tools
            if asked["server"] in ("", tool.server) and asked["state"] in ("", state_of(tool))
        ]
        names = [str(tool.name) for tool in wanted]
        begin = names.index(asked["after"]) + 1 if asked["after"] in names else 0
        shown = wanted[begin : begin + limits.TOOLS_SHOWN]
        held = Counter(hold.tool for hold in await self._desk.store.holds(states=[HoldState.PENDING]))
        kept = {name: asked[name] for name in ("server", "state") if asked[name]}
        return await self._desk.page(
            "tools",
            actor,
            asked=asked,
            states=[(name, says, sum(state_of(it) == name for it in self._catalog.tools)) for name, says in STATES],
            servers=servers(self._catalog, off),
            shown={server: [row(it, held[it.name]) for it in tools] for server, tools in groupby(shown, _server)},
            may_stop=permits("revoke server", actor.roles),
            more=f"/tools?{urlencode({**kept, 'after': shown[-1].name})}" if begin + len(shown) < len(wanted) else None,
        )

    async def tool(self, request: Request) -> Response:
        """One tool."""
        actor = await self._who(request, "tools diff")
        found = self._catalog.find(request.path_params["tool"])
        if found is None:
            raise NotFound(f"there is no tool `{request.path_params['tool']}`")
        pin = await pin_called(self._desk.store, found.name)
        said = await around(self._desk.administration, self._desk.store, actor, pin)
        others = [f"{it.server}__{it.tool}" for it in self._catalog.tools]
        async with self._desk.administration.turn(actor):  # comparing a large definition is work
            shown = await shown_tool(found, pin, said, others)
        return await self._desk.page(
            "tool",
            actor,
            one=shown,
            may_stop=permits("revoke tool", actor.roles),
        )

    async def _who(self, request: Request, command: str) -> Actor:
        """Who asks, and may; what was switched off or accepted elsewhere is known then.

        Raises:
            Forbidden: they may not.
        """
        actor = await self._desk.actor(request)
        await self._desk.administration.require(actor, command)
        await self._catalog.look()
        return actor
