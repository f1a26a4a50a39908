"""Grants, sessions and delegation: how authority comes to an agent, and whether it still has it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

import anyio

from mcp_authz import limits
from mcp_authz.errors import Conflict, DelegationError, InputError, NotFound, TokenRefused
from mcp_authz.ids import new_id, new_link
from mcp_authz.opening import depth, require_bounds, require_lifetime, require_tools, started
from mcp_authz.principals import (
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
from mcp_authz.rules.impersonation import Impersonation, may_impersonate
from mcp_authz.rules.scope import Scope, narrow, without_personal
from mcp_authz.signatures import Signatures
from mcp_authz.standing import caller_of, is_over
from mcp_authz.store.ports import Clock, Event, EventKind, Store


class Sessions:
    """Gives authority step by step, each step no more than the one before, and reads it back at every request."""

    def __init__(
        self,
        store: Store,
        clock: Clock,
        signatures: Signatures | None = None,
        *,
        impersonations: Iterable[Impersonation] = (),
    ) -> None:
        """Without `signatures` no caller is known whose chain a delegator signed.

        `impersonations` is all that the configuration permits: nobody impersonates anybody beyond it, also not in a
        session that was started while it said more.
        """
        self._store = store
        self._clock = clock
        self._signatures = signatures
        self._impersonations = tuple(impersonations)
        self._starting = anyio.Lock()  # two sign-ins at once must not open two sessions: neither could be told apart

    async def grant(
        self,
        subject: str | None,
        agent: str,
        *,
        scope: frozenset[Scope],
        tools: ToolsMap | None = None,
        lifetime: timedelta = limits.GRANT_LIFETIME,
        by: str,
    ) -> Grant:
        """The person has agreed that the agent may do this for them, until `lifetime` has passed.

        Without a person the agent may do it for itself, and whoever owns it answers for that.

        Raises:
            NotFound: the person, the agent, or the owner who answers for it, is not registered, or revoked.
            DelegationError: the scope is more than the agent's ceiling.
            ScopeError: leave to answer held calls is in it, which only a person gives, and on the page alone.
            InputError: the lifetime is not positive, or longer than `limits.GRANT_LIFETIME`, or the tools are too many.
        """
        require_tools(tools)
        require_lifetime(lifetime, limits.GRANT_LIFETIME)
        holder = await self._active_agent(AgentName(agent))
        person = None if subject is None else PersonName(subject)
        await self._require_person(holder.owner if person is None else person)
        now = self._clock().replace(microsecond=0)  # as everything that is signed of it counts time
        grant = Grant(
            id=GrantId(new_id("g")),
            subject=person,
            agent=holder.name,
            scope=narrow(holder.ceiling, without_personal(scope)),
            tools=tools,
            granted_at=now,
            expires_at=now + lifetime,
        )
        fields = {
            "grant": grant.id,
            "subject": f"agent:{agent}" if person is None else f"user:{person}",
            "agent": f"agent:{agent}",
            "scope": sorted(scope),
            "tools": None if tools is None else sorted(tools),
            "expires_at": grant.expires_at.isoformat(),
        }
        await self._store.add_grant(
            grant, _event("grant", now, by, f"{agent} may act for {person or 'itself'}", fields)
        )
        return grant

    async def only_grant(self, subject: str, agent: str) -> Grant:
        """Return the one active grant between the two.

        Raises:
            NotFound: there is none, or more than one.
        """
        found = [grant for grant in await self._active_grants(AgentName(agent)) if grant.subject == subject]
        if not found:
            raise NotFound(f"`{subject}` has no active grant to `{agent}`; `mcp-authz grant add` makes one")
        if len(found) > 1:
            raise NotFound(f"`{subject}` has {len(found)} active grants to `{agent}`; name one with --grant ID")
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
        max_depth: int | None = None,
        mode: Mode = Mode.DELEGATED,
        by: str,
    ) -> tuple[Session, Link]:
        """A session of the grant is open, with its root link; without `scope` or `tools` it has those of the grant.

        The session ends with its grant at the latest, and is delegated no deeper than its agent may.

        Raises:
            NotFound: the person, the agent, or the owner who answers for it, is not registered, or revoked.
            DelegationError: more is asked than the grant or the agent's depth gives, or the configuration lets nobody
                impersonate the person like this.
            Conflict: the grant is not active any more.
            InputError: the purpose is empty or too long, or the lifetime, the budget or the depth is not possible, or
                the tools are too many.
        """
        session, root, event = await self.prepare(
            grant,
            purpose=purpose,
            scope=scope,
            tools=tools,
            lifetime=lifetime,
            max_calls=max_calls,
            max_depth=max_depth,
            mode=mode,
            by=by,
        )
        await self._store.open_session(session, root, event)
        return session, root

    async def prepare(
        self,
        grant: Grant,
        *,
        purpose: str,
        scope: frozenset[Scope] | None = None,
        tools: ToolsMap | None = None,
        lifetime: timedelta = limits.SESSION_LIFETIME,
        max_calls: int | None = None,
        max_depth: int | None = None,
        mode: Mode = Mode.DELEGATED,
        by: str,
    ) -> tuple[Session, Link, Event]:
        """Return a session of the grant as `start` opens it, for whoever opens it together with something else.

        Raises:
            AuthzError: as `start`; that the grant is active still is known only when the session is opened.
        """
        require_tools(tools)
        require_bounds(purpose, lifetime, max_calls, max_depth)
        without_personal(frozenset() if scope is None else scope)
        if (mode is Mode.OWN) is not (grant.subject is None):
            raise InputError("an agent works for itself without a person, and for nobody else without one")
        holder = await self._active_agent(grant.agent)
        await self._require_person(holder.owner if grant.subject is None else grant.subject)
        now = self._clock().replace(microsecond=0)  # what is signed of it counts whole seconds
        session = Session(
            id=SessionId(new_id("s")),
            grant=grant.id,
            subject=grant.subject,
            agent=grant.agent,
            mode=mode,
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
            max_depth=depth(holder, session.mode, max_depth),
            issued_at=now,
            expires_at=session.expires_at.replace(microsecond=0),
            max_calls=max_calls,
        )
        check_root(root, session, grant)
        if not self._is_permitted(session, root):
            raise DelegationError(
                f"the configuration does not let `{session.agent}` impersonate `{session.subject}` with these scopes"
            )
        return session, root, started(session, root, by)

    async def start_own(
        self,
        agent: str,
        *,
        purpose: str,
        scope: frozenset[Scope],
        tools: ToolsMap | None = None,
        lifetime: timedelta = limits.SESSION_LIFETIME,
        max_calls: int | None = None,
        max_depth: int | None = None,
        by: str,
    ) -> tuple[Session, Link]:
        """The agent works for itself (mode `own`): a session without a person, of a grant that is good for it alone.

        Raises:
            NotFound, DelegationError, InputError: as `grant` and `start`.
        """
        require_bounds(purpose, lifetime, max_calls, max_depth)
        depth(await self._active_agent(AgentName(agent)), Mode.OWN, max_depth)
        grant = await self.grant(None, agent, scope=scope, tools=tools, lifetime=lifetime, by=by)
        return await self.start(
            grant, purpose=purpose, lifetime=lifetime, max_calls=max_calls, max_depth=max_depth, mode=Mode.OWN, by=by
        )

    def _is_permitted(self, session: Session, link: Link) -> bool:
        """Whether the configuration permits the session's mode with what the link gives."""
        if session.mode is not Mode.IMPERSONATED:
            return True
        return may_impersonate(self._impersonations, session.agent, session.subject, link.scope)

    async def which(
        self, agent: AgentName, *, session: str | None = None, delegation: str | None = None, subject: str | None = None
    ) -> tuple[Session, Link] | None:
        """Return the session and link that a sign-in of the agent is for; None is the agent's own name.

        In order: what the signed assertion names; the agent's only open link; a new session from its only active
        grant. Several and no claim, or a claim that names nothing open: never a guess. Nor is one made for an agent
        that acts for more than one, or did within the last day: it names the session, or the `subject` (`user:NAME`;
        `agent:NAME` for an agent that works for itself), and then only what is for them is there at all.
        """
        found = await self._open(agent, subject, session, delegation)
        if session is not None or delegation is not None:
            return found[0] if len(found) == 1 else None
        if subject is None and len(await self._acts_for(agent)) > 1:
            return None
        if found:
            return found[0] if len(found) == 1 else None
        async with self._starting:
            found = await self._open(agent, subject)
            if found:
                return found[0] if len(found) == 1 else None
            return await self._from_only_grant(agent, subject)

    async def _acts_for(self, agent: AgentName) -> set[str]:
        """Everybody the agent worked for within the last day, or may start to work for."""
        grants = await self._active_grants(agent)
        worked_for = await self._store.worked_for(agent, self._clock() - limits.PEOPLE_REMEMBERED)
        return {*worked_for, *(f"user:{grant.subject}" for grant in grants)}

    async def identify(self, token: AccessToken, proof: Proof, *, at: datetime | None = None) -> Caller:
        """Return who presents this token, after one read of everything it stands on (steps 5 and 6).

        A session that has ended, expired or was idle for too long is no refusal: the caller comes back without it. With
        `at` only what was revoked counts as ended, and what had run out by then.

        Raises:
            TokenRefused: the agent, its key, the person, the grant or a link is not what the token says, or has ended;
                or the gateway's key that signed the token was withdrawn.
        """
        if self._signatures is not None:
            self._signatures.require_signer(token)
        person = PersonName(token.subject.removeprefix("user:")) if token.subject.startswith("user:") else None
        standing = await self._store.standing(agent=token.actor, key=token.key, person=person, link=token.link)
        caller = caller_of(standing, token, proof, self._clock() if at is None else at)
        if caller.chain is not None and caller.session is not None:
            if not self._is_permitted(caller.session, caller.chain.leaf):
                raise TokenRefused("the configuration does not let the agent impersonate this person any more")
            await self._require_signed(caller.chain)
        return caller

    async def _require_signed(self, chain: Chain) -> None:
        if self._signatures is not None:
            await self._signatures.require(chain.links)
        elif any(link.statement is not None or link.holder_key is not None for link in chain.links):
            raise TokenRefused("the chain is signed, and its signatures cannot be verified here")

    async def has_newer(self, token: AccessToken) -> bool:
        """Whether the agent was given a session after this token was issued, so that a new token would help.

        For a token with a session it is one for the same subject: nobody is sent for a token for somebody else. Tokens
        count whole seconds: what began within the same second is not known to be newer.
        """
        after = token.issued_at + timedelta(seconds=1)
        subject = None if token.link is None else token.subject
        return bool(await self._open(token.actor, subject, since=after))

    async def active_grants(self, agent: AgentName) -> tuple[Grant, ...]:
        """The grants by which active people let the agent act now; one through a client counts once it was redeemed."""
        return tuple(await self._active_grants(agent))

    async def _open(
        self,
        agent: AgentName,
        subject: str | None = None,
        session: str | None = None,
        delegation: str | None = None,
        since: datetime | None = None,
    ) -> list[tuple[Session, Link]]:
        """The open links of the agent that the claims of its assertion leave over."""
        return [
            (found, link)
            for found, link in await self._store.open_links(agent, self._clock(), since=since)
            if subject in (None, found.principal)
            and session in (None, found.id)
            and delegation in (None, link.id)
            and self._is_permitted(found, link)
        ]

    async def _from_only_grant(self, agent: AgentName, subject: str | None) -> tuple[Session, Link] | None:
        """A new session of the agent's only active grant.

        When the newest session of the grant was revoked, nothing comes after it by itself: who ended it starts the
        next one. When it still runs and its budget is used up, it stays the session: a sign-in is no new budget.
        """
        grants = [g for g in await self._active_grants(agent) if subject in (None, f"user:{g.subject}")]
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
        return [
            grant
            for grant in active
            if grant.subject is not None and await self.is_active(grant.subject) and await self._is_taken(grant)
        ]

    async def _is_taken(self, grant: Grant) -> bool:
        """Whether the agent has a part in it: anybody can agree to anybody's agent at the page, which need not know."""
        return grant.client is None or await self._store.newest_session(grant.id) is not None

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


def _event(kind: EventKind, at: datetime, by: str, summary: str, fields: Mapping[str, Any]) -> Event:
    return Event(kind=kind, at=at, fields={"summary": summary, "by": by, **fields})
