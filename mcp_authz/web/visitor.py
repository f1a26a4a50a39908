"""Who asks for a page: the cookie of a browser, and the person it stands for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from mcp_authz import limits
from mcp_authz.accounts import Accounts
from mcp_authz.administration import NOBODY, Actor, RolesOfPeople
from mcp_authz.errors import AuthzError, Conflict
from mcp_authz.passkey import SignIn
from mcp_authz.principals import Person
from mcp_authz.store.ports import Store

_SECONDS: Final = int(limits.SIGN_IN_LIFETIME.total_seconds())


class NotSignedIn(AuthzError):
    """The browser has no cookie, or one that is good for nothing any more."""

    code = "not_signed_in"


class SignInAgain(NotSignedIn):
    """The browser is somebody's, who proved it too long ago for what they want to do."""

    code = "sign_in_again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """A person who is signed in."""

    person: Person
    sign_in: SignIn
    actor: Actor  # the person with their roles, as they are now


class Cookies:
    """Gives, reads and takes back the sign-in cookie of one public URL."""

    def __init__(self, accounts: Accounts, store: Store, public_url: str, roles: RolesOfPeople = NOBODY) -> None:
        parts = urlsplit(public_url)
        self._accounts = accounts
        self._store = store
        self._roles = roles
        self._secure = parts.scheme == "https"
        # Cookies of localhost are of all its ports: each gateway has a name of its own, or one would sign out another.
        self.name: Final = "__Host-mcp-authz" if self._secure else f"mcp-authz-{parts.port or 80}"
        self.way_name: Final = f"{self.name}-way"

    def give(self, response: Response, token: str) -> None:
        """The browser that gets the response is signed in."""
        response.set_cookie(
            self.name, token, max_age=_SECONDS, path="/", secure=self._secure, httponly=True, samesite="strict"
        )

    def take(self, response: Response) -> None:
        """The browser that gets the response forgets its cookie."""
        response.delete_cookie(self.name, path="/", secure=self._secure, httponly=True, samesite="strict")

    def give_way(self, response: Response, sealed: str) -> None:
        """The browser that gets the response is on its way to the provider; the provider's page may send it back."""
        seconds = int(limits.PROVIDER_SIGN_IN.total_seconds())
        response.set_cookie(
            self.way_name, sealed, max_age=seconds, path="/", secure=self._secure, httponly=True, samesite="lax"
        )

    def take_way(self, response: Response) -> None:
        """The browser that gets the response has come back."""
        response.delete_cookie(self.way_name, path="/", secure=self._secure, httponly=True, samesite="lax")

    def way(self, request: Request) -> str:
        """What `give_way` gave; empty where it gave nothing."""
        return request.cookies.get(self.way_name, "")

    def fresh_enough(self, visitor: Visitor, max_age: timedelta) -> bool:
        """Whether the person signed in no longer ago than `max_age`."""
        return self._accounts.is_fresh(visitor.sign_in, max_age)

    def require_fresh(self, visitor: Visitor, max_age: timedelta) -> None:
        """The person signed in no longer ago than `max_age`.

        Raises:
            SignInAgain: the page to sign in again is what a browser gets then; it comes back here afterwards.
        """
        if not self.fresh_enough(visitor, max_age):
            raise SignInAgain("sign in again first: what you want to do takes a sign-in of just now")

    async def require_half(self, visitor: Visitor, half: str) -> None:
        """The request comes from a page of the browser that signed in with the provider, not only with its cookie.

        Cookies of localhost go to all its ports; the other half is kept where only pages of this origin read it.

        Raises:
            Conflict: it is not the other half of this sign-in.
        """
        if not await self._accounts.has_other_half(visitor.sign_in, half):
            raise Conflict("this browser has lost its half of your sign-in; sign out, and sign in again")

    async def visitor(self, request: Request) -> Visitor:
        """The person whose browser sent the request.

        Raises:
            NotSignedIn: it is nobody's, or not any more.
        """
        sign_in = await self._accounts.signed_in(request.cookies.get(self.name, ""))
        person = None if sign_in is None else await self._store.person(sign_in.person)
        if sign_in is None or person is None or person.status != "active":
            raise NotSignedIn("sign in first")
        if _is_somebodys_doing(request):
            await self._accounts.note_use(sign_in)
        return Visitor(person=person, sign_in=sign_in, actor=self._roles.actor(person))


def _is_somebodys_doing(request: Request) -> bool:
    """Whether a person asked for it, not the script of a page that was left open, which fetches what has changed."""
    return request.method not in {"GET", "HEAD"} or request.headers.get("sec-fetch-dest", "document") != "empty"
