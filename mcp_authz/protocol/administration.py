"""The administration API: what a person may read and stop of the gateway, from a client of theirs, as JSON.

Every request has an access token that the person let the client have for this; what they may do with it is what their
roles let them do, decided by `Administration` as on the page and at the command line.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Any, Final, cast, get_args

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mcp_authz import limits, views
from mcp_authz.administration import Actor, Administration, Forbidden, RolesOfPeople
from mcp_authz.audit_story import story
from mcp_authz.errors import AuthzError, Conflict, InputError, NotFound, StoreError
from mcp_authz.identity import Identifier, Unidentified
from mcp_authz.principals import Caller, Once, SessionId
from mcp_authz.protocol.answers import dpop_challenge, unauthorized_challenge
from mcp_authz.protocol.endpoint import allowed_hosts
from mcp_authz.protocol.json_body import bounded_body, require_json
from mcp_authz.protocol.throttle import Refusals, Throttle, source
from mcp_authz.rules import strict_json
from mcp_authz.rules.audit_query import asked_for, number
from mcp_authz.rules.deciding import was_given
from mcp_authz.rules.scope import READ, STOP, Scope
from mcp_authz.store.ports import Clock, EventKind, RevocableKind
from mcp_authz.turns import SlowDown

log = logging.getLogger(__name__)

PATH: Final = "/administration"
_MOST: Final = 500  # records, agents or sessions in one answer
_FEW: Final = 50  # of them, where the request does not say
_BODY: Final = 16 * 1024  # bytes
_KINDS: Final = get_args(RevocableKind)
_EVENTS: Final = get_args(EventKind)
_STATUS: Final[tuple[tuple[type[AuthzError], int], ...]] = (
    (InputError, 400),
    (Forbidden, 403),
    (NotFound, 404),
    (Conflict, 409),
    (SlowDown, 429),
    (StoreError, 503),
)

Answer = Callable[[Request, Actor], Awaitable[Mapping[str, Any]]]


class AdministrationApi:
    """Identifies who asks, and hands what they ask to `Administration`, which decides."""

    def __init__(
        self,
        *,
        administration: Administration,
        roles: RolesOfPeople,
        identifier: Identifier,
        remember: Callable[[Once], Awaitable[bool]],
        public_url: str,
        refusals: Refusals,
        clock: Clock,
    ) -> None:
        self._administration = administration
        self._roles = roles
        self._identifier = identifier
        self._remember = remember
        self._public_url = public_url
        self._metadata = f"{public_url}/.well-known/oauth-protected-resource/mcp"
        self._hosts = allowed_hosts(public_url)
        self._refusals = refusals
        self._clock = clock
        self._throttle = Throttle()

    @property
    def routes(self) -> list[Route]:
        """Where the requests come in."""
        return [
            self._route("/records", READ, self._records),
            self._route("/calls/{call}", READ, self._call),
            self._route("/agents", READ, self._agents),
            self._route("/sessions", READ, self._sessions),
            self._route("/sessions/{session}", READ, self._session),
            self._route("/revoke", STOP, self._revoke, "POST"),
            self._route("/stop-all", STOP, self._stop_all, "POST"),
            self._route("/start-all", STOP, self._start_all, "POST", within=limits.APPROVAL_SIGN_IN),
        ]

    def _route(
        self, path: str, needs: Scope, answer: Answer, method: str = "GET", *, within: timedelta | None = None
    ) -> Route:
        """`within`: the person must have signed in so lately, because what is done is not safe."""

        async def serve(request: Request) -> Response:
            return await self._serve(request, needs, answer, within)

        return Route(f"{PATH}{path}", serve, methods=[method])

    async def _serve(self, request: Request, needs: Scope, answer: Answer, within: timedelta | None) -> Response:
        """Answer one request; a page of another site cannot make one, for no cookie counts here."""
        peer = source(request.client.host) if request.client else "local"
        if request.headers.get("host") not in self._hosts or "origin" in request.headers:
            self._refusals.count("host-or-origin", peer)
            return _refusal(403, "forbidden", "this is no place for web pages")
        try:
            caller = await self._identify(request)
        except Unidentified as refused:
            return self._unidentified(refused, peer)
        except StoreError as error:
            return _trouble(error)
        if caller.person is None or not was_given(caller, needs):
            text = (
                f"this takes {needs}, which a person gives to a client of theirs: mcp-authz login URL --scope {needs}"
            )
            return _refusal(403, "insufficient_scope", text, {"WWW-Authenticate": self._step_up(needs, text)})
        if within is not None and not self._signed_in(caller, within):
            return self._sign_in_again(needs, within)
        try:
            return JSONResponse(await answer(request, self._roles.actor(caller.person)))
        except AuthzError as error:
            return _trouble(error)

    def _unidentified(self, refused: Unidentified, peer: str) -> Response:
        """The refusal; whoever has a token that counts is served whatever others at the same address did."""
        if refused.nonce is not None:  # to be told the nonce is part of every sign-in
            return self._challenge(refused)
        self._refusals.count(str(refused), peer)
        if not self._throttle.allows(peer, time.monotonic()):
            return _refusal(429, "slow_down", "too many refused requests from here; slow down")
        if refused.error is not None:  # a client that has no token yet is no attack
            self._throttle.charge(peer, time.monotonic())
        return self._challenge(refused)

    def _signed_in(self, caller: Caller, within: timedelta) -> bool:
        shown = None if caller.grant is None else caller.grant.authentication
        return shown is not None and self._clock() - shown.at <= within

    def _sign_in_again(self, needs: Scope, within: timedelta) -> Response:
        """The challenge that sends the person to sign in again (RFC 9470 section 3)."""
        seconds = int(within.total_seconds())
        text = f"the person has to sign in again: this takes a sign-in of the last {seconds} seconds"
        error = "insufficient_user_authentication"
        more = f'max_age="{seconds}", scope="{needs}", resource_metadata="{self._metadata}"'
        challenge = f'Bearer error="{error}", error_description="{text}", {more}'
        return _refusal(401, error, text, {"WWW-Authenticate": challenge})

    async def _identify(self, request: Request) -> Caller:
        """Who asks; the proof that came with it is spent."""
        lines = request.headers
        if any(len(lines.getlist(name)) > 1 for name in ("authorization", "host", "content-type")):
            raise Unidentified("invalid_request", "a header appears more than once", "a header twice")
        caller = await self._identifier.identify(
            lines.get("authorization"),
            method=request.method,
            proofs=tuple(lines.getlist("dpop")),
            url=f"{self._public_url}{request.url.path}",
        )
        for once in caller.once:
            if not await self._remember(once):
                text = "this DPoP proof was used before; sign one for each request"
                raise Unidentified("invalid_dpop_proof", text, "proof used before", scheme="DPoP")
        return caller

    def _challenge(self, refused: Unidentified) -> Response:
        where, text = self._metadata, refused.description
        if refused.scheme == "DPoP" and refused.error is not None:
            challenge = dpop_challenge(resource_metadata=where, error=refused.error, description=text)
        else:
            challenge = unauthorized_challenge(resource_metadata=where, error=refused.error, description=text)
        nonce = {} if refused.nonce is None else {"DPoP-Nonce": refused.nonce}
        return _refusal(
            401, refused.error or "unauthorized", refused.description, {"WWW-Authenticate": challenge, **nonce}
        )

    def _step_up(self, needs: Scope, text: str) -> str:
        """The challenge that says which scope was missing (RFC 6750 section 3.1)."""
        more = f'scope="{needs}", resource_metadata="{self._metadata}"'
        return f'Bearer error="insufficient_scope", error_description="{text}", {more}'

    async def _records(self, request: Request, actor: Actor) -> Mapping[str, Any]:
        """The newest records that are asked for and may be read, oldest first; `reached` is how far it was looked.

        `head` is the number of the newest record.
        """
        asked, limit = _asked(request)
        before, after = (number(name, asked.pop(name, None)) for name in ("before", "after"))
        found = await self._administration.records(
            actor,
            asked_for(asked, _EVENTS),
            limit=limit,
            before=before,
            after=after or 0,
            at_most=limits.RECORDS_LOOKED_AT,
        )
        records = [views.record(record) for record in found.records]
        return {"records": records, "reached": found.reached, "head": found.head}

    async def _call(self, request: Request, actor: Actor) -> Mapping[str, Any]:
        found = await self._administration.story(actor, request.path_params["call"])
        told = story([record.event for record in found])
        return {"story": told, "records": [views.record(record) for record in found]}

    async def _agents(self, request: Request, actor: Actor) -> Mapping[str, Any]:
        """By name, those behind `after`; `next` is what to ask for behind it, where there are more."""
        asked, limit = _asked(request, "after")
        found = await self._administration.some_agents(actor, after=asked.get("after", ""), limit=limit + 1)
        more = found[limit - 1].name if len(found) > limit else None
        return {"agents": [views.agent(agent) for agent in found[:limit]], "next": more}

    async def _sessions(self, request: Request, actor: Actor) -> Mapping[str, Any]:
        """The newest first, those that are open or those that are `over`; `next` as for agents."""
        asked, limit = _asked(request, "before", "state")
        state, before = asked.get("state", "open"), asked.get("before")
        if state not in ("open", "over"):
            raise InputError("`state` is open or over")
        found = await self._administration.some_sessions(
            actor, are_open=state == "open", before=None if before is None else SessionId(before), limit=limit + 1
        )
        more = found[limit - 1].id if len(found) > limit else None
        return {"sessions": [views.session(session) for session in found[:limit]], "next": more}

    async def _session(self, request: Request, actor: Actor) -> Mapping[str, Any]:
        session, links = await self._administration.session(actor, SessionId(request.path_params["session"]))
        return {**views.session(session), "links": [views.link(link) for link in links]}

    async def _revoke(self, request: Request, actor: Actor) -> Mapping[str, Any]:
        said = await _members(request, "kind", "name", "reason", maybe=("dry_run",))
        kind, dry_run = said["kind"], said.get("dry_run", False)
        if kind not in _KINDS or not isinstance(dry_run, bool):
            raise InputError(f"`kind` is one of {', '.join(_KINDS)}, and `dry_run` true or false")
        name, reason = _text(said, "name"), _text(said, "reason")
        if dry_run:
            stopped = await self._administration.foresee(actor, cast(RevocableKind, kind), name)
        else:
            stopped = await self._administration.revoke(actor, cast(RevocableKind, kind), name, reason=reason)
        links = [{**views.link(link), "session": session.id} for session, link in stopped.links]
        return {"already": stopped.already, "dry_run": dry_run, "links": links, "holds": list(stopped.holds)}

    async def _stop_all(self, request: Request, actor: Actor) -> Mapping[str, Any]:
        said = await _members(request, "reason")
        return {"stopped": await self._administration.stop_all(actor, reason=_text(said, "reason"))}

    async def _start_all(self, request: Request, actor: Actor) -> Mapping[str, Any]:
        await _members(request)
        return {"started": await self._administration.start_all(actor)}


def _asked(request: Request, *known: str) -> tuple[dict[str, str], int]:
    """What the query asks for, and how many; `known` are all that there may be, where some are given.

    Raises:
        InputError: a parameter comes twice, or is unknown.
    """
    given = request.query_params.multi_items()
    asked = {name: value for name, value in given if value}
    if len({name for name, _ in given}) < len(given):
        raise InputError("give each parameter once")
    limit = number("limit", asked.pop("limit", None))
    if known and asked.keys() - {*known}:
        raise InputError(f"the parameters here are limit, {', '.join(known)}")
    return asked, min(limit or _FEW, _MOST)


async def _members(request: Request, *needed: str, maybe: tuple[str, ...] = ()) -> Mapping[str, Any]:
    """The JSON object that a request has as its body."""
    require_json(request)
    said = strict_json.parse_object(await bounded_body(request, most=_BODY), max_bytes=_BODY)
    if not said.keys() >= {*needed} or said.keys() - {*needed, *maybe}:
        raise InputError(f"give exactly {', '.join(needed) or 'an empty object'}")
    return said


def _text(said: Mapping[str, Any], name: str) -> str:
    value = said[name]
    if not isinstance(value, str) or not 0 < len(value) <= limits.REASON:
        raise InputError(f"`{name}` is 1 to {limits.REASON} characters")
    return value


def _trouble(error: AuthzError) -> Response:
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    if status >= 500:  # what is wrong with the store is its operator's to know
        log.error("a request to administer was not served: %s", error)
        return _refusal(status, error.code, "the gateway cannot do this now, and nothing was changed; try again")
    return _refusal(status, error.code, str(error))


def _refusal(status: int, code: str, text: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": code, "error_description": text}, status, dict(headers or {}))
