"""The page as one application: its parts, its routes, and what becomes of an error."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from mcp_authz.accounts import Accounts
from mcp_authz.administration import NOBODY, Actor, Administration, Forbidden, RolesOfPeople
from mcp_authz.approvals import Approvals
from mcp_authz.catalog import Catalog
from mcp_authz.consent import Consents
from mcp_authz.errors import AuthzError, Conflict, InputError, NotFound, SignatureRefused, StoreError
from mcp_authz.overview import Overview
from mcp_authz.people_elsewhere import NotAdmitted
from mcp_authz.standing_approvals import StandingApprovals
from mcp_authz.store.ports import Clock, Store
from mcp_authz.turns import SlowDown
from mcp_authz.web.access import Access
from mcp_authz.web.agents import AgentPages
from mcp_authz.web.alike import Alike
from mcp_authz.web.answering import Answering
from mcp_authz.web.consenting import Consenting
from mcp_authz.web.desk import Desk
from mcp_authz.web.door import Door
from mcp_authz.web.elsewhere import Elsewhere
from mcp_authz.web.entering import Entering
from mcp_authz.web.events import Events
from mcp_authz.web.pace import TooManyTries
from mcp_authz.web.pages import page
from mcp_authz.web.passkeys import RelyingParty
from mcp_authz.web.people import PeoplePages
from mcp_authz.web.provider import ProviderTrouble
from mcp_authz.web.sessions import Sessions
from mcp_authz.web.stopping import StoppingPages
from mcp_authz.web.stopping_all import AllCallsPages
from mcp_authz.web.sweeping import SweepingPages
from mcp_authz.web.switching import SwitchingPages
from mcp_authz.web.timeline import Timeline
from mcp_authz.web.tools import ToolPages
from mcp_authz.web.visitor import Cookies, NotSignedIn, SignInAgain
from mcp_authz.web.ways_in import PASSKEYS_ALONE, WaysIn

_STATUS: Final[tuple[tuple[type[AuthzError], int], ...]] = (
    (NotSignedIn, 401),
    (InputError, 400),
    (SignatureRefused, 403),
    (NotAdmitted, 403),
    (Forbidden, 403),
    (ProviderTrouble, 502),
    (TooManyTries, 429),
    (SlowDown, 429),
    (NotFound, 404),
    (Conflict, 409),
    (StoreError, 503),
)


def make_site(
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
) -> ASGIApp:
    """The application behind its door."""
    accounts = Accounts(store, clock)
    cookies, party = Cookies(accounts, store, public_url, roles), RelyingParty(public_url)
    desk = Desk(administration=administration, store=store, cookies=cookies, clock=clock)
    entering = Entering(accounts, cookies, party, clock, ways_in)
    answering = Answering(
        store=store,
        accounts=accounts,
        approvals=approvals,
        standing=standing,
        cookies=cookies,
        party=party,
        clock=clock,
    )
    consenting = Consenting(
        consents=consents,
        store=store,
        accounts=accounts,
        cookies=cookies,
        party=party,
        public_url=public_url,
        clock=clock,
    )
    parts = (
        entering,
        answering,
        Alike(desk, accounts=accounts, standing=standing, party=party),
        consenting,
        Access(desk, consents=consents, accounts=accounts),
        Timeline(desk),
        Sessions(desk),
        AgentPages(desk),
        ToolPages(desk, catalog),
        PeoplePages(desk, overview),
        AllCallsPages(desk),
        SwitchingPages(desk),
        SweepingPages(desk),
        StoppingPages(desk),
        Events(desk, accounts),
    )

    elsewhere: list[Route] = []
    if ways_in.provider is not None:
        elsewhere = Elsewhere(
            provider=ways_in.provider,
            store=store,
            accounts=accounts,
            cookies=cookies,
            public_url=public_url,
            clock=clock,
        ).routes

    async def trouble(request: Request, error: Exception) -> Response:
        return await _trouble(request, error, cookies, clock, ways_in)

    static = Mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))
    app = Starlette(
        routes=[
            *elsewhere,
            *(route for part in parts for route in part.routes),
            static,
        ],
        exception_handlers={AuthzError: trouble, HTTPException: trouble},
    )
    return Door(app, public_url)


async def _trouble(request: Request, error: Exception, cookies: Cookies, clock: Clock, ways_in: WaysIn) -> Response:
    """What is wrong, in a sentence: as a page to whoever looks, as JSON to the page's own script."""
    status = _status(error)
    says = _sentence(error)
    if request.method not in {"GET", "HEAD"}:
        again = {"again": True} if isinstance(error, NotSignedIn) else {}
        return JSONResponse({"error": says, **again}, status)
    if isinstance(error, NotSignedIn):
        response: Response = page(
            "sign_in", status, now=clock(), who=None, ways_in=ways_in, again=isinstance(error, SignInAgain)
        )
        response.headers["WWW-Authenticate"] = "passkey"
        return response
    try:
        who: Actor | None = (await cookies.visitor(request)).actor
    except AuthzError:
        who = None
    return page("trouble", status, now=clock(), who=who, status=status, says=says)


def _status(error: Exception) -> int:
    if isinstance(error, HTTPException):
        return error.status_code
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def _sentence(error: Exception) -> str:
    text = "there is nothing here" if isinstance(error, HTTPException) else str(error)
    return f"{text[:1].upper()}{text[1:]}."
