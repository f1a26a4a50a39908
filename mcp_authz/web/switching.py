"""Switching off on the page: a tool, or a server with all its tools, for everybody until it is accepted again."""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mcp_authz.administration import Actor
from mcp_authz.halting import Off
from mcp_authz.rules.display import visible
from mcp_authz.web import stop_facts
from mcp_authz.web.accepting import server_again, tool_again
from mcp_authz.web.desk import Desk
from mcp_authz.web.door import read_reason


class SwitchingPages:
    """Asks `Administration` what may be switched off, and switches it off there; the command line accepts it."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @property
    def routes(self) -> list[Route]:
        """Where the requests come in."""
        return [
            Route("/stop/tool/{name:path}", self.before_tool),
            Route("/stop/tool/{name:path}", self.tool, methods=["POST"]),
            Route("/stop/server/{name:path}", self.before_server),
            Route("/stop/server/{name:path}", self.server, methods=["POST"]),
        ]

    async def before_tool(self, request: Request) -> Response:
        """What switching off this tool would stop; nothing is changed."""
        actor, name = await self._desk.actor(request), request.path_params["name"]
        off = await self._desk.administration.foresee_tool_off(actor, name)
        return await self._page(
            actor,
            off,
            what=f"the tool {name}",
            accept=None if off.pin is None else tool_again(name, off.pin),
            goes_on="Other tools of its server go on.",
            post=f"/stop/tool/{quote(name)}",
            back=f"/tool/{quote(name)}",
        )

    async def tool(self, request: Request) -> Response:
        """Nobody can call the tool."""
        actor, name = await self._desk.actor(request), request.path_params["name"]
        await self._desk.administration.tool_off(actor, name, reason=await read_reason(request))
        return JSONResponse({"next": f"/tool/{quote(name)}"})

    async def before_server(self, request: Request) -> Response:
        """What switching off this server would stop; nothing is changed."""
        actor, name = await self._desk.actor(request), request.path_params["name"]
        off = await self._desk.administration.foresee_server_off(actor, name)
        return await self._page(
            actor,
            off,
            what=f"the server {name}, with every tool of it",
            accept=server_again(name),
            goes_on="Other servers go on. Its process and connection stay, and tools that it lists later are off, too.",
            post=f"/stop/server/{quote(name)}",
            back=f"/tools?server={quote(name)}",
        )

    async def server(self, request: Request) -> Response:
        """Nobody can call a tool of the server."""
        actor, name = await self._desk.actor(request), request.path_params["name"]
        await self._desk.administration.server_off(actor, name, reason=await read_reason(request))
        return JSONResponse({"next": f"/tools?server={quote(name)}"})

    async def _page(
        self, actor: Actor, off: Off, *, what: str, accept: str | None, goes_on: str, post: str, back: str
    ) -> Response:
        return await self._desk.page(
            "stop",
            actor,
            verb="Switch off",
            press="Switch it off",
            what=visible(what),
            goes_on=goes_on,
            over="Switched off already" if off.already else None,
            accept=accept,
            stops=[await stop_facts.held(self._desk.store, off.holds), stop_facts.run(off.running)],
            post=post,
            back=back,
        )
