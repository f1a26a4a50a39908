"""Stopping all calls on the page, and forwarding them again."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mcp_authz import limits
from mcp_authz.administration import Actor
from mcp_authz.web import stop_facts
from mcp_authz.web.desk import Desk
from mcp_authz.web.door import read_reason


class AllCallsPages:
    """Stopping is safe and takes the sign-in alone; forwarding calls again takes one of just now."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @property
    def routes(self) -> list[Route]:
        """Where the requests come in."""
        return [
            Route("/stop/calls", self.before_stop_all),
            Route("/stop/calls", self.stop_all, methods=["POST"]),
            Route("/stop/calls/over", self.before_start_all),
            Route("/stop/calls/over", self.start_all, methods=["POST"]),
        ]

    async def before_stop_all(self, request: Request) -> Response:
        """What it means to stop all calls, and which run now."""
        actor = await self._desk.actor(request)
        running = stop_facts.run(await self._desk.administration.running_all(actor))
        return await self._desk.page("stop_all", actor, over=False, running=running)

    async def stop_all(self, request: Request) -> Response:
        """Nothing is forwarded any more."""
        actor = await self._desk.actor(request)
        await self._desk.administration.stop_all(actor, reason=await read_reason(request))
        return JSONResponse({"next": "/sessions"})

    async def before_start_all(self, request: Request) -> Response:
        """What it means to forward calls again."""
        return await self._desk.page("stop_all", await self._who_starts(request), over=True, running=None)

    async def start_all(self, request: Request) -> Response:
        """Calls are forwarded again."""
        await self._desk.administration.start_all(await self._who_starts(request))
        return JSONResponse({"next": "/sessions"})

    async def _who_starts(self, request: Request) -> Actor:
        """Who may, and signed in just now, because it is not safe.

        Raises:
            Forbidden: they may not.
            SignInAgain: they signed in too long ago.
        """
        visitor = await self._desk.cookies.visitor(request)
        await self._desk.administration.require(visitor.actor, "start-all")
        self._desk.cookies.require_fresh(visitor, limits.APPROVAL_SIGN_IN)
        return visitor.actor
