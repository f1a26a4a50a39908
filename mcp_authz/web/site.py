"""The page as one application: its parts, its routes, and what becomes of an error."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from mcp_authz.accounts import Accounts
from mcp_authz.approvals import Approvals
from mcp_authz.errors import AuthzError, Conflict, InputError, NotFound, SignatureRefused, StoreError
from mcp_authz.store.ports import Clock, Store
from mcp_authz.web.answering import Answering
from mcp_authz.web.door import Door
from mcp_authz.web.entering import Entering
from mcp_authz.web.events import Events
from mcp_authz.web.pages import page
from mcp_authz.web.passkeys import RelyingParty
from mcp_authz.web.visitor import Cookies, NotSignedIn

_STATUS: Final[tuple[tuple[type[AuthzError], int], ...]] = (
    (NotSignedIn, 401),
    (InputError, 400),
    (SignatureRefused, 403),
    (NotFound, 404),
    (Conflict, 409),
    (StoreError, 503),
)


def make_site(*, store: Store, approvals: Approvals, public_url: str, clock: Clock) -> ASGIApp:
    """The application behind its door."""
    accounts = Accounts(store, clock)
    cookies, party = Cookies(accounts, store, public_url), RelyingParty(public_url)
    entering = Entering(accounts, cookies, party, clock)
    answering = Answering(
        store=store, accounts=accounts, approvals=approvals, cookies=cookies, party=party, clock=clock
    )
    events = Events(store, accounts, cookies, clock)

    async def trouble(request: Request, error: Exception) -> Response:
        return await _trouble(request, error, cookies, clock)

    static = Mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))
    app = Starlette(
        routes=[*entering.routes, *answering.routes, *events.routes, static],
        exception_handlers={AuthzError: trouble, HTTPException: trouble},
    )
    return Door(app, public_url)


async def _trouble(request: Request, error: Exception, cookies: Cookies, clock: Clock) -> Response:
    """What is wrong, in a sentence: as a page to whoever looks, as JSON to the page's own script."""
    status = _status(error)
    says = _sentence(error)
    if request.method not in {"GET", "HEAD"}:
        return JSONResponse({"error": says}, status)
    if isinstance(error, NotSignedIn):
        response: Response = page("sign_in", status, now=clock(), person=None)
        response.headers["WWW-Authenticate"] = "passkey"
        return response
    try:
        person: str | None = (await cookies.visitor(request)).person.name
    except AuthzError:
        person = None
    return page("trouble", status, now=clock(), person=person, status=status, says=says)


def _status(error: Exception) -> int:
    if isinstance(error, HTTPException):
        return error.status_code
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def _sentence(error: Exception) -> str:
    text = "there is nothing here" if isinstance(error, HTTPException) else str(error)
    return f"{text[:1].upper()}{text[1:]}."
