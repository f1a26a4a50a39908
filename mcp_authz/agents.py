"""Agents and people as the operator registers them; every change is recorded with who made it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.errors import Conflict, InputError, NotFound
from mcp_authz.principals import Agent, AgentName, Key, Person, PersonName, Thumbprint
from mcp_authz.rules.keys import PublicKey
from mcp_authz.rules.scope import Scope, without_personal
from mcp_authz.store.ports import Clock, Event, EventKind, Store

_AGENT: Final = re.compile(rf"[a-z0-9][a-z0-9-]{{0,{limits.NAME - 1}}}")
_PERSON: Final = re.compile(rf"[a-z0-9][a-z0-9._-]{{0,{limits.NAME - 1}}}")


def agent_name(text: str) -> AgentName:
    """Return `text` as the name of an agent: `coder`, `deploy-bot-2`.

    Raises:
        InputError: it is empty, too long, or has another character than a-z, 0-9 and, not first, a hyphen.
    """
    if not _AGENT.fullmatch(text):
        raise InputError(f"an agent's name is 1 to {limits.NAME} of a-z, 0-9 and hyphen, and starts with no hyphen")
    return AgentName(text)


def person_name(text: str) -> PersonName:
    """Return `text` as the name of a person: `alice`, `j.doe`.

    Raises:
        InputError: it is empty, too long, or has another character than a-z, 0-9 and, not first, `.`, `_`, `-`.
    """
    if not _PERSON.fullmatch(text):
        raise InputError(f"a person's name is 1 to {limits.NAME} of a-z, 0-9, `.`, `_` and `-`, letter or digit first")
    return PersonName(text)


def current_keys(keys: Iterable[Key]) -> tuple[Key, ...]:
    """Those with which their holder can log in now: neither revoked nor replaced by a rotation."""
    return tuple(key for key in keys if key.status == "active" and key.retires_at is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """An agent with its keys, oldest first, revoked and retired ones included."""

    agent: Agent
    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Approver:
    """A person with the public keys that sign verdicts, oldest first, revoked ones included."""

    person: Person
    keys: tuple[Key, ...]


class Agents:
    """Enrols agents and rotates their keys."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def add(
        self,
        name: str,
        *,
        owner: str,
        key: PublicKey | None = None,
        labels: Mapping[str, str] | None = None,
        roles: frozenset[str] = frozenset(),
        ceiling: frozenset[Scope] = frozenset(),
        depth: int = 0,
        delegates_to: frozenset[AgentName] = frozenset(),
        interactive: bool = False,
        metadata_url: str | None = None,
        by: str,
    ) -> Agent:
        """The agent is enrolled, with `key` if it has one; `by` is the principal that did it.

        One with a `metadata_url` is hosted elsewhere, and its keys are those of that document from now on.

        Raises:
            InputError: a name is not a name, or the depth is out of bounds.
            ScopeError: the ceiling has leave to answer held calls, which no agent is given.
            NotFound: the owner is not registered, or revoked.
            Conflict: the name is taken, or the key belongs to somebody already.
        """
        if not 0 <= depth < limits.CHAIN_LINKS:
            raise InputError(f"an agent's depth is 0 to {limits.CHAIN_LINKS - 1}")
        agent = Agent(
            name=agent_name(name),
            owner=await self._owner(owner),
            labels=dict(labels or {}),
            roles=roles,
            ceiling=without_personal(ceiling),
            depth=depth,
            delegates_to=frozenset(agent_name(other) for other in delegates_to),
            interactive=interactive,
            metadata_url=metadata_url,
        )
        now = self._clock()
        held = None if key is None else _key(key, f"agent:{agent.name}", now)
        if held is not None and metadata_url is not None:
            held = replace(held, proved=False)  # a document says so
        fields = {"agent": f"agent:{agent.name}", "owner": f"user:{agent.owner}", "ceiling": sorted(ceiling)}
        thumbprint = {} if held is None else {"key": held.thumbprint}
        hosted = {} if metadata_url is None else {"metadata_url": metadata_url}
        summary = f"agent {agent.name} enrolled, owned by {agent.owner}"
        await self._store.add_agent(
            agent, held, _event("enrolment", now, by, summary, {**fields, **thumbprint, **hosted})
        )
        return agent

    async def rotate(self, name: str, new_key: PublicKey, overlap: timedelta, *, by: str) -> Key:
        """`new_key` is the agent's key; what was issued to its other keys counts until `overlap` has passed.

        An older key cannot log in any more from now on.

        Raises:
            InputError: the overlap is negative or longer than `limits.KEY_OVERLAP`.
            NotFound: there is no such agent.
            Conflict: the agent is revoked, a child, a client's or hosted elsewhere, the key belongs to somebody
                already, or a rotation is still under way.
        """
        if not timedelta(0) <= overlap <= limits.KEY_OVERLAP:
            raise InputError(f"the overlap of a rotation is 0 to {int(limits.KEY_OVERLAP.total_seconds())} seconds")
        agent = (await self.show(name)).agent
        if agent.status != "active":
            raise Conflict(f"agent `{name}` is revoked; a new key does not bring it back")
        _require_own_keys(agent)
        now = self._clock()
        key = _key(new_key, f"agent:{name}", now)
        fields = {"agent": f"agent:{name}", "key": key.thumbprint, "overlap": int(overlap.total_seconds())}
        event = _event("enrolment", now, by, f"agent {name} has a new key", fields)
        await self._store.add_key(key, event, retire_others_at=now + overlap)
        return key

    async def list(self) -> tuple[Agent, ...]:
        """Every agent, by name."""
        return await self._store.agents()

    async def show(self, name: str) -> Enrolled:
        """The agent with its keys.

        Raises:
            NotFound: there is no such agent.
        """
        agent = await self._store.agent(AgentName(name))
        if agent is None:
            raise NotFound(f"there is no agent `{name}`")
        return Enrolled(agent=agent, keys=await self._store.keys_of(f"agent:{name}"))

    async def _owner(self, name: str) -> PersonName:
        owner = await self._store.person(person_name(name))
        if owner is None or owner.status != "active":
            raise NotFound(f"there is no active person `{name}` who could own an agent")
        return owner.name


class People:
    """Registers people, and the keys with which they sign verdicts."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def add(self, name: str, *, groups: frozenset[str] = frozenset(), by: str) -> Person:
        """The person is registered.

        Raises:
            InputError: the name is not a name.
            Conflict: the name is taken.
        """
        person = Person(name=person_name(name), groups=groups)
        fields = {"person": f"user:{person.name}", "groups": sorted(groups)}
        event = _event("administration", self._clock(), by, f"person {person.name} registered", fields)
        await self._store.add_person(person, event)
        return person

    async def add_key(self, name: str, key: PublicKey, *, by: str) -> Key:
        """The person can sign verdicts with this key.

        Raises:
            NotFound: there is no such person.
            Conflict: the person is revoked or has two keys, or the key belongs to somebody already.
        """
        person = (await self.show(name)).person
        if person.status != "active":
            raise Conflict(f"person `{name}` is revoked; a key does not bring them back")
        now = self._clock()
        held = _key(key, f"user:{name}", now)
        fields = {"person": held.holder, "key": held.thumbprint}
        event = _event("enrolment", now, by, f"approver {name} has a key", fields)
        await self._store.add_key(held, event, retire_others_at=None)
        return held

    async def list(self) -> tuple[Person, ...]:
        """Every person, by name."""
        return await self._store.people()

    async def show(self, name: str) -> Approver:
        """The person with their keys.

        Raises:
            NotFound: there is no such person.
        """
        person = await self._store.person(PersonName(name))
        if person is None:
            raise NotFound(f"there is no person `{name}`")
        return Approver(person=person, keys=await self._store.keys_of(f"user:{name}"))


def _require_own_keys(agent: Agent) -> None:
    if agent.client is not None:
        raise Conflict(f"agent `{agent.name}` is a client's, and has no key: {agent.owner} signs in for it")
    if agent.metadata_url is not None:
        raise Conflict(
            f"the keys of agent `{agent.name}` are those of {agent.metadata_url}; `agent refresh` reads them"
        )
    if agent.parent is not None:
        raise Conflict(
            f"agent `{agent.name}` is a child: its key comes with the link that agent `{agent.parent}` signs"
        )


def _key(key: PublicKey, holder: str, at: datetime) -> Key:
    return Key(thumbprint=Thumbprint(key.thumbprint), holder=holder, raw=key.raw, added_at=at)


def _event(kind: EventKind, at: datetime, by: str, summary: str, fields: Mapping[str, Any]) -> Event:
    return Event(kind=kind, at=at, fields={"summary": summary, "by": by, **fields})
