"""What people read and stop of the gateway itself: one road for page and API, and for all that the command line stops.

Each use asks the table of `rules.administration` what somebody may do, by the roles that the configuration gives them
and by what they are to the thing; it is done by the same code whoever asks, and is on record with who it was.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.attempts import Attempts
from mcp_authz.audit_reading import Ahead, Found, look_ahead, look_back
from mcp_authz.errors import AuthzError, NotFound
from mcp_authz.halting import Halting, Off, SweptAway
from mcp_authz.naming import client_called
from mcp_authz.principals import Agent, AgentName, Link, Person, PersonName, Session, SessionId
from mcp_authz.readable_call import call_as_read
from mcp_authz.relations import what_is
from mcp_authz.revocation import Revocation, Stopped
from mcp_authz.rules.administration import Role, permits, reaches_everything
from mcp_authz.rules.audit_filter import Filter
from mcp_authz.running import RunningCall, running_calls
from mcp_authz.stopping import Stopping
from mcp_authz.store.overview_port import SessionsAsked
from mcp_authz.store.ports import Clock, Event, Record, RevocableKind, Store
from mcp_authz.store.switch_port import Switch
from mcp_authz.turns import Turns

_EVERYBODY: Final = frozenset({Role.OWNER, Role.PERSON, Role.APPROVER})
_NO_PERSON: Final = PersonName(":")  # nobody can be called that; nor is it the empty subject of an agent for itself


class Forbidden(AuthzError):
    """Whoever asked has no role that may do this."""

    code = "forbidden"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who administers: a person who is signed in, or whoever the operating system lets open the store."""

    name: str  # as records name them: `user:alice`
    roles: frozenset[Role]  # everywhere
    person: Person | None  # None: an operator at the command line

    @property
    def whose(self) -> str | None:
        """The person's own name."""
        return None if self.person is None else self.person.name


def at_the_store(name: str) -> Actor:
    """Return whoever opened the store itself, who could write into it whatever they like."""
    return Actor(name=name, roles=frozenset({Role.ADMIN}), person=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolesOfPeople:
    """Who has which role everywhere: `user:NAME` and `group:NAME`, as the configuration has them."""

    admins: frozenset[str] = frozenset()
    auditors: frozenset[str] = frozenset()

    def actor(self, person: Person) -> Actor:
        """Return the person with their roles."""
        names = {f"user:{person.name}", *(f"group:{group}" for group in person.groups)}
        listed = {Role.ADMIN: self.admins, Role.AUDITOR: self.auditors}
        roles = frozenset(role for role, of in listed.items() if not of.isdisjoint(names))
        return Actor(name=f"user:{person.name}", roles=roles, person=person)


NOBODY: Final = RolesOfPeople()
"""Where everybody sees and stops what is theirs."""


class Administration:
    """Reads and stops, for whoever may."""

    def __init__(self, store: Store, clock: Clock, *, servers: Iterable[str] = ()) -> None:
        """`servers`: the names of those in the configuration, of which nothing may be in the store yet."""
        self._store = store
        self._clock = clock
        self._revocation = Revocation(store, clock)
        self._stopping = Stopping(store, clock)
        self._halting = Halting(store, clock, servers=frozenset(servers))
        self._turns = Turns(most=limits.READERS_WAITING)
        self._foreseeing = Turns(most=limits.READERS_WAITING)  # nobody who wants to stop something waits for reading
        self._attempts = Attempts()
        self._exports = Attempts(burst=1, per_second=limits.EXPORTS_PER_SECOND)

    async def require(self, actor: Actor, command: str) -> None:
        """The actor has a role that may do this to everything; an attempt without one is on record.

        Raises:
            Forbidden: they have not.
        """
        if not reaches_everything(command, actor.roles):
            raise await self._refused(actor, command)

    async def some_agents(self, actor: Actor, *, after: str = "", limit: int) -> tuple[Agent, ...]:
        """The agents that the actor may look at, those behind `after`, by name.

        They are everybody's, or those that the actor owns, and those that may act for them or did.
        """
        return await self._store.agents_seen(self._sees("agent list", actor), after=after, limit=limit)

    async def agent(self, actor: Actor, name: AgentName) -> Agent:
        """One agent.

        Raises:
            NotFound: there is none, or it is not for the actor to see.
        """
        found = await self._store.agent(name)
        if found is None or not await self._store.sees_agent(self._sees("agent show", actor), name):
            raise NotFound(f"there is no agent `{name}`")
        return found

    async def some_sessions(
        self, actor: Actor, *, are_open: bool, before: SessionId | None = None, limit: int
    ) -> tuple[Session, ...]:
        """The newest sessions that the actor may look at: open now, or not; `before`: of those that began earlier.

        They are everybody's, or those for the actor or of agents they own.
        """
        asked = SessionsAsked(
            whose=self._sees("session list", actor), at=self._clock(), are_open=are_open, before=before, limit=limit
        )
        return await self._store.sessions_seen(asked)

    async def session(self, actor: Actor, id_: SessionId) -> tuple[Session, tuple[Link, ...]]:
        """One session and its links, parents first.

        Raises:
            NotFound: there is none, or it is not for the actor to see.
        """
        found = await self._store.session(id_)
        if found is None or not await self._may(actor, "session show", "session", id_):
            raise NotFound(f"there is no session `{id_}`")
        return found, await self._store.links(id_)

    async def person(self, actor: Actor, name: PersonName) -> Person:
        """One person; everybody sees themselves.

        Raises:
            NotFound: there is none, or they are not for the actor to see.
        """
        found = await self._store.person(name)
        if found is None or not await self._may(actor, "user show", "person", name):
            raise NotFound(f"there is no person `{name}`")
        return found

    async def records(
        self,
        actor: Actor,
        wanted: Filter,
        *,
        limit: int,
        before: int | None = None,
        after: int = 0,
        at_most: int | None = None,
    ) -> Found:
        """The newest records that are wanted and the actor may read, oldest first; of the newest `at_most` ones.

        `before` and `after` are numbers of records, neither among what is looked at.

        Raises:
            Forbidden: they may not read at all.
            SlowDown: too much of theirs is being looked for already.
        """
        wanted = await self.reading(actor, "audit list", wanted)
        async with self.turn(actor):
            return await look_back(self._store, wanted, limit, before=before, after=after, at_most=at_most)

    async def export(
        self, actor: Actor, wanted: Filter, *, limit: int, after: int, before: int | None, at_most: int
    ) -> Ahead:
        """The oldest records behind `after` that are wanted, as `records` has the newest; whole, or not at all.

        That the actor takes records away is on record by then: once for all that they take within ten minutes.

        Raises:
            Forbidden: they may not write the log for another program.
            SlowDown: too much of theirs is being looked for already.
        """
        await self.require(actor, "audit export")
        async with self.turn(actor):
            found = await look_ahead(self._store, wanted, limit, after=after, before=before, at_most=at_most)
        if self._exports.count(actor.name, self._clock()) is not None:
            await self._say_exported(actor, found)
        return found

    def turn(self, actor: Actor) -> AbstractAsyncContextManager[None]:
        """The actor reads inside, and nothing else of theirs is read meanwhile.

        Raises:
            SlowDown: too much of theirs waits to be read.
        """
        return self._turns.turn(actor.name)

    async def story(self, actor: Actor, call: str) -> tuple[Record, ...]:
        """What is on record about a call or hold, oldest first, if the actor may read some of it.

        Raises:
            NotFound: nothing that they may read is.
            InputError: several that they may read begin like this.
            SlowDown: too much of theirs is being looked for already.
        """
        readable = await self.reading(actor, "audit explain", Filter())
        async with self.turn(actor):
            return await call_as_read(self._store, call, readable)

    async def reading(self, actor: Actor, command: str, wanted: Filter) -> Filter:
        """Return what is wanted, as far as the actor may read it: of others only what their agents had a part in.

        Raises:
            Forbidden: they may not read at all, in this way.
        """
        if reaches_everything(command, actor.roles):
            return wanted
        if not permits(command, _EVERYBODY) or actor.whose is None:
            raise await self._refused(actor, command)
        return replace(wanted, about=frozenset({actor.name, *(f"agent:{name}" for name in await self._owned(actor))}))

    async def foresee(self, actor: Actor, kind: RevocableKind, name: str) -> Stopped:
        """What revoking this thing would stop; nothing is changed.

        Raises:
            NotFound, Forbidden: as `revoke`.
            SlowDown: too much is being foreseen for the actor already.
        """
        await self._may_revoke(actor, kind, name)
        async with self._foreseeing.turn(actor.name):
            return await self._revocation.foresee(kind, await self.full(kind, name))

    async def running(self, actor: Actor, kind: RevocableKind, name: str) -> tuple[RunningCall, ...]:
        """The calls that run now and would be cancelled if this thing were revoked.

        Raises:
            NotFound, Forbidden: as `revoke`.
        """
        await self._may_revoke(actor, kind, name)
        return await self._revocation.running(kind, await self.full(kind, name))

    async def revoke(self, actor: Actor, kind: RevocableKind, name: str, *, reason: str) -> Stopped:
        """The thing is revoked, and what descends from it.

        Raises:
            NotFound: there is no such thing, or it is not for the actor to know of.
            Forbidden: nobody in the actor's place may revoke such a thing.
        """
        await self._may_revoke(actor, kind, name)
        return await self._revocation.revoke(kind, await self.full(kind, name), reason=reason, by=actor.name)

    async def foresee_tool_off(self, actor: Actor, name: str) -> Off:
        """What `tool_off` would stop; nothing is changed.

        Raises:
            NotFound, Forbidden: as `tool_off`.
            SlowDown: too much is being foreseen for the actor already.
        """
        await self.require(actor, "revoke tool")
        async with self._foreseeing.turn(actor.name):
            return await self._halting.foresee_tool(name)

    async def tool_off(self, actor: Actor, name: str, *, reason: str) -> Off:
        """Nobody can call the tool, which the gateway calls so, until it is accepted.

        Raises:
            NotFound: there is no such tool.
            Forbidden: the actor may not.
        """
        await self.require(actor, "revoke tool")
        return await self._halting.tool_off(name, reason=reason, by=actor.name)

    async def foresee_server_off(self, actor: Actor, name: str) -> Off:
        """What `server_off` would stop; otherwise as `foresee_tool_off`."""
        await self.require(actor, "revoke server")
        async with self._foreseeing.turn(actor.name):
            return await self._halting.foresee_server(name)

    async def server_off(self, actor: Actor, name: str, *, reason: str) -> Off:
        """Nobody can call a tool of the server until it is accepted; otherwise as `tool_off`."""
        await self.require(actor, "revoke server")
        return await self._halting.server_off(name, reason=reason, by=actor.name)

    async def foresee_sweep(self, actor: Actor, subject: str, before: datetime) -> SweptAway:
        """What `sweep` would end now; nothing is changed.

        Raises:
            InputError, NotFound, Forbidden: as `sweep`.
            SlowDown: too much is being foreseen for the actor already.
        """
        await self.require(actor, "revoke everything")
        async with self._foreseeing.turn(actor.name):
            return await self._halting.foresee_sweep(subject, before)

    async def sweep(self, actor: Actor, subject: str, before: datetime, *, reason: str) -> SweptAway:
        """What the subject has, and was made before then, is revoked.

        Raises:
            InputError, NotFound: as `Halting.sweep`.
            Forbidden: the actor may not.
        """
        await self.require(actor, "revoke everything")
        return await self._halting.sweep(subject, before, reason=reason, by=actor.name)

    async def running_all(self, actor: Actor) -> tuple[RunningCall, ...]:
        """The calls that run now and would be cancelled if all were stopped.

        Raises:
            Forbidden: the actor may not stop them.
        """
        await self.require(actor, "stop-all")
        return await running_calls(self._store) if await self._stopping.stopped() is None else ()

    async def stop_all(self, actor: Actor, *, reason: str) -> bool:
        """Nothing is forwarded any more; False: it was so before.

        Raises:
            Forbidden: the actor may not.
        """
        await self.require(actor, "stop-all")
        return await self._stopping.stop_all(reason=reason, by=actor.name)

    async def start_all(self, actor: Actor) -> bool:
        """Whether calls had been stopped; they are forwarded again.

        Raises:
            Forbidden: the actor may not.
        """
        await self.require(actor, "start-all")
        return await self._stopping.start_all(by=actor.name)

    async def stopped(self, actor: Actor) -> Switch | None:
        """The switch by which nothing is forwarded; None where calls are, and to those whom it does not concern."""
        return await self._stopping.stopped() if reaches_everything("status", actor.roles) else None

    async def full(self, kind: RevocableKind, name: str) -> str:
        """The name that the store has for this thing: a client may be named by its handle."""
        return await client_called(self._store, name) if kind == "client" else name

    async def may_revoke(self, actor: Actor, kind: RevocableKind, name: str) -> bool:
        """Whether the actor may revoke this thing; pages show a button for what they may."""
        return await self._may(actor, f"revoke {kind}", kind, name)

    async def _may_revoke(self, actor: Actor, kind: RevocableKind, name: str) -> None:
        if await self.may_revoke(actor, kind, name):
            return
        if not permits(f"revoke {kind}", _EVERYBODY):
            raise await self._refused(actor, f"revoke {kind}")
        raise NotFound(f"there is no {kind} `{name}` that you could revoke")

    async def _may(self, actor: Actor, command: str, kind: RevocableKind, name: str) -> bool:
        if reaches_everything(command, actor.roles):
            return True
        return actor.person is not None and permits(command, await what_is(self._store, actor.person, kind, name))

    def _sees(self, command: str, actor: Actor) -> PersonName | None:
        """Whose things the actor sees by this command; None: everybody's."""
        if reaches_everything(command, actor.roles):
            return None
        return _NO_PERSON if actor.person is None else actor.person.name

    async def _owned(self, actor: Actor) -> frozenset[AgentName]:
        return frozenset() if actor.person is None else await self._store.agents_owned(actor.person.name)

    async def _say_exported(self, actor: Actor, found: Ahead) -> None:
        fields = {
            "by": actor.name,
            "command": "audit export",
            "head": found.head,
            "summary": f"{actor.name} exports records of the log from elsewhere",
        }
        await self._store.append(Event(kind="administration", at=self._clock(), fields=fields))

    async def _refused(self, actor: Actor, command: str) -> Forbidden:
        """What to raise; the attempt is on record, one of a flood as a number in the next record."""
        refused = Forbidden(f"`{command}` takes a role that you do not have; an administrator can do it")
        untold = self._attempts.count(actor.name, self._clock())
        if untold is None:
            return refused
        told = f"{actor.name} may not do `{command}`, and was refused"
        fields: dict[str, Any] = {
            "by": actor.name,
            "command": command,
            "decision": "deny",
            "reason": "forbidden",
            "summary": told,
        }
        if untold:
            fields |= {"untold": untold, "summary": f"{told}, as with {untold} attempts before that have no record"}
        await self._store.append(Event(kind="administration", at=self._clock(), fields=fields))
        return refused
