"""Sessions on the page: who works for whom, and one session as a tree with its picture."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mcp_authz import limits
from mcp_authz.administration import Actor
from mcp_authz.principals import Session, SessionId
from mcp_authz.rules.administration import permits, reaches_everything
from mcp_authz.rules.display import visible
from mcp_authz.web import door
from mcp_authz.web.desk import Desk
from mcp_authz.web.picture import ALONE, INLINE, drawn
from mcp_authz.web.session_facts import ShownSession, calls, shown_session, whom


class Sessions:
    """Shows sessions to those who may see them; what is stopped is stopped by `web.stopping`."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @property
    def routes(self) -> list[Route]:
        """Where the requests come in."""
        return [
            Route("/sessions", self.list),
            Route("/sessions/{session}", self.session),
            Route("/sessions/{session}/picture.svg", self.picture),
        ]

    async def list(self, request: Request) -> Response:
        """The sessions that are open, and those that were; of either no more than a page has room for."""
        actor = await self._desk.actor(request)
        return await self._desk.page(
            "sessions",
            actor,
            everything=reaches_everything("session list", actor.roles),
            may_stop_all=permits("stop-all", actor.roles),
            **await self._some(actor, request, "open"),
            **await self._some(actor, request, "over"),
        )

    async def session(self, request: Request) -> Response:
        """One session as a tree, with its picture above."""
        actor = await self._desk.actor(request)
        shown = await self._shown(actor, request)
        return await self._desk.page(
            "session",
            actor,
            one=shown,
            purpose=visible(shown.session.purpose),
            calls=calls(shown.session),
            picture=drawn(shown.picture, INLINE, title=_title(shown), told=shown.told),
        )

    async def picture(self, request: Request) -> Response:
        """The picture alone; nothing that is in it could run, wherever it is opened."""
        actor = await self._desk.actor(request)
        shown = await self._shown(actor, request)
        text = drawn(shown.picture, ALONE, title=_title(shown), told=shown.told)
        headers = {"Content-Security-Policy": door.ALONE}
        return Response(f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n', 200, headers, "image/svg+xml")

    async def _shown(self, actor: Actor, request: Request) -> ShownSession:
        found = await self._desk.administration.session(actor, SessionId(request.path_params["session"]))
        return await shown_session(self._desk.administration, self._desk.store, actor, found, self._desk.clock())

    async def _some(self, actor: Actor, request: Request, which: str) -> dict[str, object]:
        """A page of the open ones, or of the others, and where the next page begins."""
        before = request.query_params.get(f"{which}_before")
        found = await self._desk.administration.some_sessions(
            actor,
            are_open=which == "open",
            before=None if before is None else SessionId(before),
            limit=limits.SESSIONS_SHOWN + 1,
        )
        shown = found[: limits.SESSIONS_SHOWN]
        return {
            f"are_{which}": [_row(one) for one in shown],
            f"more_{which}": shown[-1].id if len(found) > len(shown) else None,
        }


def _row(session: Session) -> dict[str, object]:
    return {
        "id": session.id,
        "agent": visible(session.agent),
        "whom": visible(whom(session)),
        "purpose": visible(session.purpose),
        "calls": calls(session),
        "started_at": session.started_at,
        "expires_at": session.expires_at,
    }


def _title(shown: ShownSession) -> str:
    return f"Who delegated what to whom for {shown.whom}"
