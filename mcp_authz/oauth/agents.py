"""What the authorization server says of agents, and what they do to their own keys: documents, rotation, enrolment."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from authlib.oauth2 import OAuth2Error  # type: ignore[import-untyped]
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mcp_authz import limits
from mcp_authz.agents import Agents
from mcp_authz.enrolment import CodeRefused, Codes
from mcp_authz.errors import Conflict, InputError, KeyRefused, SignatureRefused, StoreError
from mcp_authz.oauth.client import Client, ClientDoor
from mcp_authz.oauth.form import Form, read_form
from mcp_authz.oauth.refusal import Refusal
from mcp_authz.principals import AgentName, Key
from mcp_authz.protocol.throttle import Throttle, source
from mcp_authz.rules.client_metadata import document, jwk_set, showable
from mcp_authz.rules.key_proof import enrolment_url, read_key_proof, rotation_url
from mcp_authz.rules.keys import PublicKey
from mcp_authz.rules.log import timestamp
from mcp_authz.rules.strict_json import dump
from mcp_authz.store.ports import Clock, Event, Store

_PUBLIC: Final = {"Cache-Control": "public, max-age=60", "X-Content-Type-Options": "nosniff"}
_NO_STORE: Final = {"Cache-Control": "no-store"}
_CODE_REFUSED: Final = "the code is wrong, used or expired; the operator makes another: mcp-authz agent code NAME"


class AgentPages:
    """One route for each thing; `{agent}` is the name, of an agent that is no child."""

    def __init__(
        self,
        *,
        store: Store,
        issuer: str,
        door: ClientDoor,
        clock: Clock,
        count_refusal: Callable[[OAuth2Error, str], None],
    ) -> None:
        self._store = store
        self._issuer = issuer
        self._door = door
        self._clock = clock
        self._agents = Agents(store, clock)
        self._codes = Codes(store, clock)
        self._count_refusal = count_refusal
        self._throttle = Throttle(burst=limits.ENROLMENTS_BURST, per_second=limits.ENROLMENTS_PER_SECOND)

    def routes(self, base: str) -> list[Route]:
        """Every route, below the path `base` of the issuer."""
        return [
            Route(f"{base}/agents/{{agent}}", self.show, methods=["GET"]),
            Route(f"{base}/agents/{{agent}}/jwks.json", self.jwks, methods=["GET"]),
            Route(f"{base}/agents/{{agent}}/key", self.rotate, methods=["POST"]),
            Route(f"{base}/agents/{{agent}}/enrol", self.enrol, methods=["POST"]),
        ]

    async def show(self, request: Request) -> Response:
        """Answer with the agent's metadata document."""
        return await self._public(request, lambda name, keys: document(self._issuer, name, keys))

    async def jwks(self, request: Request) -> Response:
        """Answer with the agent's keys."""
        return await self._public(request, lambda _, keys: jwk_set(keys))

    async def rotate(self, request: Request) -> Response:
        """Answer an agent that replaces its own key: the old one signs the assertion, the new one the proof."""
        return await self._answer(request, self._rotated)

    async def enrol(self, request: Request) -> Response:
        """Answer whoever has a one-time code, and a key that proves itself."""
        peer = peer_of(request)
        if not self._throttle.allows(peer, time.monotonic()):
            refusal = Refusal("slow_down", "too many wrong codes from here; try again in a minute", status=429)
            return self._refused(refusal, peer)
        return await self._answer(request, self._enrolled)

    async def _public(self, request: Request, made: Callable[[AgentName, tuple[Key, ...]], dict[str, Any]]) -> Response:
        """What is made of the agent and its keys; one that is unknown, revoked, a child or without keys is nowhere."""
        name = AgentName(request.path_params["agent"])
        try:
            agent = await self._store.agent(name)
            keys = showable(await self._store.keys_of(f"agent:{name}"), self._clock())
        except StoreError:
            return _json({"error": "temporarily_unavailable"}, 503, _NO_STORE)
        if agent is None or agent.status != "active" or agent.parent is not None or not keys:
            return _json({"error": "not_found"}, 404, _NO_STORE)
        return _json(made(agent.name, keys), 200, _PUBLIC)

    async def _answer(self, request: Request, work: Callable[[Request, Form], Any]) -> Response:
        try:
            return _json(await work(request, await read_form(request)), 200, _NO_STORE)
        except Refusal as refusal:
            return self._refused(refusal, peer_of(request))
        except StoreError:
            return _json({"error": "temporarily_unavailable"}, 503, _NO_STORE)

    async def _rotated(self, request: Request, form: Form) -> dict[str, Any]:
        name = AgentName(request.path_params["agent"])
        await self._door.ready(form)
        client = await self._door.enter(form, request.headers.get("authorization"))
        try:
            if client.agent.name != name:
                raise Refusal("unauthorized_client", "an agent replaces its own key only", status=403)
            key = self._proved(name, form, rotation_url(self._issuer, name))
            overlap = _overlap(form)
            if client.key == key.thumbprint:  # once more: the first answer did not arrive
                return {"agent": name, "key": key.thumbprint}
            new = await self._agents.rotate(name, key, overlap, by=f"agent:{name}")
        except Refusal as refusal:
            await self._record(client, refusal.reason)
            refusal.recorded = True
            raise
        except (Conflict, InputError) as error:
            await self._record(client, str(error))
            status = 409 if isinstance(error, Conflict) else 400
            raise Refusal("invalid_request", str(error), status=status, recorded=True) from None
        return {"agent": name, "key": new.thumbprint, "old_keys_end_at": timestamp(new.added_at + overlap)}

    async def _enrolled(self, request: Request, form: Form) -> dict[str, Any]:
        name = AgentName(request.path_params["agent"])
        key = self._proved(name, form, enrolment_url(self._issuer, name))
        try:
            held = await self._codes.enrol(name, form.get("code", ""), key)
        except CodeRefused as error:
            self._throttle.charge(peer_of(request), time.monotonic())
            raise Refusal("invalid_grant", _CODE_REFUSED, kind="enrolment code", reason=str(error)) from None
        except Conflict as error:
            raise Refusal("invalid_request", str(error), kind="enrolment", status=409) from None
        return {"agent": name, "key": held.thumbprint}

    def _proved(self, name: AgentName, form: Form, audience: str) -> PublicKey:
        """The key that the form's proof shows, and was made with."""
        try:
            return read_key_proof(form.get("proof", ""), agent=name, audience=audience, now=self._clock())
        except (KeyRefused, SignatureRefused) as error:
            raise Refusal("invalid_key_proof", f"the new key must prove itself: {error}") from None

    async def _record(self, client: Client, reason: str) -> None:
        """What an agent that proved itself was refused."""
        fields = {
            "summary": f"agent {client.agent.name} was refused another key",
            "actor": f"agent:{client.agent.name}",
            "key": client.key,
            "decision": "deny",
            "reason": reason[: limits.DETAIL_RECORDED],
        }
        await self._store.append(Event(kind="enrolment", at=self._clock(), fields=fields))

    def _refused(self, refusal: Refusal, peer: str) -> Response:
        if not refusal.recorded:
            self._count_refusal(refusal, peer)
        status, body, _ = refusal()
        return _json(body, status, _NO_STORE)


def _overlap(form: Form) -> timedelta:
    """How long what was issued to the old key still counts: as asked, in seconds."""
    text = form.get("overlap")
    if text is None:
        return limits.KEY_OVERLAP_SELF
    if not (text.isascii() and text.isdigit() and len(text) <= 6):
        raise Refusal("invalid_request", "`overlap` is a number of seconds")
    return timedelta(seconds=int(text))


def peer_of(request: Request) -> str:
    """Return the network that a request came from; all of an IPv6 /64 is one."""
    return source(request.client.host) if request.client is not None else "local"  # by the Unix socket


def _json(body: dict[str, Any], status: int, headers: dict[str, str]) -> Response:
    return Response(dump(body), status_code=status, media_type="application/json", headers=headers)
