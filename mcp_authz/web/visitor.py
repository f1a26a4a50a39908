"""Who asks for a page: the cookie of a browser, and the person it stands for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

from mcp_authz import limits
from mcp_authz.accounts import Accounts
from mcp_authz.errors import AuthzError
from mcp_authz.passkey import SignIn
from mcp_authz.principals import Person
from mcp_authz.store.ports import Store

_SECONDS: Final = int(limits.SIGN_IN_LIFETIME.total_seconds())


class NotSignedIn(AuthzError):
    """The browser has no cookie, or one that is good for nothing any more."""

    code = "not_signed_in"


@dataclass(frozen=True, slots=True, kw_only=True)
class Visitor:
    """A person who is signed in."""

    person: Person
    sign_in: SignIn


class Cookies:
    """Gives, reads and takes back the sign-in cookie of one public URL."""

    def __init__(self, accounts: Accounts, store: Store, public_url: str) -> None:
        parts = urlsplit(public_url)
        self._accounts = accounts
        self._store = store
        self._secure = parts.scheme == "https"
        # Cookies of localhost are of all its ports: each gateway has a name of its own, or one would sign out another.
        self.name: Final = "__Host-mcp-authz" if self._secure else f"mcp-authz-{parts.port or 80}"

    def give(self, response: Response, token: str) -> None:
        """The browser that gets the response is signed in."""
        response.set_cookie(
            self.name, token, max_age=_SECONDS, path="/", secure=self._secure, httponly=True, samesite="strict"
        )

    def take(self, response: Response) -> None:
        """The browser that gets the response forgets its cookie."""
        response.delete_cookie(self.name, path="/", secure=self._secure, httponly=True, samesite="strict")

    async def visitor(self, request: Request) -> Visitor:
        """The person whose browser sent the request.

        Raises:
            NotSignedIn: it is nobody's, or not any more.
        """
        sign_in = await self._accounts.signed_in(request.cookies.get(self.name, ""))
        person = None if sign_in is None else await self._store.person(sign_in.person)
        if sign_in is None or person is None or person.status != "active":
            raise NotSignedIn("sign in with your passkey first")
        return Visitor(person=person, sign_in=sign_in)
