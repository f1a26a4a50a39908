"""Revocation (RFC 7009): an agent ends a link with all that descends from it, a client what a person agreed to.

An agent's token is an access token, the id of a link, or a signed chain, which need not have been redeemed. A client
that people sign in to names an access token or a refresh token: all of one consent end together (section 2.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from authlib.consts import default_json_headers  # type: ignore[import-untyped]
from authlib.oauth2.rfc6749.endpoint import Endpoint, EndpointRequest  # type: ignore[import-untyped]

from mcp_authz import limits
from mcp_authz.errors import DelegationError, SignatureRefused
from mcp_authz.oauth.client import Client
from mcp_authz.oauth.core import Core, TokenRequest
from mcp_authz.oauth.refusal import Refusal
from mcp_authz.oauth.software import SOFTWARE_METHODS, Software
from mcp_authz.principals import AgentName, LinkId
from mcp_authz.redeeming import revoked
from mcp_authz.rules.signed_link import parse_chain

REVOCATION: Final = "revocation"


@dataclass
class Revocation(EndpointRequest):  # type: ignore[misc]
    """What a client wants revoked; `link` is None when the token names no link by itself."""

    token: str = ""
    link: LinkId | None = None


class RevocationEndpoint(Endpoint):  # type: ignore[misc]
    """An agent ends a link that it holds, or one below it; a client ends the grant that a token of its own stands for.

    Anything else answers the same and changes nothing.
    """

    ENDPOINT_NAME = REVOCATION

    def validate_request(self, request: TokenRequest) -> Revocation:
        """The client is authenticated, and names a token; `token_type_hint` is not needed to find it (section 2.1).

        Raises:
            Refusal: it is not, or does not; or an agent names what cannot be ended alone (section 2.2.1).
        """
        core: Core = self.server
        client = core.authenticate_client(request, SOFTWARE_METHODS, REVOCATION)
        if "token" not in request.form:
            raise Refusal("invalid_request", "name the token to revoke")
        token = request.form["token"]
        link = core.issuer.link_of(token) if isinstance(client, Client) else None
        if isinstance(client, Client) and link is None and _is_in_own_name(core, client, token):
            text = "a token in your own name ends by itself, within minutes; an operator revokes your key before that"
            raise Refusal("unsupported_token_type", text)
        return Revocation(request=request, client=client, token=token, link=link)

    def create_response(self, validated_request: Revocation) -> tuple[int, dict[str, Any], list[tuple[str, str]]]:
        """200, also for what is unknown or somebody else's: nobody learns which links there are (section 2.2)."""
        core: Core = self.server
        if isinstance(validated_request.client, Software):
            core.ask(_give_back, core, validated_request.client, validated_request.token)
        elif validated_request.link is not None:
            core.ask(_revoke, core, validated_request.client, validated_request.link)
        else:
            core.ask(_revoke_chain, core, validated_request.client, validated_request.token)
        return 200, {}, default_json_headers


def _is_in_own_name(core: Core, client: Client, text: str) -> bool:
    """Whether the agent names a token of its own that stands for no link: there is nothing to end but its key."""
    token = core.issuer.read_any_token(text)
    return token is not None and token.actor == client.agent.name and token.link is None


async def _give_back(core: Core, client: Software, text: str) -> None:
    """The grant behind the client's own token ends; a refresh token that was used before says as well whose it is."""
    token, own = core.issuer.read_any_token(text), client.client.id
    if token is None:
        refresh = await core.renewals.refresh_token(text)
        grant = None if refresh is None else refresh.grant
    else:
        mine = token.session if token.client_id == own and token.key is None else None
        session = None if mine is None else await core.issuer.store.session(mine)
        grant = None if session is None else session.grant
    found = None if grant is None else await core.issuer.store.grant(grant)
    if found is not None and found.client == own:
        await core.renewals.give_back(found)


async def _revoke(core: Core, client: Client, link: LinkId) -> None:
    if not await _holds(core, client.agent.name, link):
        return
    await core.issuer.store.revoke("link", link, revoked(link, client.agent.name, core.issuer.clock()))


async def _revoke_chain(core: Core, client: Client, text: str) -> None:
    try:
        texts = parse_chain(text)
        chain = core.chains.signatures.verify(texts)
    except (SignatureRefused, DelegationError):  # it is no chain of ours, and can never be used
        return
    await core.chains.revoke(chain, texts, by=client.agent)


async def _holds(core: Core, agent: AgentName, link: LinkId) -> bool:
    """Whether the agent holds the link, or one that it descends from."""
    above: LinkId | None = link
    for _ in range(limits.CHAIN_LINKS):
        found = None if above is None else await core.issuer.store.link(above)
        if found is None:
            return False
        if found.holder == agent:
            return True
        above = found.parent
    return False
