"""The page on which people answer held calls; loaded when somebody first asks for it, so that a start needs no page."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Final

import anyio
import anyio.to_thread
from starlette.routing import BaseRoute, Match, NoMatchFound
from starlette.types import ASGIApp, Receive, Scope, Send

from mcp_authz.administration import NOBODY, Administration, RolesOfPeople
from mcp_authz.approvals import Approvals
from mcp_authz.catalog import Catalog
from mcp_authz.consent import Consents
from mcp_authz.overview import Overview
from mcp_authz.standing_approvals import StandingApprovals
from mcp_authz.store.ports import Clock, Store
from mcp_authz.web.ways_in import PASSKEYS_ALONE, WaysIn

_FIRST_PARTS: Final = frozenset(
    {"", "holds", "standing", "welcome", "sign-in", "sign-out", "passkeys", "access", "authorize", "events", "static"}
    | {"sessions", "agents", "agent", "audit", "stop", "tools", "tool", "people", "person"}
)


class PageRoute(BaseRoute):
    """Every path of the page."""

    def __init__(
        self,
        *,
        administration: Administration,
        overview: Overview,
        store: Store,
        approvals: Approvals,
        standing: StandingApprovals,
        consents: Consents,
        public_url: str,
        clock: Clock,
        ways_in: WaysIn = PASSKEYS_ALONE,
        roles: RolesOfPeople = NOBODY,
        catalog: Catalog,
    ) -> None:
        self._parts = {
            "administration": administration,
            "overview": overview,
            "store": store,
            "approvals": approvals,
            "standing": standing,
            "consents": consents,
            "public_url": public_url,
            "clock": clock,
            "ways_in": ways_in,
            "roles": roles,
            "catalog": catalog,
        }
        self._site: ASGIApp | None = None
        self._loading = anyio.Lock()

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Whether the request is for the page."""
        ours = scope["type"] == "http" and scope["path"].removeprefix("/").partition("/")[0] in _FIRST_PARTS
        return (Match.FULL if ours else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        async with self._loading:
            if self._site is None:
                module = await anyio.to_thread.run_sync(import_module, "mcp_authz.web.site")
                self._site = module.make_site(**self._parts)
        await self._site(scope, receive, send)

    def url_path_for(self, name: str, /, **path_params: Any) -> Any:
        """No other application makes links into the page."""
        raise NoMatchFound(name, path_params)
