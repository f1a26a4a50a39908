"""Dynamic client registration (RFC 7591): JSON in, the client as it is registered out.

Where the operator did not switch it on, whoever tries hears what to do instead. Who registers proves nothing, so a
source may do it so often, the use layer bounds how many there are, and nothing is given by it: a person is asked all
the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from authlib.oauth2 import OAuth2Error  # type: ignore[import-untyped]
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mcp_authz import limits
from mcp_authz.clients import Clients, NewClient
from mcp_authz.errors import Conflict, InputError, StoreError
from mcp_authz.oauth.agents import peer_of
from mcp_authz.oauth.refusal import Refusal
from mcp_authz.protocol.throttle import Throttle
from mcp_authz.rules.client_document import RedirectRefused
from mcp_authz.rules.strict_json import JsonObject, dump, parse_object

_OFF: Final = {  # some clients try without being told of an endpoint, and show what is answered
    "error": "invalid_request",
    "error_description": "clients do not register themselves here: the operator runs `mcp-authz client add NAME"
    " --redirect URI` and gives you the client id, or sets dynamic_registration under [clients]",
}
_NO_STORE: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}


class Registration:
    """The registration endpoint; `count_refusal` hears of every refusal."""

    def __init__(self, clients: Clients, count_refusal: Callable[[OAuth2Error, str], None]) -> None:
        self._clients = clients
        self._count_refusal = count_refusal
        self._throttle = Throttle(burst=limits.REGISTRATIONS_BURST, per_second=limits.REGISTRATIONS_PER_SECOND)

    def routes(self, base: str) -> list[Route]:
        """Its route below the path `base` of the issuer."""
        answer = self.register if self._clients.dynamic else _turn_away
        return [Route(f"{base}/register", answer, methods=["POST"])]

    async def register(self, request: Request) -> Response:
        """Answer a client that registers itself (RFC 7591 section 3)."""
        peer = peer_of(request)
        try:
            new = await self._registered(request, peer)
        except Refusal as refusal:
            self._count_refusal(refusal, peer)
            status, body, _ = refusal()
            return _json(body, status)
        except StoreError:
            return _json({"error": "temporarily_unavailable"}, 503)
        return _json(_information(new), 201)

    async def _registered(self, request: Request, peer: str) -> NewClient:
        now = time.monotonic()
        if not self._throttle.allows(peer, now):
            raise Refusal("slow_down", "too many registrations from here; try again in a minute", status=429)
        self._throttle.charge(peer, now)  # also one that succeeds: each takes a place
        try:
            return await self._clients.register_dynamic(await _read(request))
        except RedirectRefused as error:
            raise Refusal("invalid_redirect_uri", str(error), kind="registration") from None
        except InputError as error:
            raise Refusal("invalid_client_metadata", str(error), kind="registration") from None
        except Conflict as error:
            raise Refusal("temporarily_unavailable", str(error), kind="registration", status=503) from None


async def _read(request: Request) -> JsonObject:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise InputError("send the metadata as application/json")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limits.METADATA_BYTES:
            raise Refusal("invalid_client_metadata", "the metadata are too long", kind="registration", status=413)
    return parse_object(bytes(body), max_bytes=limits.METADATA_BYTES)


def _information(new: NewClient) -> dict[str, Any]:
    """Everything as it is registered, which need not be as it was asked for (RFC 7591 section 3.2.1)."""
    client = new.client
    return {
        "client_id": client.id,
        "client_id_issued_at": int(client.registered_at.timestamp()),
        **({} if new.secret is None else {"client_secret": new.secret, "client_secret_expires_at": 0}),
        "client_name": client.name,
        "redirect_uris": list(client.redirect_uris),
        "token_endpoint_auth_method": client.method,
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        **({} if client.jwks is None else {"jwks": dict(client.jwks)}),
    }


async def _turn_away(_: Request) -> Response:
    return _json(_OFF, 404)


def _json(body: dict[str, Any], status: int) -> Response:
    return Response(dump(body), status_code=status, media_type="application/json", headers=_NO_STORE)
