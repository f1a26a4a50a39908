"""What the authorization server gives out: access tokens and statements of a delegation, each recorded first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.agents import current_keys
from mcp_authz.errors import AuthzError, InputError, ScopeError, SignatureRefused
from mcp_authz.ids import new_id
from mcp_authz.issuer_keys import IssuerKeys
from mcp_authz.model import AccessToken, Agent, Link, LinkId, Session, Thumbprint
from mcp_authz.oauth.client import Client
from mcp_authz.oauth.refusal import Refusal
from mcp_authz.rules import jose
from mcp_authz.rules.scope import Scope, common, parse_scopes
from mcp_authz.rules.token import (
    ACCESS_TOKEN,
    DELEGATION,
    MINIMAL_SCOPE,
    access_claims,
    delegation_claims,
    read_access_token,
    read_delegation,
)
from mcp_authz.store.ports import Clock, Event, Store

Answer = dict[str, Any]

JWT_TYPE: Final = "urn:ietf:params:oauth:token-type:jwt"
ACCESS_TOKEN_TYPE: Final = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 - RFC 8693 section 3


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
    ) -> Answer:
        """The sign-in is recorded; returns the token response (RFC 6749 section 5.1).

        Without `chosen` the token is in the agent's own name, and short, so that a session which is started meanwhile
        is soon found. With `confirmation` each use of it takes a proof by that key (RFC 9449 section 5).
        """
        now = self.clock()
        link = None if chosen is None else chosen[1]
        if chosen is None or link is None:
            subject, expires_at = f"agent:{client.agent.name}", now + limits.OWN_NAME_TOKEN_LIFETIME
        else:
            subject = f"user:{chosen[0].subject}"
            expires_at = min(now + limits.ACCESS_TOKEN_LIFETIME, link.expires_at)
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
        )
        chain = () if link is None else await self._holders(client, link)
        claims = access_claims(token, issuer=self.issuer, audience=self.resource, chain=chain)
        await self.store.append(_signed_in(token, now, peer))
        return {
            "access_token": jose.sign(claims, typ=ACCESS_TOKEN, key=self.keys.signing, kid=self.keys.kid),
            "token_type": "Bearer" if confirmation is None else "DPoP",
            "expires_in": claims["exp"] - claims["iat"],
            "scope": claims["scope"],
            "subject": subject,
            **({} if link is None else {"session": link.session}),
        }

    async def delegation(self, link: Link, subject: str) -> Answer:
        """The token response that hands a new link to its holder (RFC 8693 section 2.2.1).

        Raises:
            Refusal: the holder lost its key in between.
        """
        keys = current_keys(await self.store.keys_of(f"agent:{link.holder}"))
        if not keys:
            raise Refusal("invalid_grant", "the delegate has no key to log in with")
        holder_key = Thumbprint(keys[-1].thumbprint)
        claims = delegation_claims(link, issuer=self.issuer, subject=subject, holder_key=holder_key)
        return {
            "access_token": jose.sign(claims, typ=DELEGATION, key=self.keys.signing, kid=self.keys.kid),
            "issued_token_type": JWT_TYPE,
            "token_type": "N_A",
            "expires_in": claims["exp"] - claims["iat"],
            "scope": claims["scope"],
        }

    def read_own_token(self, text: str, client: Client, shown: Thumbprint | None = None) -> AccessToken:
        """Return the access token, once it is known to be one of ours, issued to this very client.

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
        if token.client_id != client.agent.name:
            reason = f"token of `{token.client_id}` presented by `{client.agent.name}`"
            raise Refusal("invalid_request", "a presented token was issued to somebody else", reason=reason)
        if token.confirmation is not None and token.confirmation != shown:
            text = "a presented token is bound to a key; send a DPoP proof by that key"
            raise Refusal("invalid_dpop_proof", text, reason="bound token presented without its key")
        return token

    def read_statement(self, text: str, client: Client) -> LinkId:
        """Return the link of a delegation statement, once it is known to be ours and for this client's key.

        Raises:
            Refusal: it is not.
        """
        try:
            link, key = read_delegation(text, keys=self.keys.public, issuer=self.issuer, now=self.clock())
        except SignatureRefused as error:
            raise Refusal("invalid_request", "a presented token is not valid here", reason=str(error)) from None
        if key != client.key:
            raise Refusal("invalid_request", "a presented token was issued to somebody else", reason="another key")
        return link

    def link_of(self, text: str) -> LinkId | None:
        """Return the link that a link id, a statement or an access token of ours names, whosever it is."""
        if text.startswith("l_"):
            return LinkId(text)
        try:
            return read_delegation(text, keys=self.keys.public, issuer=self.issuer, now=self.clock())[0]
        except AuthzError:
            pass
        try:
            return read_access_token(
                text, keys=self.keys.public, issuer=self.issuer, audience=self.resource, now=self.clock()
            ).link
        except AuthzError:
            return None

    async def _holders(self, client: Client, link: Link) -> tuple[Any, ...]:
        standing = await self.store.standing(agent=client.agent.name, key=client.key, person=None, link=link.id)
        return tuple(one.holder for one in standing.links)


def token_scope(asked: frozenset[Scope] | None, agent: Agent, link: Link | None) -> frozenset[Scope]:
    """What a token may carry: what was asked, as far as link and ceiling both cover it, and the minimal scope.

    Nothing asked at all is the default of RFC 6749 section 3.3: everything the link gives. Asking for the minimal scope
    gives that alone: stock clients ask for it first, and for more when a call needs it.
    """
    held = frozenset[Scope]() if link is None else common(link.scope, agent.ceiling)
    given = held if asked is None else common(asked, held)
    return frozenset([MINIMAL_SCOPE, *sorted(given)[: limits.SCOPES - 1]])


def asked_scope(text: str | None) -> frozenset[Scope] | None:
    """Return the scopes of a request's `scope` parameter, None when there is none.

    Raises:
        Refusal: one of them is not a scope.
    """
    try:
        return None if text is None else parse_scopes(text)
    except ScopeError as error:
        raise Refusal("invalid_scope", "the requested scope is malformed", reason=str(error)) from None


def _signed_in(token: AccessToken, at: datetime, peer: str) -> Event:
    fields: Mapping[str, Any] = {
        "summary": f"{token.actor} signed in for {token.subject}",
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
    }
    return Event(kind="sign-in", at=at, fields=fields)
