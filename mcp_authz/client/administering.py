"""A gateway as a person administers it from their own program: the administration API, by their sign-in."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import httpx2

from mcp_authz.client.door import NoAnswer
from mcp_authz.errors import AuthzError, Conflict, InputError, NotFound
from mcp_authz.rules.display import visible

PATH: Final = "/administration"
_SECONDS: Final = 60.0
_MOST: Final = 8 * 1024 * 1024  # characters of an answer
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
async def administering(url: str, auth: httpx2.Auth) -> AsyncIterator[Elsewhere]:
    """The gateway at this origin can be asked; `auth` is a sign-in there that reaches below `PATH`."""
    async with httpx2.AsyncClient(auth=auth, timeout=_SECONDS) as http:
        yield Elsewhere(url, http)
