"""What every page about the gateway itself is made with: who asks, what they may, and whether calls are stopped."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from mcp_authz.administration import Actor, Administration
from mcp_authz.store.ports import Clock, Store
from mcp_authz.web.pages import page
from mcp_authz.web.visitor import Cookies


@dataclass(frozen=True, slots=True, kw_only=True)
class Desk:
    """The parts that these pages share; what somebody may is asked of `Administration`, never of the store."""

    administration: Administration
    store: Store
    cookies: Cookies
    clock: Clock

    async def actor(self, request: Request) -> Actor:
        """Who is signed in, with their roles.

        Raises:
            NotSignedIn: nobody is.
        """
        return (await self.cookies.visitor(request)).actor

    async def page(self, template: str, actor: Actor, /, **facts: Any) -> Response:
        """The page that a template makes of the facts for this actor."""
        stopped = await self.administration.stopped(actor)
        return page(template, now=self.clock(), who=actor, stopped=stopped, **facts)
