"""A gateway elsewhere, as a command reaches it: the administration API, by a person's own login (`mcp-authz login`)."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx2

from mcp_authz.cli.kept_login import person_auth
from mcp_authz.client.discovery import endpoint
from mcp_authz.client.door import NoAnswer
from mcp_authz.client.loopback import browser
from mcp_authz.errors import AuthzError, Conflict, InputError, NotFound
from mcp_authz.rules.display import visible
from mcp_authz.rules.scope import READ, STOP

PATH: Final = "/administration"
_SECONDS: Final = 60.0
_MOST: Final = 8 * 1024 * 1024  # bytes of an answer
_ERRORS: Final[Mapping[int, type[AuthzError]]] = {400: InputError, 404: NotFound, 409: Conflict}


class Refused(AuthzError):
    """The gateway elsewhere does not do it."""

    code = "refused"


class Elsewhere:
    """One gateway that administers itself for whoever may."""

    def __init__(self, url: str, http: httpx2.AsyncClient) -> None:
        self.url = url
        self._http = http

    async def read(self, path: str, **query: str | int | None) -> dict[str, Any]:
        """Return what is there.

        Raises:
            NotFound, InputError, Refused, NoAnswer: what the gateway says, or that it says nothing.
        """
        asked = {name: str(value) for name, value in query.items() if value is not None}
        return await self._said("GET", path, params=asked)

    async def change(self, path: str, **members: Any) -> dict[str, Any]:
        """Return what came of it.

        Raises:
            NotFound, InputError, Refused, NoAnswer: as `read`.
        """
        return await self._said("POST", path, json=members)

    async def _said(self, method: str, path: str, **more: Any) -> dict[str, Any]:
        try:
            answer = await self._http.request(method, f"{self.url}{PATH}{path}", **more)
        except httpx2.HTTPError:
            raise NoAnswer(f"the gateway at {self.url} cannot be reached") from None
        try:
            if len(answer.content) > _MOST:
                raise Refused(f"what {self.url} answered is too long; ask for less")
            said = answer.json()
        except ValueError:
            said = None
        if not isinstance(said, dict):
            raise Refused(f"{self.url} answered {answer.status_code} and no JSON; is it a gateway of this version?")
        if answer.status_code != 200:
            why = visible(str(said.get("error_description") or said.get("error") or answer.status_code))
            raise _ERRORS.get(answer.status_code, Refused)(why)
        return said


@asynccontextmanager
async def elsewhere(url: str, *, stops: bool = False) -> AsyncIterator[Elsewhere]:
    """The gateway can be asked; a browser opens where the person has not let this program do that yet.

    Raises:
        InputError: the URL is none, or one by which a token would travel in the open.
    """
    scope = f"{READ} {STOP}" if stops else READ
    auth = person_auth(url, scope=scope, show=_shown, beside=PATH)
    async with httpx2.AsyncClient(auth=auth, timeout=_SECONDS) as http:
        yield Elsewhere(endpoint(url).removesuffix("/mcp"), http)


def _shown(url: str) -> None:
    sys.stderr.write(f"To agree to this in your browser:\n\n  {url}\n\n")
    sys.stderr.flush()
    browser(url)
