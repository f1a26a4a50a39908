"""The stream by which an open page learns that what it shows has changed (server-sent events)."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Final

import anyio
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from mcp_authz import limits
from mcp_authz.accounts import Accounts
from mcp_authz.model import HeldCall, HoldState
from mcp_authz.principals import Person, SessionId
from mcp_authz.web import facts
from mcp_authz.web.desk import Desk
from mcp_authz.web.visitor import Visitor

_PAUSE: Final = limits.STREAM_PAUSE.total_seconds()
_KEPT_ALIVE: Final = limits.STREAM_KEPT_ALIVE.total_seconds()

Seen = tuple[tuple[str, str, int], ...]


class Events:
    """One stream for each open page, a few for each sign-in; it ends with the sign-in."""

    def __init__(self, desk: Desk, accounts: Accounts) -> None:
        self._desk = desk
        self._accounts = accounts
        self._open: Counter[bytes] = Counter()

    @property
    def routes(self) -> list[Route]:
        """Where the requests come in."""
        return [Route("/events", self.stream)]

    async def stream(self, request: Request) -> Response:
        """A stream that says when to look again."""
        if request.headers.get("sec-fetch-site", "same-origin") != "same-origin":
            return PlainTextResponse("This request does not come from this page.", 403)
        visitor = await self._desk.cookies.visitor(request)
        watched = await self._watched(request, visitor)
        digest = visitor.sign_in.digest
        if self._open[digest] >= limits.STREAMS_PER_SIGN_IN:
            return Response(status_code=204)  # by which a browser knows not to try again
        self._open[digest] += 1
        return _Closing(self._events(visitor, watched), lambda: self._close(digest))

    def _close(self, digest: bytes) -> None:
        self._open[digest] -= 1
        if not self._open[digest]:
            del self._open[digest]

    async def _events(self, visitor: Visitor, watched: SessionId | None) -> AsyncIterator[str]:
        number = await self._desk.store.changed(0)
        seen = await self._seen(visitor.person, watched)
        yield "retry: 1000\n\n"
        while await self._accounts.is_signed_in(visitor.sign_in):
            number, woken = await self._next(number)
            if not woken:
                yield ": still here\n\n"
            if (now := await self._seen(visitor.person, watched)) != seen:
                seen = now
                yield "event: changed\ndata: {}\n\n"
            await anyio.sleep(_PAUSE)
        yield "event: signed-out\ndata: {}\n\n"

    async def _next(self, number: int) -> tuple[int, bool]:
        """The number of the next change, and whether there was one in time."""
        with anyio.move_on_after(_KEPT_ALIVE):
            return await self._desk.store.changed(number), True
        return number, False

    async def _watched(self, request: Request, visitor: Visitor) -> SessionId | None:
        """The session whose page is open, if one is; somebody else's cannot be watched."""
        name = request.query_params.get("session")
        if name is None:
            return None
        session, _ = await self._desk.administration.session(visitor.actor, SessionId(name))
        return session.id

    async def _seen(self, person: Person, watched: SessionId | None) -> Seen:
        """All by which pages of this person differ; the page of one session differs by its links."""
        if watched is not None:
            return tuple((watched, "links", number) for number in await self._desk.store.session_mark(watched))
        pending = await self._desk.store.holds(states=(HoldState.PENDING,))
        lately = await self._desk.store.latest_holds(limits.DECIDED_SHOWN)
        shown = {held.id: held for held in (*pending, *lately) if facts.may_answer(held, person)}
        return tuple(sorted(_state(held) for held in shown.values()))


def _state(held: HeldCall) -> tuple[str, str, int]:
    return held.id, held.state.value, len(held.verdicts)


class _Closing(StreamingResponse):
    """A stream that says when it has ended, however it did."""

    def __init__(self, events: AsyncIterator[str], closed: Callable[[], None]) -> None:
        super().__init__(events, media_type="text/event-stream")
        self._closed = closed

    async def __call__(self, *asgi: object) -> None:
        """Send it."""
        try:
            await super().__call__(*asgi)  # type: ignore[arg-type]
        finally:
            self._closed()
