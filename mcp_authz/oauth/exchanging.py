"""The three exchanges: a token for another agent, a token into a signed chain, and a signed chain into a token."""

from __future__ import annotations

from dataclasses import replace

from mcp_authz.agents import current_keys
from mcp_authz.delegating import Asked, Source
from mcp_authz.errors import AuthzError, Conflict, DelegationError, InputError, SignatureRefused, TokenRefused
from mcp_authz.oauth.asking import asked_delegation, asked_out_of, asked_scope, carried
from mcp_authz.oauth.client import Client
from mcp_authz.oauth.core import Core, Posted
from mcp_authz.oauth.issuing import Answer
from mcp_authz.oauth.refusal import Refusal
from mcp_authz.oauth.token_types import ACCESS_TOKEN_TYPE
from mcp_authz.policy.document import authentication_of
from mcp_authz.principals import AccessToken, Caller, Chain, Link, Mode, Proof, Session, Thumbprint
from mcp_authz.redeeming import is_signed_for
from mcp_authz.rules.delegation import uncovered
from mcp_authz.rules.signed_link import parse_chain


async def delegate(core: Core, client: Client, token: AccessToken, posted: Posted) -> Answer:
    """A link for the requested actor under the client's own, and a token of it that nobody but that agent can use."""
    source, _ = await _source(core, token)
    asked = asked_delegation(posted.form, scope=source.chain.leaf.scope)
    link = await _new_link(core, source, asked)
    holder = await core.issuer.store.agent(link.holder)
    keys = current_keys(await core.issuer.store.keys_of(f"agent:{link.holder}"))
    if holder is None or not keys:
        raise Refusal("invalid_grant", "the delegate has no key to sign in with any more")
    client_of_link = Client(agent=holder, key=keys[-1].thumbprint)
    chain = Chain(links=(*source.chain.links, link))
    body = await core.issuer.token_for_delegate(client_of_link, source.session, chain, under=token, peer=posted.peer)
    return {**body, "issued_token_type": ACCESS_TOKEN_TYPE}


async def root(core: Core, client: Client, token: AccessToken, posted: Posted) -> Answer:
    """The client's own link as a signed chain, from which it delegates with its key; the lineage goes on.

    A link that was signed for the key is given back as it was signed: less of it cannot be asked for.
    """
    source, leaf = await _source(core, token)
    key = await core.issuer.store.key(client.key)
    if key is None:
        raise Refusal("invalid_grant", "the key that signed in is gone")
    scope = asked_out_of(posted.form.get("scope"), source.chain.leaf.scope)
    if is_signed_for(leaf, key) and "scope" in posted.form and uncovered(tuple(leaf.scope), scope):
        text = "a signed link is given back as it is; leave out scope, and delegate from the link with less"
        raise Refusal("invalid_scope", text)
    try:
        texts = await core.chains.root(replace(leaf, scope=scope), source.session, source.chain, key)
    except InputError as error:
        raise Refusal(
            "invalid_grant", "this delegation cannot be signed; a new session can", reason=str(error)
        ) from None
    return await core.issuer.signed_chain(client, source.session, leaf, texts, posted.peer)


async def redeem(core: Core, client: Client, posted: Posted, shown: Thumbprint | None) -> Answer:
    """An access token of the chain's leaf, for nobody but the holder of the key that the leaf was given to.

    It is bound to the key whose proof was `shown`, if one was.
    """
    try:
        texts = parse_chain(posted.form["subject_token"])
        chain = core.chains.verify(texts, client.key)
    except (SignatureRefused, DelegationError) as error:
        raise _invalid(error) from None
    try:
        session, link = await core.chains.redeem(chain, texts)
    except DelegationError as error:
        text = "a step of the chain gives more than it may, or to whom it may not"
        raise _refused("access_denied", text, error) from None
    except Conflict as error:
        raise Refusal("invalid_grant", "what the chain stands on has ended", reason=str(error)) from None
    except (SignatureRefused, InputError) as error:
        raise _invalid(error) from None
    agent = await core.issuer.store.agent(link.holder)
    if agent is None or agent.name != client.agent.name:
        raise Refusal("invalid_request", "the chain was given to somebody else")
    _require_exchangeable(session)
    asked, holder = asked_scope(posted.form.get("scope")), replace(client, agent=agent)
    body = await core.issuer.access_token(holder, asked, (session, link), posted.peer, confirmation=shown)
    return {**body, "issued_token_type": ACCESS_TOKEN_TYPE}


async def _source(core: Core, token: AccessToken) -> tuple[Source, Link]:
    """What the token delegates from, with no more scope than it carries; and its link as it is."""
    caller = await _standing(core, token)
    if caller.chain is None or caller.session is None:
        raise Refusal("invalid_request", "the token stands for no open session that could be delegated")
    _require_exchangeable(caller.session)
    leaf = caller.chain.leaf
    links = (*caller.chain.links[:-1], replace(leaf, scope=carried(leaf.scope, token.scope)))
    source = Source(
        chain=Chain(links=links),
        session=caller.session,
        person=caller.person,
        key=caller.key,
        authentication=authentication_of(caller),
    )
    return source, leaf


async def _standing(core: Core, token: AccessToken) -> Caller:
    try:
        return await core.sessions.identify(token, Proof.BEARER if token.confirmation is None else Proof.DPOP)
    except TokenRefused as error:
        raise Refusal("invalid_request", "what the token stands on has ended", reason=str(error)) from None


def _require_exchangeable(session: Session) -> None:
    if session.mode is Mode.IMPERSONATED:
        raise Refusal("invalid_request", "a token by which somebody is impersonated is never exchanged")


async def _new_link(core: Core, source: Source, asked: Asked) -> Link:
    try:
        return await core.delegations.delegate(source, asked)
    except DelegationError as error:
        text = "this is more than you have or than the delegate may have, or you may not delegate to it"
        raise _refused("access_denied", text, error) from None
    except Conflict as error:
        raise _refused("invalid_grant", "what you would delegate has ended", error) from None
    except InputError as error:
        raise _refused("invalid_request", "expires_in, max_calls or reason is out of bounds", error) from None


def _invalid(error: AuthzError) -> Refusal:
    return Refusal("invalid_request", "the chain is not valid here", reason=str(error))


def _refused(code: str, text: str, error: AuthzError) -> Refusal:
    return Refusal(code, text, reason=str(error), recorded=True)
