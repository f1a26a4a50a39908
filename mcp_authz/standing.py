"""Whether what a token stands on still holds: agent, key, person, grant, session and every link of the chain."""

from __future__ import annotations

from datetime import datetime

from mcp_authz import limits
from mcp_authz.errors import DelegationError, TokenRefused
from mcp_authz.principals import AccessToken, Agent, Caller, Chain, Grant, Key, Link, Proof, Session
from mcp_authz.rules.delegation import verify_chain
from mcp_authz.store.ports import Standing


def caller_of(standing: Standing, token: AccessToken, proof: Proof, at: datetime) -> Caller:
    """Return who presents the token, once everything it names is live and belongs together (steps 5 and 6).

    A session that has ended, expired or was idle for too long is no refusal: the caller comes back without it.

    Raises:
        TokenRefused: the agent, its key, the person, the grant or a link is not what the token says, or has ended.
    """
    agent, key = standing.agent, standing.key
    if agent is None or agent.name != token.actor or agent.status != "active":
        raise TokenRefused("the agent is not active")
    if agent.client is not None or token.key is None:
        return _client_agent(standing, agent, token, proof, at)
    if key is None or key.thumbprint != token.key or key.holder != f"agent:{agent.name}" or key.status != "active":
        raise TokenRefused("the key that logged in is not an active key of the agent")
    if key.retires_at is not None and at >= key.retires_at:  # a retiring key cannot log in: the token is older
        raise TokenRefused("the key that logged in has been replaced")
    if token.confirmation is not None and proof is Proof.BEARER:
        raise TokenRefused("the token is bound to a key, and nothing proves that its bearer has it")
    if token.link is None:
        if agent.parent is not None:
            raise TokenRefused("a child agent has nothing in its own name")
        if token.session is not None or token.subject != f"agent:{agent.name}":
            raise TokenRefused("the token names a person or a session, and no link")
        return Caller(agent=agent, key=key.thumbprint, proof=proof, token=token, public_key=key.raw)
    return _delegated_caller(standing, agent, token, proof, at, public_key=key.raw)


def _client_agent(standing: Standing, agent: Agent, token: AccessToken, proof: Proof, at: datetime) -> Caller:
    """An agent that a person's consent made: it has no key, no children and nothing in its own name."""
    if agent.client is None or token.key is not None or token.client_id != agent.client:
        raise TokenRefused("the token's client is not the one that the agent is")
    if token.confirmation is not None and proof is Proof.BEARER:
        raise TokenRefused("the token is bound to a key, and nothing proves that its bearer has it")
    if token.link is None or token.subject != f"user:{agent.owner}":
        raise TokenRefused("a client agent acts for its owner, by what they agreed to")
    return _delegated_caller(standing, agent, token, proof, at)


def _delegated_caller(
    standing: Standing, agent: Agent, token: AccessToken, proof: Proof, at: datetime, *, public_key: bytes = b""
) -> Caller:
    grant, session = standing.grant, standing.session
    if session is None or session.id != token.session or session.principal != token.subject or not standing.links:
        raise TokenRefused("the token's link is not one of its session and person")
    if token.mode not in (None, session.mode):
        raise TokenRefused("the token's mode is not its session's")
    require_answerable(standing, session)
    if grant is None or grant.id != session.grant or grant.status != "active" or at >= grant.expires_at:
        raise TokenRefused("the grant has ended")
    leaf = standing.links[-1]
    if leaf.id != token.link or leaf.holder != agent.name:
        raise TokenRefused("the token's link is not the actor's")
    if is_over(session, at):  # before the links, which end with it
        return Caller(agent=agent, key=token.key, proof=proof, token=token, public_key=public_key, session_over=True)
    chain = chain_of(standing, session, grant, at)
    return Caller(
        agent=agent,
        key=token.key,
        proof=proof,
        token=token,
        public_key=public_key,
        person=None if session.subject is None else standing.person,
        grant=grant,
        session=session,
        chain=chain,
        holders=standing.holders,
    )


def chain_of(standing: Standing, session: Session, grant: Grant, at: datetime) -> Chain:
    """Return the links as a chain, once they hold, and every key that signed one or was given one.

    Raises:
        TokenRefused: a link has ended or is not its holder's, or a key was revoked or is somebody else's.
    """
    try:
        chain = verify_chain(standing.links, session=session, grant=grant, holders=standing.holders, at=at)
    except DelegationError as error:
        raise TokenRefused(str(error)) from None
    for above, link in zip((None, *chain.links), chain.links, strict=False):
        for thumbprint, of in ((link.holder_key, link), (link.signed_by, above)):
            if thumbprint is not None and not _is_key_of(standing.keys.get(thumbprint), of):
                raise TokenRefused("a key that the delegation was signed by, or given to, was revoked")
    child = standing.holders[chain.leaf.holder]
    if child.parent is not None and child.parent not in chain.agents:
        raise TokenRefused("a child agent acts only for the agent that named it")
    return chain


def _is_key_of(key: Key | None, link: Link | None) -> bool:
    return key is not None and link is not None and key.status == "active" and key.holder == f"agent:{link.holder}"


def is_over(session: Session, at: datetime) -> bool:
    """Whether the session carries no call any more: ended, expired, or idle for too long."""
    idle = at - session.last_used_at >= limits.SESSION_IDLE
    return session.status != "active" or at >= session.expires_at or idle


def require_answerable(standing: Standing, session: Session) -> None:
    """Return only if a person answers for the session: its subject, or who owns an agent that works for itself.

    Raises:
        TokenRefused: the person is revoked, or another.
    """
    if session.subject is None:
        if standing.owner is None or standing.owner.status != "active":
            raise TokenRefused("the owner of the agent, which works for itself, is not active")
    elif standing.person is None or standing.person.status != "active" or standing.person.name != session.subject:
        raise TokenRefused("the person is not active")
