"""What a client gets for a code or a refresh token, once each: a session of what a person agreed to.

One authorization is one grant, and every refresh token of it descends from its one code. Where a code or a refresh
token comes a second time, two have it who should be one: the grant ends (RFC 9700 sections 2.2.2 and 4.14.2).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from mcp_authz import limits
from mcp_authz.authorization import AuthorizationCode, RefreshToken, RegisteredClient
from mcp_authz.errors import AuthzError, Conflict, DelegationError, InputError, NotFound, ScopeError
from mcp_authz.principals import Agent, AgentName, Grant, GrantId, Link, Session, SessionId, Thumbprint
from mcp_authz.rules.keys import b64url, random_bytes
from mcp_authz.rules.scope import Scope, narrow
from mcp_authz.rules.token import MINIMAL_SCOPE
from mcp_authz.sessions import Sessions
from mcp_authz.standing import is_over
from mcp_authz.store.ports import Clock, Event, Store

_BYTES: Final = 32
_CHARACTERS: Final = 256  # of what could be a code or a refresh token; longer text is not looked at


MustSignIn = Callable[[AgentName, SessionId], bool]
"""Whether the agent's session was just told that its person has to sign in again (`StepUps.waits_for_sign_in`)."""


class GrantRefused(AuthzError):
    """A code or a refresh token that gives nothing: unknown, used, expired, somebody else's, or its grant has ended."""

    code = "invalid_grant"


class UsedTwice(GrantRefused):
    """A code or a refresh token that was used before: its grant has ended now, on record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewed:
    """What an access token can be signed for now, and what the next one is got with."""

    agent: Agent
    grant: Grant
    session: Session
    link: Link  # the session's root
    refresh: str | None = field(default=None, repr=False)  # the text of the next refresh token; kept by nobody


class Renewals:
    """Takes codes and refresh tokens, each of them once."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        sessions: Sessions,
        *,
        must_sign_in: MustSignIn = lambda _agent, _session: False,
    ) -> None:
        self._must_sign_in = must_sign_in
        self._store = store
        self._clock = clock
        self._sessions = sessions

    async def code(self, text: str) -> AuthorizationCode | None:
        """Return the code with this text, used and expired ones included."""
        return None if len(text) > _CHARACTERS else await self._store.code(digest(text))

    async def refresh_token(self, text: str) -> RefreshToken | None:
        """Return the refresh token with this text, used and expired ones included."""
        return None if len(text) > _CHARACTERS else await self._store.refresh_token(digest(text))

    async def redeem(
        self, code: AuthorizationCode, client: RegisteredClient, *, shown: Thumbprint | None, peer: str = ""
    ) -> Renewed:
        """The code is used, a session is open, and a refresh token counts, unless a keyed agent acts: it has its key.

        Whoever calls has made sure that `client` authenticated as far as it can, that it knows the verifier, and, where
        a keyed agent is to act, that the agent has a part in it. `shown` is the key of the request's own proof.

        Raises:
            UsedTwice: the code was used before; the grant has ended.
            GrantRefused: the code has expired, is bound to another key, or what it stands for has ended.
        """
        self._require_bound(code.confirmation, shown)
        if code.used_at is not None:
            raise await self._used_twice("code", code.grant, peer)
        grant, agent = await self._standing(code)
        after = None
        if agent.client is not None:
            after = self._next(grant, client, shown if client.is_public else None)
        session, link, event = await self._prepare(grant, agent, client)
        try:
            await self._store.redeem_code(code.digest, (session, link, event), None if after is None else after[1])
        except Conflict as error:
            now = await self._store.code(code.digest)
            if now is not None and now.used_at is not None:
                raise await self._used_twice("code", code.grant, peer) from None
            raise GrantRefused(str(error)) from None
        refresh = None if after is None else after[0]
        return Renewed(agent=agent, grant=grant, session=session, link=link, refresh=refresh)

    async def refresh(
        self,
        used: RefreshToken,
        client: RegisteredClient,
        *,
        asked: frozenset[Scope] | None,
        shown: Thumbprint | None,
        peer: str = "",
    ) -> Renewed:
        """The refresh token is used, the next one counts, and a session of the grant is open.

        It is the newest one of the grant. Where that is over by itself, there is a new one; where somebody ended it,
        nothing comes after it by itself, as in `Sessions.which`. `client` has authenticated as far as it can.

        Raises:
            UsedTwice: the token was used before; the grant has ended.
            GrantRefused: it has expired, is another client's, bound to another key, its grant or session was ended, or
                a call of it just asked for a fresh sign-in; the token counts still.
            ScopeError: more is asked than the person agreed to (RFC 6749 section 6); the token counts still.
        """
        if used.client != client.id:
            raise GrantRefused("the refresh token is another client's")
        self._require_bound(used.confirmation, shown)
        if used.used_at is not None:
            raise await self._used_twice("refresh token", used.grant, peer)
        grant, agent = await self._standing(used)
        _require_covered(asked, grant)
        text, after = self._next(grant, client, used.confirmation or (shown if client.is_public else None))
        there, opened = await self._running(grant), None
        if there is not None and self._must_sign_in(agent.name, there[0].id):
            raise GrantRefused("a call just asked for a fresh sign-in, which no refresh token stands for")
        if there is None:
            opened = await self._prepare(grant, agent, client)
            there = opened[:2]
        try:
            await self._store.rotate(used.digest, after, opened)
        except Conflict as error:
            now = await self._store.refresh_token(used.digest)
            if now is not None and now.used_at is not None:
                raise await self._used_twice("refresh token", used.grant, peer) from None
            raise GrantRefused(str(error)) from None
        return Renewed(agent=agent, grant=grant, session=there[0], link=there[1], refresh=text)

    async def is_good(self, token: RefreshToken) -> bool:
        """Whether the refresh token could be used now."""
        try:
            grant, _ = await self._standing(token)
            await self._running(grant)
        except GrantRefused:
            return False
        return token.used_at is None

    def _require_bound(self, bound: Thumbprint | None, shown: Thumbprint | None) -> None:
        """RFC 9449 sections 5 and 10: the key that it was bound to is the one that signed the request's proof."""
        if bound is not None and bound != shown:
            raise GrantRefused("it is bound to a key, and the request has no proof by that key")

    async def _standing(self, token: AuthorizationCode | RefreshToken) -> tuple[Grant, Agent]:
        """The grant and the agent that acts by it, once both are known to count still, and to belong together."""
        now, grant = self._clock(), await self._store.grant(token.grant)
        if grant is None or grant.client != token.client or grant.status != "active" or now >= grant.expires_at:
            raise GrantRefused("what the person agreed to has ended")
        if now >= token.expires_at:
            raise GrantRefused("it has expired")
        agent = await self._store.agent(grant.agent)
        if agent is None or agent.status != "active" or agent.client not in (None, token.client):
            raise GrantRefused("the agent is not active")
        if isinstance(token, AuthorizationCode) and token.agent != agent.name:
            raise GrantRefused("the code is for another agent")
        if agent.client is not None and agent.owner != grant.subject:
            raise GrantRefused("the agent is another person's")
        if grant.subject is None or not await self._sessions.is_active(grant.subject):
            raise GrantRefused("the person is not active")
        return grant, agent

    async def _running(self, grant: Grant) -> tuple[Session, Link] | None:
        """The newest session of the grant, if it runs; None where it is over by itself."""
        found = await self._store.newest_session(grant.id)
        if found is None:
            return None
        session, root = found
        if session.status != "active" or root.status != "active":
            raise GrantRefused("the session was ended; the person can agree to another")
        return None if is_over(session, self._clock()) or self._clock() >= root.expires_at else found

    async def _prepare(self, grant: Grant, agent: Agent, client: RegisteredClient) -> tuple[Session, Link, Event]:
        purpose = f"signed in through {client.name or client.handle}"[: limits.PURPOSE]
        try:
            return await self._sessions.prepare(grant, purpose=purpose, by=f"agent:{agent.name}")
        except (Conflict, NotFound, DelegationError, InputError) as error:
            raise GrantRefused(str(error)) from None

    def _next(self, grant: Grant, client: RegisteredClient, bound: Thumbprint | None) -> tuple[str, RefreshToken]:
        """A new refresh token of the grant: its text, and what the store keeps."""
        text, now = b64url(random_bytes(_BYTES)), self._clock()
        kept = RefreshToken(
            digest=digest(text),
            grant=grant.id,
            client=client.id,
            confirmation=bound,
            made_at=now,
            expires_at=min(now + limits.REFRESH_TOKEN, grant.expires_at),
        )
        return text, kept

    async def _used_twice(self, what: str, of: GrantId, peer: str) -> UsedTwice:
        """What was given for it has ended, on record: two have what one should have."""
        grant = await self._store.grant(of)
        if grant is not None:
            summary = (
                f"{grant.agent} used the same {what} twice, so somebody else may have it: "
                f"what {grant.subject} agreed to has ended"
            )
            event = _ended(grant, self._clock(), summary, reason=f"a {what} was used twice", peer=peer)
            await self._store.revoke("grant", grant.id, event)
        return UsedTwice(f"the {what} was used before; its grant has ended")

    async def give_back(self, grant: Grant) -> None:
        """The client wants no more of what the person agreed to: the grant has ended, on record."""
        summary = f"{grant.agent} signed out: what {grant.subject} agreed to has ended"
        await self._store.revoke("grant", grant.id, _ended(grant, self._clock(), summary, reason="signed out"))


def digest(text: str) -> bytes:
    """Return what the store knows of a code, a refresh token or a client's secret: 256 random bits need no salt."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _require_covered(asked: frozenset[Scope] | None, grant: Grant) -> None:
    try:
        narrow(grant.scope, frozenset() if asked is None else asked - {MINIMAL_SCOPE})
    except DelegationError as error:
        raise ScopeError(str(error)) from None


def _ended(grant: Grant, at: datetime, summary: str, *, reason: str, peer: str = "") -> Event:
    fields = {
        "summary": summary,
        "by": f"agent:{grant.agent}",
        "of": "grant",
        "name": grant.id,
        "client": grant.client,
        "subject": f"user:{grant.subject}",
        "reason": reason,
        **({"peer": peer} if peer else {}),
    }
    return Event(kind="revocation", at=at, fields=fields)
