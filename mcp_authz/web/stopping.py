"""Stopping on the page: first what would stop, by name and number, then a reason, then it is revoked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mcp_authz.errors import NotFound
from mcp_authz.principals import PersonName
from mcp_authz.rules.display import visible
from mcp_authz.store.ports import RevocableKind
from mcp_authz.web import stop_facts
from mcp_authz.web.desk import Desk
from mcp_authz.web.door import read_reason
from mcp_authz.web.session_facts import whom
from mcp_authz.web.stop_facts import Named, Stops
from mcp_authz.web.stop_names import back, called, passkey_called

_KINDS: Final[Mapping[str, tuple[str, str]]] = {
    # What the button says, and what goes on.
    "link": ("Prune", "The link above it and its siblings go on."),
    "session": ("End", "What was agreed to stays: another session can be started from it."),
    "grant": ("End", "What else was agreed to goes on. Whoever it was for has to ask again."),
    "agent": ("Revoke", "Whoever delegated to it goes on. The agent never comes back."),
    "key": ("Revoke", "Its holder goes on with another key, if there is one. The key never comes back."),
    "person": (
        "Revoke",
        "They are signed out, and what they approved ahead ends. Agents that they own go on for others."
        " The person never comes back.",
    ),
    "passkey": (
        "Revoke",
        "Whoever is signed in with it is signed out, and what it approved ahead ends. Other passkeys go on."
        " This one never comes back.",
    ),
    "client": (
        "Revoke",
        "The people whom it acted for go on, with other clients. The client never comes back.",
    ),
}


class StoppingPages:
    """Asks `Administration` what may be revoked, and revokes it there; to be signed in is enough for what is safe."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @property
    def routes(self) -> list[Route]:
        """Where the requests come in; pages for what else is stopped stand before these."""
        return [
            Route("/stop/{kind}/{name:path}", self.before_stop),
            Route("/stop/{kind}/{name:path}", self.stop, methods=["POST"]),
        ]

    async def before_stop(self, request: Request) -> Response:
        """What revoking this thing would stop; nothing is changed."""
        actor = await self._desk.actor(request)
        kind, name = _thing(request)
        stops = await self._desk.administration.foresee(actor, kind, name)
        verb, goes_on = _KINDS[kind]
        return await self._desk.page(
            "stop",
            actor,
            verb=verb,
            press=f"{verb} {'them' if kind == 'person' else 'it'}",
            what=visible(await called(self._desk.store, kind, name)),
            goes_on=goes_on,
            over="Revoked already" if stops.already else None,
            accept=None,
            stops=[
                stop_facts.counted(
                    [
                        Named(who=visible(link.holder), joins=" for ", what=visible(whom(session)), id=link.id)
                        for session, link in stops.links
                    ],
                    "delegation",
                    "delegations",
                ),
                *await self._sign_ins(kind, name),
                await stop_facts.held(self._desk.store, stops.holds),
                stop_facts.run(await self._desk.administration.running(actor, kind, name)),
            ],
            post=f"/stop/{kind}/{quote(name)}",
            back=await back(self._desk, actor, kind, name),
        )

    async def stop(self, request: Request) -> Response:
        """The thing is revoked, with what descends from it, on record with who it was and why."""
        actor = await self._desk.actor(request)
        kind, name = _thing(request)
        reason = await read_reason(request)
        await self._desk.administration.revoke(actor, kind, name, reason=reason)
        return JSONResponse({"next": await back(self._desk, actor, kind, name)})

    async def _sign_ins(self, kind: RevocableKind, name: str) -> list[Stops]:
        """Of a person or a passkey, in how many browsers it is signed in."""
        store = self._desk.store
        if kind == "person":
            count = len(await store.sign_ins_of(PersonName(name)))
        elif kind == "passkey" and (passkey := await passkey_called(store, name)) is not None:
            known = await store.sign_ins_of(passkey.person)
            count = len([one for one in known if one.credential == passkey.credential])
        else:
            return []
        return [Stops(count=count, one="sign-in", many="sign-ins")]


def _thing(request: Request) -> tuple[RevocableKind, str]:
    """What the path names.

    Raises:
        NotFound: nothing that pages stop.
    """
    kind = request.path_params["kind"]
    if kind not in _KINDS:
        raise NotFound("there is nothing here that could be stopped")
    return cast(RevocableKind, kind), request.path_params["name"]
