"""A gateway as a person administers it from their own program: the administration API, by their sign-in."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final
from urllib.parse import quote

import httpx2

from mcp_authz.client.door import NoAnswer
from mcp_authz.errors import AuthzError, Conflict, InputError, NotFound
from mcp_authz.rules.display import visible

PATH: Final = "/administration"
_SECONDS: Final = 60.0
_MOST: Final = 8 * 1024 * 1024  # bytes of an answer
_WHY: Final = 2000  # characters of why it is not done
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
            async with self._http.stream(method, f"{self.url}{PATH}{path}", **more) as answer:
                status, body = answer.status_code, await self._whole(answer)
        except httpx2.HTTPError:
            raise NoAnswer(f"the gateway at {self.url} cannot be reached") from None
        try:
            said = json.loads(body)
        except (ValueError, RecursionError):
            said = None
        if not isinstance(said, dict):
            raise Refused(f"{self.url} answered {status} and no JSON; is it a gateway of this version?")
        if status != 200:
            why = visible(str(said.get("error_description") or said.get("error") or status))[:_WHY]
            raise _ERRORS.get(status, Refused)(why)
        return said

    async def _whole(self, answer: httpx2.Response) -> bytes:
        """The body; what is too long is not read to its end."""
        body = bytearray()
        async for chunk in answer.aiter_bytes():
            body += chunk
            if len(body) > _MOST:
                raise Refused(f"what {self.url} answered is too long; ask for less")
        return bytes(body)


def segment(text: str) -> str:
    """Return what somebody named as one part of a path, whatever is in it.

    Raises:
        InputError: nothing can be called that.
    """
    if text in ("", ".", ".."):
        raise InputError(f"`{text}` is no id")
    return quote(text, safe="")


@asynccontextmanager
async def administering(url: str, auth: httpx2.Auth) -> AsyncIterator[Elsewhere]:
    """The gateway at this origin can be asked; `auth` is a sign-in there that reaches below `PATH`."""
    async with httpx2.AsyncClient(auth=auth, timeout=_SECONDS) as http:
        yield Elsewhere(url, http)
