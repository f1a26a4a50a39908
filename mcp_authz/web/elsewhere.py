"""The way to the OpenID provider and back: a browser leaves with a sealed cookie, and comes back as somebody's.

Between the two requests nothing is remembered here but, afterwards, that a sign-in was used. The cookie of the way is
`SameSite=Lax`, since the provider's page sends the browser back; the sign-in cookie that is then given is strict, and a
browser would not send that one along a redirect that began elsewhere. So the answer is a page, which goes on by itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mcp_authz import limits
from mcp_authz.accounts import Accounts
from mcp_authz.errors import Conflict, InputError, SignatureRefused
from mcp_authz.people_elsewhere import PeopleElsewhere, Provider, Vouched
from mcp_authz.rules import strict_json
from mcp_authz.rules.keys import Sealer, b64url, equal, random_bytes, unb64url
from mcp_authz.store.ports import Clock, Once, Store
from mcp_authz.web.door import read_body, text_of
from mcp_authz.web.next_page import next_page
from mcp_authz.web.pace import Pace
from mcp_authz.web.pages import page
from mcp_authz.web.provider import OpenIdProvider, ProviderTrouble
from mcp_authz.web.visitor import Cookies

PATH: Final = "/sign-in/callback"
_CONTEXT: Final = b"sign-in with a provider"
_ONCE: Final = "provider-sign-in"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """One sign-in that is under way."""

    state: str
    session: Mapping[str, Any]
    next: str
    fresh: bool  # the person was to be asked anew
    began_at: datetime

    def sealed(self, sealer: Sealer) -> str:
        """The cookie that says all of it, to us alone."""
        told = {
            "state": self.state,
            "session": dict(self.session),
            "next": self.next,
            "fresh": self.fresh,
            "began": int(self.began_at.timestamp()),
        }
        return b64url(sealer.seal(json.dumps(told).encode(), _CONTEXT))


def _unsealed(cookie: str, sealer: Sealer) -> _Way:
    try:
        told = strict_json.parse_object(sealer.unseal(unb64url(cookie), _CONTEXT))
    except (InputError, SignatureRefused):
        raise Conflict("this sign-in was not begun in this browser, or is over; sign in again") from None
    return _Way(
        state=told["state"],
        session=told["session"],
        next=told["next"],
        fresh=told["fresh"],
        began_at=datetime.fromtimestamp(told["began"], UTC),
    )


class Elsewhere:
    """Lets people in whom the provider vouches for."""

    def __init__(
        self, *, provider: Provider, store: Store, accounts: Accounts, cookies: Cookies, public_url: str, clock: Clock
    ) -> None:
        self._name = provider.name
        self._store = store
        self._accounts = accounts
        self._cookies = cookies
        self._clock = clock
        self._people = PeopleElsewhere(store, clock, provider)
        self._provider = OpenIdProvider(provider, f"{public_url}{PATH}", clock)
        self._pace = Pace()

    @property
    def routes(self) -> list[Route]:
        """Where the requests come in."""
        return [
            Route("/sign-in/provider", self.leave, methods=["POST"]),
            Route(PATH, self.come_back),
        ]

    async def leave(self, request: Request) -> Response:
        """Where the browser goes to sign in; `fresh` has the provider ask anew, whoever is signed in there."""
        body = await read_body(request)
        next_, fresh = next_page(text_of(body, "next", most=limits.NEXT_PAGE * 8)), body.get("fresh") is True
        longest = limits.APPROVAL_SIGN_IN if fresh else limits.SIGN_IN_LIFETIME
        asked: dict[str, str | int] = {"max_age": int(longest.total_seconds())}
        if fresh:
            asked["prompt"] = "login"
        sent = await self._provider.send(request, **asked)
        way = _Way(state=sent.state, session=sent.session, next=next_, fresh=fresh, began_at=self._clock())
        response = JSONResponse({"next": sent.url})
        self._cookies.give_way(response, way.sealed(await self._sealer()))
        return response

    async def come_back(self, request: Request) -> Response:
        """The person is signed in; the page goes on to where they wanted to be.

        Raises:
            Conflict: the sign-in is another browser's, too long ago, or over.
            ProviderTrouble: the provider's answer proves nothing.
            NotAdmitted: it vouches for somebody who may not come in.
        """
        way = await self._way(request)
        vouched = await self._vouched(request, way)
        person = await self._people.person(vouched)
        token = await self._accounts.sign_in_elsewhere(person.name, vouched.authentication)
        half = await self._accounts.other_half(token)
        response = page("arrived", now=self._clock(), who=None, name=person.name, next=way.next, half=half)
        self._cookies.take_way(response)
        self._cookies.give(response, token)
        return response

    async def _vouched(self, request: Request, way: _Way) -> Vouched:
        """Whom the provider vouches for; a source whose answers prove nothing takes turns, and is told to wait."""
        async with self._pace.turn(request):
            try:
                vouched = await self._provider.vouched(request, way.session)
                if way.fresh and vouched.authentication.at < way.began_at - limits.CLOCK_SKEW:
                    raise ProviderTrouble(
                        f"{self._name} did not ask you to sign in again, or does not say when you did; use a passkey"
                    )
            except ProviderTrouble:
                self._pace.charge(request)
                raise
        return vouched

    async def _way(self, request: Request) -> _Way:
        """The sign-in that this answer ends; nobody uses it again."""
        way = _unsealed(self._cookies.way(request), await self._sealer())
        until = way.began_at + limits.PROVIDER_SIGN_IN
        if not equal(request.query_params.get("state", "").encode(), way.state.encode()):
            raise Conflict("this answer belongs to another sign-in; sign in again")
        if self._clock() >= until:
            raise Conflict("this sign-in was begun too long ago; sign in again")
        if not await self._store.remember(Once(kind=_ONCE, id=way.state, expires_at=until)):
            raise Conflict("this sign-in is over already; sign in again")
        return way

    async def _sealer(self) -> Sealer:
        return Sealer(await self._store.secret("provider-sign-in-key", lambda: random_bytes(32)))
