"""The grants of the token endpoint: an agent logs in with its key (RFC 6749 section 4.4)."""

from __future__ import annotations

from typing import Any

from authlib.oauth2.rfc6749.grants import ClientCredentialsGrant  # type: ignore[import-untyped]

from mcp_authz.oauth.asking import asked_scope
from mcp_authz.oauth.client import METHOD, Client
from mcp_authz.oauth.core import Core, TokenRequest
from mcp_authz.oauth.refusal import Refusal


class ClientCredentials(ClientCredentialsGrant):  # type: ignore[misc]
    """An enrolled, active agent always gets a token: for its session, or in its own name; a child for an open link.

    A refusal at the token endpoint tears stock clients down for good, so what was asked too widely is narrowed.
    """

    TOKEN_ENDPOINT_AUTH_METHODS = (METHOD,)

    def validate_token_request(self) -> None:
        """The client has proved its key, and asks for nothing that is not ours to give."""
        super().validate_token_request()
        require_resource(self.request, self.server)
        asked_scope(self.request.form.get("scope"))

    def create_token_response(self) -> tuple[int, dict[str, Any], list[tuple[str, str]]]:
        """The token response."""
        client: Client = self.request.client
        core: Core = self.server
        chosen = core.ask(
            core.sessions.which,
            client.agent.name,
            session=client.session,
            delegation=client.delegation,
            subject=client.subject,
        )
        if chosen is None and client.agent.parent is not None:
            raise Refusal("invalid_grant", "a child agent has nothing in its own name; name one of its open links")
        asked = asked_scope(self.request.form.get("scope"))
        peer, shown = self.request.posted.peer, self.request.confirmation
        body = core.ask(core.issuer.access_token, client, asked, chosen, peer, confirmation=shown)
        return 200, body, self.TOKEN_RESPONSE_HEADER


def require_resource(request: TokenRequest, core: Core) -> None:
    """Return only if the request names no resource and no audience but ours (RFC 8707 section 2, RFC 8693 2.1).

    Raises:
        Refusal: it names another.
    """
    for name in ("resource", "audience"):
        if request.form.get(name, core.issuer.resource) != core.issuer.resource:
            raise Refusal("invalid_target", f"the {name} is not one that this server issues tokens for")
