"""Introspection (RFC 7662): what a token stands for now, told to the client that it was issued to alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from authlib.consts import default_json_headers  # type: ignore[import-untyped]
from authlib.oauth2.rfc6749.endpoint import Endpoint, EndpointRequest  # type: ignore[import-untyped]

from mcp_authz.authorization import RefreshToken
from mcp_authz.errors import TokenRefused
from mcp_authz.oauth.client import Client
from mcp_authz.oauth.core import Core, TokenRequest
from mcp_authz.oauth.refusal import Refusal
from mcp_authz.oauth.software import CONFIDENTIAL_METHODS, Software
from mcp_authz.principals import AccessToken, Proof

INTROSPECTION: Final = "introspection"

_INACTIVE: Final[dict[str, Any]] = {"active": False}


@dataclass
class Introspection(EndpointRequest):  # type: ignore[misc]
    """What a client wants to know of."""

    token: str = ""


class IntrospectionEndpoint(Endpoint):  # type: ignore[misc]
    """A client that proves itself learns of its own tokens; of anything else, that it is not active (section 2.2)."""

    ENDPOINT_NAME = INTROSPECTION

    def validate_request(self, request: TokenRequest) -> Introspection:
        """The client has proved who it is, and names a token; `token_type_hint` is not needed to find it."""
        core: Core = self.server
        client = core.authenticate_client(request, CONFIDENTIAL_METHODS, INTROSPECTION)
        if "token" not in request.form:
            raise Refusal("invalid_request", "name the token to introspect")
        return Introspection(request=request, client=client, token=request.form["token"])

    def create_response(self, validated_request: Introspection) -> tuple[int, dict[str, Any], list[tuple[str, str]]]:
        """What the token stands for, as every use of it would find out."""
        core: Core = self.server
        return 200, core.ask(_told, core, validated_request.client, validated_request.token), default_json_headers


async def _told(core: Core, client: Client | Software, text: str) -> dict[str, Any]:
    token = core.issuer.read_any_token(text)
    if token is not None:
        own = token.client_id == (client.agent.name if isinstance(client, Client) else client.client.id)
        return await _of_access(core, token) if own else _INACTIVE
    if isinstance(client, Client):
        return _INACTIVE
    refresh = await core.renewals.refresh_token(text)
    if refresh is None or refresh.client != client.client.id or not await core.renewals.is_good(refresh):
        return _INACTIVE
    return _of_refresh(core, refresh)


async def _of_access(core: Core, token: AccessToken) -> dict[str, Any]:
    """The token's claims, if its whole lineage stands."""
    try:
        caller = await core.sessions.identify(token, Proof.BEARER if token.confirmation is None else Proof.DPOP)
    except TokenRefused:
        return _INACTIVE
    if caller.session_over:
        return _INACTIVE
    return {
        "active": True,
        "iss": core.issuer.issuer,
        "aud": core.issuer.resource,
        "sub": token.subject,
        "client_id": token.client_id,
        "scope": " ".join(sorted(token.scope)),
        "token_type": "Bearer" if token.confirmation is None else "DPoP",
        "iat": int(token.issued_at.timestamp()),
        "exp": int(token.expires_at.timestamp()),
        "jti": token.id,
        **({} if token.session is None else {"session": token.session, "link": token.link}),
        **({} if token.confirmation is None else {"cnf": {"jkt": token.confirmation}}),
    }


def _of_refresh(core: Core, token: RefreshToken) -> dict[str, Any]:
    return {
        "active": True,
        "iss": core.issuer.issuer,
        "client_id": token.client,
        "iat": int(token.made_at.timestamp()),
        "exp": int(token.expires_at.timestamp()),
        **({} if token.confirmation is None else {"cnf": {"jkt": token.confirmation}}),
    }
