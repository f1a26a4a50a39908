"""Ending on the page everything that a person, an agent or a client has, for when nobody knows what of it is wrong."""

from __future__ import annotations

from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mcp_authz.halting import SweptAway
from mcp_authz.rules.display import visible
from mcp_authz.web import stop_facts
from mcp_authz.web.desk import Desk
from mcp_authz.web.door import read_reason
from mcp_authz.web.stop_facts import Named, Stops

_GOES_ON = {
    "user": "Passkeys stay: they can sign in again, and agree anew. Agents that they own go on for others.",
    "agent": "The agent stays, without a key: give it a new one with mcp-authz agent code.",
    "client": "The client stays: people can agree to it anew.",
}
_BACK = {"user": "/person/", "agent": "/agent/"}
_KINDS = {
    "grant": ("thing that was agreed to", "things that were agreed to"),
    "session": ("session", "sessions"),
    "link": ("delegation", "delegations"),
    "key": ("key", "keys"),
    "approval": ("standing approval", "standing approvals"),
}


class SweepingPages:
    """Asks `Administration` what a subject has until now, and ends it there; the subject itself stays."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @property
    def routes(self) -> list[Route]:
        """Where the requests come in."""
        return [
            Route("/stop/everything/{subject:path}", self.before_sweep),
            Route("/stop/everything/{subject:path}", self.sweep, methods=["POST"]),
        ]

    async def before_sweep(self, request: Request) -> Response:
        """What of the subject would end; nothing is changed."""
        actor, subject = await self._desk.actor(request), request.path_params["subject"]
        away = await self._desk.administration.foresee_sweep(actor, subject, self._desk.clock())
        kind, _, name = subject.partition(":")
        return await self._desk.page(
            "stop",
            actor,
            verb="End",
            press="End all of it",
            what=visible(f"everything that {name} has until now"),
            goes_on=_GOES_ON[kind],
            over="Nothing to end" if away.swept.is_nothing else None,
            accept=None,
            stops=[
                *_ended(kind, away),
                await stop_facts.held(self._desk.store, away.swept.holds),
                stop_facts.run(away.running),
            ],
            post=f"/stop/everything/{quote(subject)}",
            back=_back(subject),
        )

    async def sweep(self, request: Request) -> Response:
        """What the subject had is revoked, on record with who did it and why."""
        actor, subject = await self._desk.actor(request), request.path_params["subject"]
        reason = await read_reason(request)
        await self._desk.administration.sweep(actor, subject, self._desk.clock(), reason=reason)
        return JSONResponse({"next": _back(subject)})


def _ended(kind: str, away: SweptAway) -> list[Stops]:
    """How many of each kind, by their ids."""
    swept = away.swept
    stops = [
        stop_facts.counted([Named(id=visible(id_)) for id_ in ids], *_KINDS[of]) for of, ids in swept.ids.items() if ids
    ]
    if kind == "user":
        stops.append(Stops(count=swept.sign_ins, one="sign-in", many="sign-ins"))
    if kind != "client":
        what = "link for a passkey" if kind == "user" else "enrolment code"
        many = "links for a passkey" if kind == "user" else "enrolment codes"
        stops.append(Stops(count=swept.codes, one=f"unused {what}", many=f"unused {many}"))
    return stops


def _back(subject: str) -> str:
    kind, _, name = subject.partition(":")
    return f"{_BACK[kind]}{quote(name)}" if kind in _BACK else "/people#clients"
