"""A person's consent becomes a client's token: the authorization code with its verifier (RFC 6749 section 4.1.3)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import Final

from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant  # type: ignore[import-untyped]
from authlib.oauth2.rfc7636 import CodeChallenge  # type: ignore[import-untyped]

from mcp_authz.authorization import AuthorizationCode, RegisteredClient
from mcp_authz.errors import TokenRefused
from mcp_authz.oauth.client import Client
from mcp_authz.oauth.core import Core, Posted
from mcp_authz.oauth.form import Form
from mcp_authz.oauth.grants import require_resource
from mcp_authz.oauth.issuing import Answer
from mcp_authz.oauth.refusal import Refusal
from mcp_authz.oauth.software import SOFTWARE_METHODS, Software
from mcp_authz.oauth.token_types import ACCESS_TOKEN_TYPE
from mcp_authz.principals import Agent, Mode, Proof, Thumbprint
from mcp_authz.renewing import GrantRefused, UsedTwice
from mcp_authz.rules.keys import b64url, equal

_AGAIN: Final = "the code is unknown, used, expired or another client's; send the person to sign in again"


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownCode:
    """The code that a request shows, as Authlib's grant and its extension want to see one."""

    code: AuthorizationCode

    @property
    def code_challenge(self) -> str:
        """What the verifier is compared with; there is no code without one."""
        return self.code.challenge

    @property
    def code_challenge_method(self) -> str:
        """The one method there is: nothing in a request chooses another (RFC 9700 section 4.8.2)."""
        return "S256"

    def get_redirect_uri(self) -> str:
        """Where the code was sent; the request has to name it, letter by letter."""
        return self.code.redirect_uri


def _is_s256(verifier: str, challenge: str) -> bool:
    return equal(b64url(hashlib.sha256(verifier.encode()).digest()).encode(), challenge.encode())


class Verifier(CodeChallenge):  # type: ignore[misc]
    """Whoever redeems a code knows the verifier of its challenge, every time (RFC 7636 section 4.6)."""

    DEFAULT_CODE_CHALLENGE_METHOD = "S256"
    SUPPORTED_CODE_CHALLENGE_METHOD: Final = ["S256"]
    CODE_CHALLENGE_METHODS: Final = {"S256": _is_s256}


class CodeGrant(AuthorizationCodeGrant):  # type: ignore[misc]
    """A code counts once, for the client that it was given to, with its verifier, at the place where it was sent.

    A second use by somebody who has all of that ends what the person agreed to (`Renewals.redeem`). Whoever lacks part
    of it, another client or one that guesses the verifier, is refused, and cannot end anything by that.
    """

    TOKEN_ENDPOINT_AUTH_METHODS = SOFTWARE_METHODS

    def validate_token_request(self) -> None:
        """The client is who the code was given to, and knows where it was sent, and its verifier."""
        super().validate_token_request()
        require_resource(self.request, self.server)

    def query_authorization_code(self, code: str, client: Client | Software) -> ShownCode:
        """Return the code, once it is known to be this client's."""
        core: Core = self.server
        found = core.ask(core.renewals.code, code)
        if found is None:
            raise Refusal("invalid_grant", _AGAIN, kind="no such code")
        whose = found.agent == client.agent.name if isinstance(client, Client) else found.client == client.client.id
        if not whose:
            raise Refusal("invalid_grant", _AGAIN, kind="another client's code")
        return ShownCode(code=found)

    def create_token_response(self) -> tuple[int, Answer, list[tuple[str, str]]]:
        """The token response."""
        core: Core = self.server
        core.spend_proof(self.request)
        sent, shown = self.request, self.request.authorization_code
        body = core.ask(_redeem, core, sent.client, shown.code, sent.posted, sent.confirmation)
        return 200, body, self.TOKEN_RESPONSE_HEADER


async def _redeem(
    core: Core, client: Client | Software, code: AuthorizationCode, posted: Posted, shown: Thumbprint | None
) -> Answer:
    registered, form = await _registered(core, client, code), posted.form
    agent = await core.issuer.store.agent(code.agent)
    if agent is None:
        raise Refusal("invalid_grant", _AGAIN, kind="no such agent")
    actor = None if agent.client is not None else await _actor(core, client, agent, form, shown)
    if actor is None and ("actor_token" in form or "actor_token_type" in form):
        raise Refusal("invalid_request", "the code names no other actor; leave out actor_token")
    try:
        got = await core.renewals.redeem(code, registered, shown=shown, peer=posted.peer)
    except UsedTwice as error:
        raise Refusal("invalid_grant", _AGAIN, kind="code used twice", reason=str(error), recorded=True) from None
    except GrantRefused as error:
        raise Refusal("invalid_grant", _AGAIN, kind="code", reason=str(error)) from None
    if actor is None:
        return await core.issuer.renewed(registered, got, code.scope, posted.peer, confirmation=shown)
    return await core.issuer.access_token(
        replace(actor, agent=got.agent),
        code.scope,
        (got.session, got.link),
        posted.peer,
        confirmation=shown,
        grant=got.grant,
    )


async def _registered(core: Core, client: Client | Software, code: AuthorizationCode) -> RegisteredClient:
    """The client that asked the person; where the agent redeems the code itself, it did so in that client's place."""
    if isinstance(client, Software):
        return client.client
    found = await core.issuer.store.client(code.client)
    if found is None or found.status != "active":
        raise Refusal("invalid_grant", _AGAIN, kind="the code's client is gone")
    return found


async def _actor(core: Core, client: Client | Software, agent: Agent, form: Form, shown: Thumbprint | None) -> Client:
    """The keyed agent that is to act, which has a part in this: it asks itself, or gave the client a token of its own.

    Raises:
        Refusal: nothing shows that it has, or what shows it does not count.
    """
    if isinstance(client, Client):
        return client
    if "actor_token" not in form or form.get("actor_token_type") != ACCESS_TOKEN_TYPE:
        raise Refusal("invalid_request", "send an actor_token, an access token of the agent that is to act")
    token = core.issuer.read_token_of(form["actor_token"], agent.name, shown)
    try:
        proof = Proof.BEARER if token.confirmation is None else Proof.DPOP
        caller = await core.sessions.identify(token, proof)
    except TokenRefused as error:
        raise Refusal("invalid_grant", "what the actor_token stands on has ended", reason=str(error)) from None
    if caller.key is None or (caller.session is not None and caller.session.mode is Mode.IMPERSONATED):
        raise Refusal("invalid_grant", "the actor_token is not one that an agent acts by")
    return Client(agent=caller.agent, key=caller.key)
