"""The administration API: what a person may read and stop of the gateway, from a client of theirs, as JSON.

Every request has an access token that the person let the client have for this; what they may do with it is what their
roles let them do, decided by `Administration` as on the page and at the command line.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mcp_authz import limits
from mcp_authz.administration import Administration, Forbidden, RolesOfPeople
from mcp_authz.audit_proofs import Proofs
from mcp_authz.errors import AuthzError, Conflict, InputError, NotFound, StoreError, StoreInDoubt, StoreUpgraded
from mcp_authz.identity import Identifier, Unidentified
from mcp_authz.overview import Overview
from mcp_authz.principals import Caller, Once
from mcp_authz.protocol.administration_asked import Answer
from mcp_authz.protocol.administration_reading import Reading
from mcp_authz.protocol.administration_stopping import Stopping
from mcp_authz.protocol.answers import dpop_challenge, unauthorized_challenge
from mcp_authz.protocol.endpoint import allowed_hosts
from mcp_authz.protocol.throttle import Refusals, Throttle, source
from mcp_authz.rules.deciding import was_given
from mcp_authz.rules.scope import READ, STOP, Scope
from mcp_authz.store.ports import Clock
from mcp_authz.turns import SlowDown

log = logging.getLogger(__name__)

PATH: Final = "/administration"
_STATUS: Final[tuple[tuple[type[AuthzError], int], ...]] = (
    (InputError, 400),
    (Forbidden, 403),
    (NotFound, 404),
    (Conflict, 409),
    (SlowDown, 429),
    (StoreError, 503),
)


class AdministrationApi:
    """Identifies who asks, and hands what they ask to `Administration`, which decides."""

    def __init__(
        self,
        *,
        administration: Administration,
        overview: Overview,
        proofs: Proofs,
        roles: RolesOfPeople,
        identifier: Identifier,
        remember: Callable[[Once], Awaitable[bool]],
        public_url: str,
        refusals: Refusals,
        clock: Clock,
    ) -> None:
        self._reading = Reading(administration, overview, proofs)
        self._stopping = Stopping(administration, clock)
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
            *(self._route(path, READ, answer) for path, answer in self._reading.answers.items()),
            self._route("/revoke", STOP, self._stopping.revoke, "POST"),
            self._route("/stop-all", STOP, self._stopping.stop_all, "POST"),
            self._route("/start-all", STOP, self._stopping.start_all, "POST", within=limits.APPROVAL_SIGN_IN),
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


def _trouble(error: AuthzError) -> Response:
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    if status >= 500:  # what is wrong with the store is its operator's to know
        log.error("a request to administer was not served: %s", error)
        return _refusal(status, error.code, _of_store(error))
    return _refusal(status, error.code, str(error))


def _of_store(error: AuthzError) -> str:
    """What whoever asks may know of it: not where the store lies."""
    if isinstance(error, StoreUpgraded):
        return str(error)
    if isinstance(error, StoreInDoubt):
        return "the store failed while this was written; whether it was cannot be said, look before you try again"
    return "the gateway cannot do this now, and nothing was changed; try again"


def _refusal(status: int, code: str, text: str, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": code, "error_description": text}, status, dict(headers or {}))
