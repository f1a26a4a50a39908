"""Token exchange (RFC 8693): which exchange a request asks for, and that its parameters fit together."""

from __future__ import annotations

from typing import Final

from authlib.oauth2.rfc6749.grants import BaseGrant, TokenEndpointMixin  # type: ignore[import-untyped]

from mcp_authz.oauth import exchanging
from mcp_authz.oauth.asking import delegated_scope, refuse_bounds, requested_actor
from mcp_authz.oauth.client import METHOD, Client
from mcp_authz.oauth.core import Core
from mcp_authz.oauth.form import Form
from mcp_authz.oauth.grants import require_resource
from mcp_authz.oauth.issuing import Answer
from mcp_authz.oauth.refusal import Refusal
from mcp_authz.oauth.token_types import ACCESS_TOKEN_TYPE, JWT_TYPE, TOKEN_EXCHANGE

GRANT_TYPE: Final = TOKEN_EXCHANGE


class TokenExchange(BaseGrant, TokenEndpointMixin):  # type: ignore[misc]
    """The three exchanges there are; the client is always who the tokens are for.

    An access token becomes a token of another agent, or a signed chain of the client's own; a signed chain becomes an
    access token.
    """

    GRANT_TYPE = GRANT_TYPE
    TOKEN_ENDPOINT_AUTH_METHODS = (METHOD,)

    def validate_token_request(self) -> None:
        """The client has proved its key, and the parameters fit together (RFC 8693 section 2.1)."""
        self.request.client = self.authenticate_token_endpoint_client()
        form: Form = self.request.form
        require_resource(self.request, self.server)
        if "subject_token" not in form or "subject_token_type" not in form:
            raise Refusal("invalid_request", "send subject_token and subject_token_type")
        if ("actor_token" in form) != ("actor_token_type" in form):
            raise Refusal("invalid_request", "send actor_token and actor_token_type together")
        if form.get("actor_token_type", ACCESS_TOKEN_TYPE) != ACCESS_TOKEN_TYPE:
            raise Refusal("invalid_request", "an actor_token is an access token")
        delegated_scope(form.get("scope"))

    def create_token_response(self) -> tuple[int, Answer, list[tuple[str, str]]]:
        """The token response for the kind of subject token that was sent, and the kind that was asked for."""
        core: Core = self.server
        client: Client = self.request.client
        form: Form = self.request.form
        self._require_actor(core, client, form)
        match form["subject_token_type"]:
            case "urn:ietf:params:oauth:token-type:access_token":
                return 200, self._from_token(core, client, form), self.TOKEN_RESPONSE_HEADER
            case "urn:ietf:params:oauth:token-type:jwt":
                return 200, self._from_chain(core, client, form), self.TOKEN_RESPONSE_HEADER
        raise Refusal("invalid_request", "the subject_token_type is not supported")

    def _require_actor(self, core: Core, client: Client, form: Form) -> None:
        """An actor token is the client's own, and beside an access token one of the same session and subject."""
        if "actor_token" not in form:
            return
        actor = core.issuer.read_own_token(form["actor_token"], client, self.request.confirmation)
        if form["subject_token_type"] == ACCESS_TOKEN_TYPE:
            subject = core.issuer.read_own_token(form["subject_token"], client, self.request.confirmation)
            if (actor.session, actor.subject) != (subject.session, subject.subject):
                raise Refusal("invalid_request", "the actor_token is of another session than the subject_token")

    def _from_token(self, core: Core, client: Client, form: Form) -> Answer:
        if client.agent.parent is not None:
            raise Refusal("unauthorized_client", "a child agent delegates nothing")
        token = core.issuer.read_own_token(form["subject_token"], client, self.request.confirmation)
        if form.get("requested_token_type") == JWT_TYPE and "requested_actor" not in form:
            refuse_bounds(form)
            return core.ask(exchanging.root, core, client, token, self.request.posted)
        _require_issued(form, ACCESS_TOKEN_TYPE)
        requested_actor(form)
        return core.ask(exchanging.delegate, core, client, token, self.request.posted)

    def _from_chain(self, core: Core, client: Client, form: Form) -> Answer:
        _require_issued(form, ACCESS_TOKEN_TYPE)
        refuse_bounds(form)
        if form.get("requested_actor", client.agent.name).removeprefix("agent:") != client.agent.name:
            raise Refusal("invalid_request", "a chain is redeemed by the agent that it was given to")
        return core.ask(exchanging.redeem, core, client, self.request.posted, self.request.confirmation)


def _require_issued(form: Form, issued: str) -> None:
    if form.get("requested_token_type", issued) != issued:
        raise Refusal("invalid_request", "the requested_token_type is not what this exchange gives")
