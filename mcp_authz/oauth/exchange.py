"""Token exchange (RFC 8693): an agent delegates what it has, or redeems what was delegated to it.

A token is accepted from its own holder only. What comes back for an access token is a statement of the delegation,
which its delegator cannot use; who it is for logs in with its own key.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

from authlib.oauth2.rfc6749.grants import BaseGrant, TokenEndpointMixin  # type: ignore[import-untyped]

from mcp_authz.agents import agent_name
from mcp_authz.delegating import Asked, Source
from mcp_authz.errors import Conflict, ConstraintError, DelegationError, InputError, TokenRefused
from mcp_authz.model import AccessToken, AgentName, Caller, Link, LinkId, Proof
from mcp_authz.oauth.client import METHOD, Client
from mcp_authz.oauth.core import Core
from mcp_authz.oauth.form import Form
from mcp_authz.oauth.grants import require_resource
from mcp_authz.oauth.issuing import ACCESS_TOKEN_TYPE, JWT_TYPE, Answer, asked_scope
from mcp_authz.oauth.refusal import Refusal
from mcp_authz.rules import strict_json
from mcp_authz.rules.constraint import ToolsMap, parse_tools
from mcp_authz.rules.token import MINIMAL_SCOPE

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
DETAILS_TYPE: Final = "attenuating_agent_token"

_DIGITS: Final = 9


class TokenExchange(BaseGrant, TokenEndpointMixin):  # type: ignore[misc]
    """The two exchanges there are: an access token into a delegation, and a delegation into an access token."""

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

    def create_token_response(self) -> tuple[int, Answer, list[tuple[str, str]]]:
        """The token response for the kind of subject token that was sent."""
        core: Core = self.server
        client: Client = self.request.client
        form: Form = self.request.form
        if "actor_token" in form:
            core.issuer.read_own_token(form["actor_token"], client)
        match form["subject_token_type"]:
            case "urn:ietf:params:oauth:token-type:access_token":
                _require_issued_type(form, JWT_TYPE)
                body = core.ask(_delegate, core, client, form)
            case "urn:ietf:params:oauth:token-type:jwt":
                _require_issued_type(form, ACCESS_TOKEN_TYPE)
                body = core.ask(_redeem, core, client, form, self.request.posted.peer)
            case _:
                raise Refusal("invalid_request", "the subject_token_type is not supported")
        return 200, body, self.TOKEN_RESPONSE_HEADER


async def _delegate(core: Core, client: Client, form: Form) -> Answer:
    """A link for the requested actor, under the link of the client's own token."""
    token = core.issuer.read_own_token(form["subject_token"], client)
    to = _requested_actor(form)
    caller = await _standing(core, token)
    if caller.chain is None or caller.session is None:
        raise Refusal("invalid_request", "the token stands for no open session that could be delegated")
    link = await _new_link(core, caller, to, form)
    return await core.issuer.delegation(link, token.subject)


async def _standing(core: Core, token: AccessToken) -> Caller:
    try:
        return await core.sessions.identify(token, Proof.BEARER)
    except TokenRefused as error:
        raise Refusal("invalid_request", "what the token stands on has ended", reason=str(error)) from None


async def _new_link(core: Core, caller: Caller, to: AgentName, form: Form) -> Link:
    assert caller.chain is not None and caller.session is not None  # noqa: S101 - the caller of this has checked it
    asked = asked_scope(form.get("scope"))
    lifetime, tools = _seconds(form, "expires_in"), _tools(form)
    try:
        return await core.delegations.delegate(
            Source(chain=caller.chain, session=caller.session, person=caller.person, key=caller.key),
            Asked(
                to=to,
                scope=None if asked is None else asked - {MINIMAL_SCOPE},
                tools=tools,
                max_calls=_number(form, "max_calls"),
                max_depth=_number(form, "max_depth"),
                reason=form.get("reason", ""),
                **({} if lifetime is None else {"lifetime": lifetime}),
            ),
        )
    except DelegationError as error:
        text = "this is more than you have or than the delegate may have, or you may not delegate to it"
        raise Refusal("access_denied", text, reason=str(error), recorded=True) from None
    except Conflict as error:
        text = "what you would delegate has ended"
        raise Refusal("invalid_grant", text, reason=str(error), recorded=True) from None
    except InputError as error:
        text = "expires_in, max_calls or reason is out of bounds"
        raise Refusal("invalid_request", text, reason=str(error), recorded=True) from None


async def _redeem(core: Core, client: Client, form: Form, peer: str) -> Answer:
    """An access token for the link of a statement, for nobody but the holder of the key that it names."""
    link: LinkId = core.issuer.read_statement(form["subject_token"], client)
    if "requested_actor" in form and _requested_actor(form) != client.agent.name:
        raise Refusal("invalid_request", "a delegation is redeemed by the agent it is for")
    chosen = await core.sessions.which(client.agent.name, delegation=link)
    if chosen is None:
        raise Refusal("invalid_grant", "the delegation has ended")
    body = await core.issuer.access_token(client, asked_scope(form.get("scope")), chosen, peer)
    return {**body, "issued_token_type": ACCESS_TOKEN_TYPE}


def _require_issued_type(form: Form, issued: str) -> None:
    if form.get("requested_token_type", issued) != issued:
        raise Refusal("invalid_request", "the requested_token_type is not what this exchange gives")


def _requested_actor(form: Form) -> AgentName:
    try:
        return agent_name(form.get("requested_actor", "").removeprefix("agent:"))
    except InputError:
        raise Refusal("invalid_request", "name the delegate in requested_actor, as in agent:coder") from None


def _tools(form: Form) -> ToolsMap | None:
    """The tools map of the one `authorization_details` entry that a delegation can have (RFC 9396)."""
    if "authorization_details" not in form:
        return None
    try:
        details: Any = strict_json.parse_value(form["authorization_details"].encode())
        if not isinstance(details, list) or len(details) != 1 or not isinstance(details[0], dict):
            raise InputError("not a list of one object")
        if details[0].keys() != {"type", "tools"} or details[0]["type"] != DETAILS_TYPE:
            raise InputError("another type, or other members")
        return parse_tools(details[0]["tools"])
    except (InputError, ConstraintError) as error:
        text = f"authorization_details is a list of one object of type {DETAILS_TYPE} with a tools map"
        raise Refusal("invalid_authorization_details", text, reason=str(error)) from None


def _seconds(form: Form, name: str) -> timedelta | None:
    number = _number(form, name)
    return None if number is None else timedelta(seconds=number)


def _number(form: Form, name: str) -> int | None:
    text = form.get(name)
    if text is None:
        return None
    if len(text) > _DIGITS or not (text.isascii() and text.isdigit()):
        raise Refusal("invalid_request", f"{name} is a number")
    return int(text)
