"""What the authorization server gives out: access tokens and signed chains, each recorded first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mcp_authz import limits
from mcp_authz.authorization import RegisteredClient
from mcp_authz.delegating import link_fields
from mcp_authz.errors import AuthzError, InputError, SignatureRefused
from mcp_authz.ids import new_id
from mcp_authz.issuer_keys import IssuerKeys
from mcp_authz.oauth.asking import details
from mcp_authz.oauth.client import Client
from mcp_authz.oauth.refusal import Refusal
from mcp_authz.oauth.token_types import JWT_TYPE
from mcp_authz.principals import AccessToken, Agent, AgentName, Chain, Grant, Link, LinkId, Session, Thumbprint
from mcp_authz.renewing import Renewed
from mcp_authz.rules import jose
from mcp_authz.rules.scope import PERSONAL, Scope, common
from mcp_authz.rules.signed_link import read_unverified, write_chain
from mcp_authz.rules.token import ACCESS_TOKEN, MINIMAL_SCOPE, access_claims, read_access_token
from mcp_authz.store.ports import Clock, Event, Store

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """Signs what an authenticated client may have."""

    store: Store
    issuer: str
    resource: str
    keys: IssuerKeys
    clock: Clock

    async def access_token(
        self,
        client: Client,
        asked: frozenset[Scope] | None,
        chosen: tuple[Session, Link] | None,
        peer: str,
        *,
        confirmation: Thumbprint | None = None,
        grant: Grant | None = None,
    ) -> Answer:
        """The sign-in is recorded; returns the token response (RFC 6749 section 5.1).

        `grant` is the one that a person gave through another client for this agent, if the token is got by that.
        Without `chosen` the token is in the agent's own name, and short, so that a session which is started meanwhile
        is soon found. With `confirmation` each use of it takes a proof by that key (RFC 9449 section 5).
        """
        now = self.clock()
        link = None if chosen is None else chosen[1]
        if chosen is None or link is None:
            subject, expires_at = f"agent:{client.agent.name}", now + limits.OWN_NAME_TOKEN_LIFETIME
        else:
            subject, expires_at = chosen[0].principal, min(now + limits.ACCESS_TOKEN_LIFETIME, link.expires_at)
        token = AccessToken(
            id=new_id("t"),
            client_id=client.agent.name,
            actor=client.agent.name,
            key=client.key,
            subject=subject,
            session=None if link is None else link.session,
            link=None if link is None else link.id,
            scope=token_scope(asked, client.agent, link),
            issued_at=now,
            expires_at=expires_at,
            confirmation=confirmation,
            mode=None if chosen is None else chosen[0].mode,
            authentication=None if grant is None else grant.authentication,
        )
        chain = () if link is None else await self._holders(client, link)
        await self.store.append(_signed_in(token, now, peer, **_agreed(grant)))
        return self._answer(token, chain, link)

    async def renewed(
        self,
        client: RegisteredClient,
        got: Renewed,
        asked: frozenset[Scope] | None,
        peer: str,
        *,
        confirmation: Thumbprint | None,
        did: str = "signed in",
    ) -> Answer:
        """The sign-in is recorded; returns the token response of a client agent, with its refresh token.

        The token names the client as OAuth knows it, and the agent that the client is for the person as its actor. With
        `confirmation` each use of it takes a proof by that key. `did` is what the record says that the agent did.
        """
        now = self.clock()
        token = AccessToken(
            id=new_id("t"),
            client_id=client.id,
            actor=got.agent.name,
            key=None,
            subject=got.session.principal,
            session=got.session.id,
            link=got.link.id,
            scope=token_scope(asked, got.agent, got.link),
            issued_at=now,
            expires_at=min(now + limits.ACCESS_TOKEN_LIFETIME, got.link.expires_at),
            confirmation=confirmation,
            mode=got.session.mode,
            authentication=got.grant.authentication,
        )
        await self.store.append(_signed_in(token, now, peer, did=did, **_agreed(got.grant)))
        until = got.grant.expires_at.isoformat(timespec="seconds")
        body = {**self._answer(token, (got.agent.name,), got.link), "agent": got.agent.name, "granted_until": until}
        return body if got.refresh is None else {**body, "refresh_token": got.refresh}

    async def token_for_delegate(
        self, delegate: Client, session: Session, chain: Chain, *, under: AccessToken, peer: str
    ) -> Answer:
        """The token is recorded; returns the response that its delegator gets (RFC 8693 section 2.2.1).

        Its delegator holds it and cannot use it: it is bound to the delegate's own key, and ends with the token that
        it was exchanged for.
        """
        now, link = self.clock(), chain.leaf
        token = AccessToken(
            id=new_id("t"),
            client_id=delegate.agent.name,
            actor=delegate.agent.name,
            key=delegate.key,
            subject=session.principal,
            session=session.id,
            link=link.id,
            scope=token_scope(None, delegate.agent, link),
            issued_at=now,
            expires_at=min(now + limits.ACCESS_TOKEN_LIFETIME, link.expires_at, under.expires_at),
            confirmation=delegate.key,
            mode=session.mode,
        )
        await self.store.append(_exchanged(token, under, now, peer))
        return self._answer(token, chain.agents, link)

    async def signed_chain(
        self, client: Client, session: Session, leaf: Link, texts: Sequence[str], peer: str
    ) -> Answer:
        """That the client has its link as a signed chain is recorded; returns the response with the chain."""
        now, given = self.clock(), read_unverified(texts)[-1]
        summary = f"{client.agent.name} took its link {leaf.id} to delegate with its own key"
        who = {"by": f"agent:{client.agent.name}", "key": client.key, "peer": peer, "decision": "permit"}
        fields = {"summary": summary, **link_fields(session, leaf), **who, "scope": sorted(given.scope)}
        await self.store.append(Event(kind="delegation", at=now, fields=fields))
        return {
            "access_token": write_chain(texts),
            "issued_token_type": JWT_TYPE,
            "token_type": "N_A",
            "expires_in": max(0, int((given.expires_at - now).total_seconds())),
            "scope": " ".join(sorted(given.scope)),
            **_named(session.principal, leaf),
        }

    def read_own_token(self, text: str, client: Client, shown: Thumbprint | None) -> AccessToken:
        """Return the access token, once it is known to be one of ours, issued to this very client.

        Raises:
            Refusal: as `read_token_of`.
        """
        return self.read_token_of(text, client.agent.name, shown)

    def read_token_of(self, text: str, holder: AgentName, shown: Thumbprint | None) -> AccessToken:
        """Return the access token, once it is known to be one of ours, issued to this agent.

        One that is bound to a key counts only where that key was `shown` by the request's own proof.

        Raises:
            Refusal: it is not; another party's token is never accepted (RFC 8693 section 2.2.2).
        """
        try:
            token = read_access_token(
                text, keys=self.keys.public, issuer=self.issuer, audience=self.resource, now=self.clock()
            )
        except (SignatureRefused, InputError) as error:
            raise Refusal("invalid_request", "a presented token is not valid here", reason=str(error)) from None
        if token.client_id != holder or token.actor != holder:
            reason = f"token of `{token.client_id}` presented as one of `{holder}`"
            raise Refusal("invalid_request", "a presented token was issued to somebody else", reason=reason)
        if token.confirmation not in (None, shown):
            text = "a presented token is bound to a key; send a DPoP proof by that key"
            raise Refusal("invalid_dpop_proof", text, reason="bound token presented without its key")
        return token

    def read_any_token(self, text: str) -> AccessToken | None:
        """Return the access token, if it is one of ours and of now, whosever it is."""
        try:
            return read_access_token(
                text, keys=self.keys.public, issuer=self.issuer, audience=self.resource, now=self.clock()
            )
        except AuthzError:
            return None

    def link_of(self, text: str) -> LinkId | None:
        """Return the link that a link id or an access token of ours names, whosever it is."""
        if text.startswith("l_"):
            return LinkId(text)
        token = self.read_any_token(text)
        return None if token is None else token.link

    def _answer(self, token: AccessToken, chain: tuple[AgentName, ...], link: Link | None) -> Answer:
        claims = access_claims(token, issuer=self.issuer, audience=self.resource, chain=chain)
        signing = self.keys.signing
        return {
            "access_token": jose.sign(claims, typ=ACCESS_TOKEN, key=signing, kid=signing.public.thumbprint),
            "token_type": "Bearer" if token.confirmation is None else "DPoP",
            "expires_in": claims["exp"] - claims["iat"],
            "scope": claims["scope"],
            **_named(token.subject, link),
        }

    async def _holders(self, client: Client, link: Link) -> tuple[AgentName, ...]:
        standing = await self.store.standing(agent=client.agent.name, key=client.key, person=None, link=link.id)
        return tuple(one.holder for one in standing.links)


def token_scope(asked: frozenset[Scope] | None, agent: Agent, link: Link | None) -> frozenset[Scope]:
    """What a token may carry: what was asked, as far as link and ceiling both cover it, and the minimal scope.

    Nothing asked at all is the default of RFC 6749 section 3.3: everything the link gives. Asking for the minimal scope
    gives that alone: stock clients ask for it first, and for more when a call needs it. What is personal
    is in no ceiling: a client agent has it by what its person agreed to, and nobody else ever has.
    """
    held = frozenset[Scope]() if link is None else common(link.scope, agent.ceiling)
    if link is not None and agent.client is not None:
        held |= link.scope & PERSONAL
    given = held if asked is None else common(asked, held)
    return frozenset([MINIMAL_SCOPE, *sorted(given)[: limits.SCOPES - 1]])


def _named(subject: str, link: Link | None) -> Answer:
    """The members that say for whom a token is, in which session, and what its link gives."""
    if link is None:
        return {"subject": subject}
    return {"subject": subject, "session": link.session, "link": link.id, **details(link.tools)}


def _for_whom(token: AccessToken) -> str:
    if token.session is None:
        return "without a session"
    return "for itself" if token.subject == f"agent:{token.actor}" else f"for {token.subject.partition(':')[2]}"


def _agreed(grant: Grant | None) -> dict[str, Any]:
    """What the record of a sign-in says of the person's consent that it stands on."""
    return {} if grant is None else {"grant": grant.id, "client": grant.client}


def _signed_in(token: AccessToken, at: datetime, peer: str, *, did: str = "signed in", **more: Any) -> Event:
    fields: Mapping[str, Any] = {
        "summary": f"{token.actor} {did} {_for_whom(token)}",
        "actor": f"agent:{token.actor}",
        "key": token.key,
        "token": token.id,
        "subject": token.subject,
        "session": token.session,
        "link": token.link,
        "scope": sorted(token.scope),
        "peer": peer,
        "decision": "permit",
        **({} if token.confirmation is None else {"confirmation": token.confirmation}),
        **more,
    }
    return Event(kind="sign-in", at=at, fields=fields)


def _exchanged(token: AccessToken, under: AccessToken, at: datetime, peer: str) -> Event:
    summary = f"{under.actor} exchanged its token for one that only {token.actor} can use, for {token.subject}"
    fields: Mapping[str, Any] = {
        "summary": summary,
        "by": f"agent:{under.actor}",
        "holder": f"agent:{token.actor}",
        "key": token.key,
        "exchanged": under.id,
        "token": token.id,
        "subject": token.subject,
        "session": token.session,
        "link": token.link,
        "scope": sorted(token.scope),
        "peer": peer,
        "decision": "permit",
    }
    return Event(kind="delegation", at=at, fields=fields)
