"""A client renews its access token (RFC 6749 section 6), each refresh token once (RFC 9700 section 4.14.2)."""

from __future__ import annotations

from typing import Final

from authlib.oauth2.rfc6749.errors import UnauthorizedClientError  # type: ignore[import-untyped]
from authlib.oauth2.rfc6749.grants import BaseGrant, TokenEndpointMixin  # type: ignore[import-untyped]

from mcp_authz.authorization import RefreshToken
from mcp_authz.errors import ScopeError
from mcp_authz.oauth.asking import asked_scope
from mcp_authz.oauth.core import Core, Posted
from mcp_authz.oauth.grants import require_resource
from mcp_authz.oauth.issuing import Answer
from mcp_authz.oauth.refusal import Refusal
from mcp_authz.oauth.software import SOFTWARE_METHODS, Software
from mcp_authz.principals import Thumbprint
from mcp_authz.renewing import GrantRefused, UsedTwice

_AGAIN: Final = "the refresh token is unknown, used, expired or another client's; send the person to sign in again"


class RefreshGrant(BaseGrant, TokenEndpointMixin):  # type: ignore[misc]
    """The client that has a refresh token gets an access token and the next refresh token; agents have their key."""

    GRANT_TYPE = "refresh_token"
    TOKEN_ENDPOINT_AUTH_METHODS = SOFTWARE_METHODS

    def validate_token_request(self) -> None:
        """The client authenticated as it is registered, and shows a refresh token of its own."""
        core: Core = self.server
        client = self.authenticate_token_endpoint_client()
        if not client.check_grant_type(self.GRANT_TYPE):
            raise UnauthorizedClientError()
        require_resource(self.request, self.server)
        if "refresh_token" not in self.request.form:
            raise Refusal("invalid_request", "send the refresh_token")
        used = core.ask(core.renewals.refresh_token, self.request.form["refresh_token"])
        if used is None or used.client != client.client.id:
            raise Refusal("invalid_grant", _AGAIN, kind="no such refresh token of the client")
        self.request.refresh_token = used

    def create_token_response(self) -> tuple[int, Answer, list[tuple[str, str]]]:
        """The token response, with the next refresh token."""
        core: Core = self.server
        core.spend_proof(self.request)
        sent, used = self.request, self.request.refresh_token
        body = core.ask(_refresh, core, sent.client, used, sent.posted, sent.confirmation)
        return 200, body, self.TOKEN_RESPONSE_HEADER


async def _refresh(
    core: Core, client: Software, used: RefreshToken, posted: Posted, shown: Thumbprint | None
) -> Answer:
    asked = asked_scope(posted.form.get("scope"))
    try:
        got = await core.renewals.refresh(used, client.client, asked=asked, shown=shown, peer=posted.peer)
    except UsedTwice as error:
        kind = "refresh token used twice"
        raise Refusal("invalid_grant", _AGAIN, kind=kind, reason=str(error), recorded=True) from None
    except GrantRefused as error:
        raise Refusal("invalid_grant", _AGAIN, kind="refresh token", reason=str(error)) from None
    except ScopeError as error:
        text = "the requested scope is more than the person agreed to; send them to agree to more"
        raise Refusal("invalid_scope", text, reason=str(error)) from None
    return await core.issuer.renewed(
        client.client, got, asked, posted.peer, confirmation=shown, did="renewed its sign-in"
    )
