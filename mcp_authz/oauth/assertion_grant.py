"""The company's identity provider says that a client may act for a person: its assertion becomes an access token.

RFC 7523 section 2.1, as draft-ietf-oauth-identity-assertion-authz-grant section 4.4 and MCP's extension
`io.modelcontextprotocol/enterprise-managed-authorization` narrow it: by clients that prove who they are, each assertion
once, and never with a refresh token.
"""

from __future__ import annotations

from typing import Final

from authlib.oauth2.rfc6749.errors import UnauthorizedClientError  # type: ignore[import-untyped]
from authlib.oauth2.rfc6749.grants import BaseGrant, TokenEndpointMixin  # type: ignore[import-untyped]

from mcp_authz.enterprise import Enterprise, NothingGiven, NotTrusted
from mcp_authz.errors import Conflict, InputError, SignatureRefused
from mcp_authz.oauth.asking import delegated_scope
from mcp_authz.oauth.core import Core, Posted
from mcp_authz.oauth.form import Form
from mcp_authz.oauth.grants import require_resource
from mcp_authz.oauth.issuing import Answer
from mcp_authz.oauth.refusal import Refusal
from mcp_authz.oauth.software import CONFIDENTIAL_METHODS, Software
from mcp_authz.people_elsewhere import NotAdmitted
from mcp_authz.principals import Thumbprint
from mcp_authz.rules.id_jag import IdentityAssertion

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
PROFILE: Final = "urn:ietf:params:oauth:grant-profile:id-jag"

_INVALID: Final = "the assertion is not valid here; get another one from the identity provider"


class AssertionGrant(BaseGrant, TokenEndpointMixin):  # type: ignore[misc]
    """A client that the configuration names brings an assertion; who the person is, the provider says."""

    GRANT_TYPE = GRANT_TYPE
    TOKEN_ENDPOINT_AUTH_METHODS = CONFIDENTIAL_METHODS

    def validate_token_request(self) -> None:
        """The client has proved who it is, and the parameters are there (RFC 7523 section 2.1)."""
        client = self.authenticate_token_endpoint_client()
        if not client.check_grant_type(self.GRANT_TYPE):
            raise UnauthorizedClientError()
        require_resource(self.request, self.server)
        if "assertion" not in self.request.form:
            raise Refusal("invalid_request", "send the provider's assertion")

    def create_token_response(self) -> tuple[int, Answer, list[tuple[str, str]]]:
        """The token response; there is no refresh token: the next assertion takes its place."""
        core: Core = self.server
        core.spend_proof(self.request)
        posted, shown = self.request.posted, self.request.confirmation
        return 200, core.ask(_answer, core, self.request.client, posted, shown), self.TOKEN_RESPONSE_HEADER


def asserted(form: Form) -> str | None:
    """Return the assertion that a request to the token endpoint brings as its grant, if it does."""
    return form.get("assertion") if form.get("grant_type") == GRANT_TYPE else None


async def _answer(core: Core, client: Software, posted: Posted, shown: Thumbprint | None) -> Answer:
    enterprise = core.enterprise
    if enterprise is None:
        raise UnauthorizedClientError()
    asked = delegated_scope(posted.form.get("scope"))
    assertion = await _read(enterprise, client, posted.form["assertion"], shown)
    try:
        got = await enterprise.open(client.client, assertion, asked)
    except NothingGiven as error:
        text = "nothing that the assertion is for can be given to this client"
        raise Refusal("invalid_scope", text, reason=str(error)) from None
    except (NotAdmitted, Conflict) as error:
        raise Refusal("invalid_grant", "the person cannot use this client here", reason=str(error)) from None
    body = await core.issuer.renewed(client.client, got, None, posted.peer, confirmation=shown)
    return {**body, "resource": core.issuer.resource} if assertion.names_resource else body


async def _read(enterprise: Enterprise, client: Software, text: str, shown: Thumbprint | None) -> IdentityAssertion:
    try:
        assertion = await enterprise.read(client.client, text, shown=shown)
    except NotTrusted as error:
        text = "this client may not bring assertions of the identity provider"
        raise Refusal("unauthorized_client", text, reason=str(error)) from None
    except (SignatureRefused, InputError) as error:
        raise Refusal("invalid_grant", _INVALID, reason=f"the assertion: {error}") from None
    return assertion
