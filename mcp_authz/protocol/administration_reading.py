"""What the administration API tells: the answers to its `GET` requests."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, get_args

from starlette.requests import Request

from mcp_authz import limits, views
from mcp_authz.administration import Actor, Administration
from mcp_authz.audit_proofs import Proofs
from mcp_authz.audit_story import story
from mcp_authz.errors import InputError
from mcp_authz.overview import Overview
from mcp_authz.principals import AgentName, PersonName, SessionId
from mcp_authz.protocol.administration_asked import Answer, asked
from mcp_authz.rules.audit_query import asked_for, number
from mcp_authz.store.ports import EventKind, Record

_EVENTS: Final = get_args(EventKind)


class Reading:
    """Reads what is asked for, and has `Administration` and `Overview` look for it."""

    def __init__(self, administration: Administration, overview: Overview, proofs: Proofs) -> None:
        self._administration = administration
        self._overview = overview
        self._proofs = proofs

    @property
    def answers(self) -> Mapping[str, Answer]:
        """What answers at which path."""
        return {
            "/records": self.records,
            "/export": self.export,
            "/calls/{call}": self.call,
            "/calls/{call}/bundle": self.bundle,
            "/audit-keys": self.audit_keys,
            "/agents": self.agents,
            "/agents/{agent}": self.agent,
            "/sessions": self.sessions,
            "/sessions/{session}": self.session,
            "/users": self.users,
            "/users/{user}": self.user,
            "/clients": self.clients,
            "/grants": self.grants,
            "/tools": self.tools,
            "/keys": self.keys,
        }

    async def records(self, request: Request, actor: Actor) -> Mapping[str, Any]:
        """The newest records that are asked for and may be read, oldest first; `reached` is how far it was looked.

        `head` is the number of the newest record.
        """
        said, limit = asked(request)
        before, after = (number(name, said.pop(name, None)) for name in ("before", "after"))
        found = await self._administration.records(
            actor,
            asked_for(said, _EVENTS),
            limit=limit,
            before=before,
            after=after or 0,
            at_most=limits.RECORDS_LOOKED_AT,
        )
        records = [views.record(record) for record in found.records]
        return {"records": records, "reached": found.reached, "head": found.head}

    async def export(self, request: Request, actor: Actor) -> Mapping[str, Any]:
        """The oldest records that are asked for, no more than fit; `reached` is how far it was looked.

        `first`, `head` and `hash` say where the log begins, and where it ends.
        """
        said, limit = asked(request)
        before, after = (number(name, said.pop(name, None)) for name in ("before", "after"))
        found = await self._administration.export(
            actor,
            asked_for(said, _EVENTS),
            limit=limit,
            after=after or 0,
            before=before,
            at_most=limits.RECORDS_LOOKED_AT,
        )
        records = _fitting(found.records)
        reached = found.reached if len(records) == len(found.records) else records[-1]["sequence"]
        ends = {"first": found.first, "head": found.head, "hash": found.hash.hex()}
        return {"records": records, "reached": reached, **ends}

    async def call(self, request: Request, actor: Actor) -> Mapping[str, Any]:
        """What is on record about one call or hold, and as a sentence."""
        found = await self._administration.story(actor, request.path_params["call"])
        told = story([record.event for record in found])
        return {"story": told, "records": [views.record(record) for record in found]}

    async def bundle(self, request: Request, actor: Actor) -> Mapping[str, Any]:
        """What `audit explain --bundle` writes of one call or hold; never with values of arguments."""
        _nothing(request)
        return await self._proofs.bundle(actor, request.path_params["call"])

    async def audit_keys(self, request: Request, actor: Actor) -> Mapping[str, Any]:
        """The public keys of all checkpoints, as a JWK Set."""
        _nothing(request)
        return await self._proofs.keys(actor)

    async def agents(self, request: Request, actor: Actor) -> Mapping[str, Any]:
        """By name, those behind `after`; `next` is what to ask for behind it, where there are more."""
        said, limit = asked(request, "after")
        found = await self._administration.some_agents(actor, after=said.get("after", ""), limit=limit + 1)
        more = found[limit - 1].name if len(found) > limit else None
        return {"agents": [views.agent(agent) for agent in found[:limit]], "next": more}

    async def sessions(self, request: Request, actor: Actor) -> Mapping[str, Any]:
        """The newest first, those that are open or those that are `over`; `next` as for agents."""
        said, limit = asked(request, "before", "state")
        state, before = said.get("state", "open"), said.get("before")
        if state not in ("open", "over"):
            raise InputError("`state` is open or over")
        found = await self._administration.some_sessions(
            actor, are_open=state == "open", before=None if before is None else SessionId(before), limit=limit + 1
        )
        more = found[limit - 1].id if len(found) > limit else None
        return {"sessions": [views.session(session) for session in found[:limit]], "next": more}

    async def session(self, request: Request, actor: Actor) -> Mapping[str, Any]:
        """One session with its links, parents first."""
        session, links = await self._administration.session(actor, SessionId(request.path_params["session"]))
        return {**views.session(session), "links": [views.link(link) for link in links]}

    async def agent(self, request: Request, actor: Actor) -> Mapping[str, Any]:
        """One agent with its keys."""
        agent, keys = await self._overview.agent(actor, AgentName(request.path_params["agent"]))
        return {**views.agent(agent), "keys": views.keys(keys)}

    async def users(self, request: Request, actor: Actor) -> Mapping[str, Any]:
        """Every person, a page at a time."""
        found = [views.person(one) for one in await self._overview.people(actor)]
        return _page(request, "users", found, "name")

    async def user(self, request: Request, actor: Actor) -> Mapping[str, Any]:
        """One person, and by what the gateway knows them."""
        it = await self._overview.person(actor, PersonName(request.path_params["user"]))
        return views.known(it.person, it.keys, it.passkeys, it.identities, it.browsers)

    async def clients(self, request: Request, actor: Actor) -> Mapping[str, Any]:
        """Every client, a page at a time."""
        found = [views.client(one) for one in await self._overview.clients(actor)]
        return _page(request, "clients", found, "id")

    async def grants(self, request: Request, actor: Actor) -> Mapping[str, Any]:
        """Every grant, a page at a time."""
        found, now = await self._overview.grants(actor)
        return _page(request, "grants", [views.grant_now(one, now) for one in found], "id")

    async def tools(self, request: Request, actor: Actor) -> Mapping[str, Any]:
        """Every tool, a page at a time."""
        found = [views.tool(one.tool, one.warnings) for one in await self._overview.tools(actor)]
        return _page(request, "tools", found, "name")

    async def keys(self, request: Request, actor: Actor) -> Mapping[str, Any]:
        """The gateway's own keys, a page at a time."""
        found = [views.signing_key(key, how) for key, how in await self._overview.keys(actor)]
        return _page(request, "keys", found, "key")


def _nothing(request: Request) -> None:
    """The request has no parameters.

    Raises:
        InputError: it asks for more, or for something else.
    """
    if request.query_params:
        raise InputError("there are no parameters here")


def _page(request: Request, what: str, found: Sequence[Mapping[str, Any]], by: str) -> Mapping[str, Any]:
    """What stands behind `after`; `next` is what to ask for behind it, where there are more.

    Raises:
        InputError: there is no such thing to go on behind.
    """
    said, limit = asked(request, "after")
    begin = 0
    if "after" in said:
        begin = next((at for at, one in enumerate(found, 1) if one[by] == said["after"]), 0)
        if begin == 0:
            raise InputError("`after` is the `next` of the page before")
    page = found[begin : begin + limit]
    return {what: page, "next": page[-1][by] if begin + limit < len(found) else None}


def _fitting(records: Iterable[Record]) -> list[dict[str, Any]]:
    """As many as one answer has room for, and one at least."""
    found: list[dict[str, Any]] = []
    size = 0
    for record in records:
        one = views.record(record)
        size += len(json.dumps(one))
        if found and size > limits.EXPORTED_BYTES:
            break
        found.append(one)
    return found
