"""Grants, sessions and delegation: how authority comes to an agent, and whether it still has it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import anyio

from mcp_authz import limits
from mcp_authz.delegating import link_fields
from mcp_authz.errors import Conflict, InputError, NotFound, TokenRefused
from mcp_authz.ids import new_id, new_link
from mcp_authz.model import (
    AccessToken,
    Agent,
    AgentName,
    Caller,
    Chain,
    Grant,
    GrantId,
    Link,
    Mode,
    PersonName,
    Proof,
    Session,
    SessionId,
)
from mcp_authz.rules.constraint import ToolsMap
from mcp_authz.rules.delegation import check_root
from mcp_authz.rules.scope import Scope, narrow
from mcp_authz.signatures import Signatures
from mcp_authz.standing import caller_of, is_over
from mcp_authz.store.ports import Clock, Event, EventKind, Store


class Sessions:
    """Gives authority step by step, each step no more than the one before, and reads it back at every request."""

    def __init__(self, store: Store, clock: Clock, signatures: Signatures | None = None) -> None:
        """Without `signatures` no caller is known whose chain a delegator signed."""
        self._store = store
        self._clock = clock
        self._signatures = signatures
        self._starting = anyio.Lock()  # two sign-ins at once must not open two sessions: neither could be told apart

    async def grant(
        self,
        subject: str,
        agent: str,
        *,
        scope: frozenset[Scope],
        tools: ToolsMap | None = None,
        lifetime: timedelta = limits.GRANT_LIFETIME,
        by: str,
    ) -> Grant:
        """The person has agreed that the agent may do this for them, until `lifetime` has passed.

        Raises:
            NotFound: the person or the agent is not registered, or revoked.
            DelegationError: the scope is more than the agent's ceiling.
            InputError: the lifetime is not positive, or longer than `limits.GRANT_LIFETIME`.
        """
        _require_lifetime(lifetime, limits.GRANT_LIFETIME)
        holder = await self._active_agent(AgentName(agent))
        person = PersonName(subject)
        await self._require_person(person)
        now = self._clock().replace(microsecond=0)  # as everything that is signed of it counts time
        grant = Grant(
            id=GrantId(new_id("g")),
            subject=person,
            agent=holder.name,
            scope=narrow(holder.ceiling, scope),
            tools=tools,
            granted_at=now,
            expires_at=now + lifetime,
        )
        fields = {
            "grant": grant.id,
            "subject": f"user:{person}",
            "agent": f"agent:{agent}",
            "scope": sorted(scope),
            "expires_at": grant.expires_at.isoformat(),
        }
        await self._store.add_grant(grant, _event("grant", now, by, f"{agent} may act for {person}", fields))
        return grant

    async def only_grant(self, subject: str, agent: str) -> Grant:
        """Return the one active grant between the two.

        Raises:
            NotFound: there is none, or more than one.
        """
        found = [grant for grant in await self._active_grants(AgentName(agent)) if grant.subject == subject]
        if len(found) != 1:
            raise NotFound(f"there are {len(found)} active grants of `{subject}` to `{agent}`; name the grant")
        return found[0]

    async def start(
        self,
        grant: Grant,
        *,
        purpose: str,
        scope: frozenset[Scope] | None = None,
        tools: ToolsMap | None = None,
        lifetime: timedelta = limits.SESSION_LIFETIME,
        max_calls: int | None = None,
        by: str,
    ) -> tuple[Session, Link]:
        """A session of the grant is open, with its root link; without `scope` or `tools` it has those of the grant.

        The session ends with its grant at the latest.

        Raises:
            NotFound: the person or the agent is not registered, or revoked.
            DelegationError: more is asked than the grant gives.
            Conflict: the grant is not active any more.
            InputError: the purpose is empty or too long, or the lifetime or the budget is not possible.
        """
        _require_lifetime(lifetime, limits.SESSION_LIFETIME)
        _require_budget(max_calls)
        _require_purpose(purpose)
        holder = await self._active_agent(grant.agent)
        await self._require_person(holder.owner if grant.subject is None else grant.subject)
        now = self._clock().replace(microsecond=0)  # what is signed of it counts whole seconds
        session = Session(
            id=SessionId(new_id("s")),
            grant=grant.id,
            subject=grant.subject,
            agent=grant.agent,
            mode=Mode.DELEGATED,
            purpose=purpose,
            started_at=now,
            expires_at=min(now + lifetime, grant.expires_at),
            last_used_at=now,
            max_calls=max_calls,
        )
        root = Link(
            id=new_link(now),
            session=session.id,
            parent=None,
            holder=grant.agent,
            scope=grant.scope if scope is None else scope,
            tools=grant.tools if tools is None else tools,
            depth=0,
            max_depth=holder.depth,
            issued_at=now,
            expires_at=session.expires_at.replace(microsecond=0),
            max_calls=max_calls,
        )
        check_root(root, session, grant)
        fields = {**link_fields(session, root), "purpose": purpose, "grant": grant.id}
        event = _event("session", now, by, f"{grant.agent} works for {grant.subject}: {purpose}", fields)
        await self._store.open_session(session, root, event)
        return session, root

    async def which(
        self, agent: AgentName, *, session: str | None = None, delegation: str | None = None, subject: str | None = None
    ) -> tuple[Session, Link] | None:
        """Return the session and link that a sign-in of the agent is for; None is the agent's own name.

        In order: what the signed assertion names; the agent's only open link; a new session from its only active
        grant. Several and no claim, or a claim that names nothing open: never a guess. With `subject` (`user:NAME`)
        only what is for that person is there at all.
        """
        person = None if subject is None else PersonName(subject.removeprefix("user:"))
        found = await self._open(agent, person, session, delegation)
        if found or session is not None or delegation is not None:
            return found[0] if len(found) == 1 else None
        async with self._starting:
            found = await self._open(agent, person)
            if found:
                return found[0] if len(found) == 1 else None
            return await self._from_only_grant(agent, person)

    async def identify(self, token: AccessToken, proof: Proof) -> Caller:
        """Return who presents this token, after one read of everything it stands on (steps 5 and 6).

        A session that has ended, expired or was idle for too long is no refusal: the caller comes back without it.

        Raises:
            TokenRefused: the agent, its key, the person, the grant or a link is not what the token says, or has ended.
        """
        person = PersonName(token.subject.removeprefix("user:")) if token.subject.startswith("user:") else None
        standing = await self._store.standing(agent=token.actor, key=token.key, person=person, link=token.link)
        caller = caller_of(standing, token, proof, self._clock())
        if caller.chain is not None:
            await self._require_signed(caller.chain)
        return caller

    async def _require_signed(self, chain: Chain) -> None:
        if self._signatures is not None:
            await self._signatures.require(chain.links)
        elif any(link.statement is not None or link.signed_by is not None for link in chain.links):
            raise TokenRefused("the chain is signed, and its signatures cannot be verified here")

    async def has_newer(self, token: AccessToken) -> bool:
        """Whether the agent was given a session after this token was issued, so that a new token would help.

        For a token that names a person it is one for that person: nobody is sent for a token for somebody else. Tokens
        count whole seconds: what began within the same second is not known to be newer.
        """
        after = token.issued_at + timedelta(seconds=1)
        person = PersonName(token.subject.removeprefix("user:")) if token.subject.startswith("user:") else None
        return any(link.issued_at >= after for _, link in await self._open(token.actor, person))

    async def active_grants(self, agent: AgentName) -> tuple[Grant, ...]:
        """The grants by which active people let the agent act now."""
        return tuple(await self._active_grants(agent))

    async def _open(
        self,
        agent: AgentName,
        person: PersonName | None = None,
        session: str | None = None,
        delegation: str | None = None,
    ) -> list[tuple[Session, Link]]:
        """The open links of the agent that the claims of its assertion leave over."""
        return [
            (found, link)
            for found, link in await self._store.open_links(agent, self._clock())
            if person in (None, found.subject) and session in (None, found.id) and delegation in (None, link.id)
        ]

    async def _from_only_grant(self, agent: AgentName, person: PersonName | None) -> tuple[Session, Link] | None:
        """A new session of the agent's only active grant.

        When the newest session of the grant was revoked, nothing comes after it by itself: who ended it starts the
        next one. When it still runs and its budget is used up, it stays the session: a sign-in is no new budget.
        """
        grants = [g for g in await self._active_grants(agent) if person in (None, g.subject)]
        if len(grants) != 1:
            return None
        (grant,) = grants
        before = [session for session in await self._store.sessions() if session.grant == grant.id]
        if before:
            newest = before[-1]
            root = (await self._store.links(newest.id))[0]
            if newest.status != "active" or root.status != "active":
                return None
            if not is_over(newest, self._clock()):
                return newest, root
        try:
            return await self.start(grant, purpose="started at sign-in", by=f"agent:{agent}")
        except (Conflict, NotFound):  # the grant, the agent or the person was revoked in between
            return None

    async def _active_grants(self, agent: AgentName) -> list[Grant]:
        now = self._clock()
        grants = await self._store.grants(agent=agent)
        active = [grant for grant in grants if grant.status == "active" and now < grant.expires_at]
        return [grant for grant in active if grant.subject is not None and await self.is_active(grant.subject)]

    async def _active_agent(self, name: AgentName) -> Agent:
        agent = await self._store.agent(name)
        if agent is None or agent.status != "active":
            raise NotFound(f"there is no active agent `{name}`")
        return agent

    async def _require_person(self, name: PersonName) -> None:
        if not await self.is_active(name):
            raise NotFound(f"there is no active person `{name}`")

    async def is_active(self, name: PersonName) -> bool:
        """Whether the person is registered, and not revoked."""
        person = await self._store.person(name)
        return person is not None and person.status == "active"


def _require_lifetime(lifetime: timedelta, longest: timedelta) -> None:
    if not timedelta(0) < lifetime <= longest:
        raise InputError(f"a lifetime here is at least one second and at most {int(longest.total_seconds())}")


def _require_budget(max_calls: int | None) -> None:
    if max_calls is not None and max_calls < 1:
        raise InputError("a budget is at least one call")


def _require_purpose(purpose: str) -> None:
    if not purpose.strip() or len(purpose) > limits.PURPOSE:
        raise InputError(f"a session has a purpose of 1 to {limits.PURPOSE} characters")


def _event(kind: EventKind, at: datetime, by: str, summary: str, fields: Mapping[str, Any]) -> Event:
    return Event(kind=kind, at=at, fields={"summary": summary, "by": by, **fields})
