"""Lists of what there is, for whoever may read all of it: people, clients, grants, tools, the gateway's own keys."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import anyio.lowlevel

from mcp_authz.administration import Actor, Administration
from mcp_authz.authorization import Identity, RegisteredClient
from mcp_authz.catalog import Catalog, warnings
from mcp_authz.key_rotation import signing_keys
from mcp_authz.model import Tool
from mcp_authz.passkey import Passkey
from mcp_authz.principals import Agent, AgentName, Grant, Key, Person, PersonName
from mcp_authz.signing_key import SigningKey
from mcp_authz.store.ports import Clock, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """A tool, and what a person should look at in its definition."""

    tool: Tool
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A person, and by what the gateway knows them."""

    person: Person
    keys: tuple[Key, ...]
    passkeys: tuple[Passkey, ...]
    identities: tuple[Identity, ...]
    browsers: int  # in which they are signed in


class Overview:
    """Reads whole lists; each question takes the role that the table of `rules.administration` names."""

    def __init__(self, administration: Administration, store: Store, clock: Clock, catalog: Catalog) -> None:
        self._administration = administration
        self._store = store
        self._clock = clock
        self._catalog = catalog

    async def people(self, actor: Actor) -> tuple[Person, ...]:
        """Every person.

        Raises:
            Forbidden: the actor may not.
        """
        await self._administration.require(actor, "user list")
        return await self._store.people()

    async def person(self, actor: Actor, name: PersonName) -> Known:
        """One person, and by what the gateway knows them.

        Raises:
            NotFound: there is none, or they are not for the actor to see.
        """
        return await known(self._store, await self._administration.person(actor, name))

    async def clients(self, actor: Actor) -> tuple[RegisteredClient, ...]:
        """Every client that was registered, or that somebody agreed to.

        Raises:
            Forbidden: the actor may not.
        """
        await self._administration.require(actor, "client list")
        return await self._store.clients()

    async def grants(self, actor: Actor) -> tuple[tuple[Grant, ...], datetime]:
        """Every grant, and when it was looked.

        Raises:
            Forbidden: the actor may not.
        """
        await self._administration.require(actor, "grant list")
        return await self._store.grants(), self._clock()

    async def tools(self, actor: Actor) -> tuple[Warned, ...]:
        """Every tool of the configured servers.

        Raises:
            Forbidden: the actor may not.
            SlowDown: too much of theirs is being looked for already.
        """
        await self._administration.require(actor, "tools list")
        async with self._administration.turn(actor):
            return await warned(self._catalog)

    async def keys(self, actor: Actor) -> tuple[tuple[SigningKey, str], ...]:
        """The keys that the gateway signs with, or signed with before, and how each stands.

        Raises:
            Forbidden: the actor may not.
        """
        await self._administration.require(actor, "keys list")
        return await signing_keys(self._store, self._clock)

    async def agent(self, actor: Actor, name: AgentName) -> tuple[Agent, tuple[Key, ...]]:
        """One agent, and its keys.

        Raises:
            NotFound: there is none, or it is not for the actor to see.
        """
        agent = await self._administration.agent(actor, name)
        return agent, await self._store.keys_of(f"agent:{agent.name}")


async def known(store: Store, person: Person) -> Known:
    """What a store has about a person."""
    return Known(
        person=person,
        keys=await store.keys_of(f"user:{person.name}"),
        passkeys=await store.passkeys_of(person.name),
        identities=await store.identities_of(person.name),
        browsers=len(await store.sign_ins_of(person.name)),
    )


async def warned(catalog: Catalog) -> tuple[Warned, ...]:
    """The tools that a catalogue has, by name; looked at one by one, so that others are served meanwhile."""
    tools = sorted(catalog.tools, key=lambda tool: tool.name)
    every = [f"{tool.server}__{tool.tool}" for tool in tools]
    found = []
    for tool in tools:
        found.append(Warned(tool=tool, warnings=warnings(tool.definition, tool.server, every)))
        await anyio.lowlevel.checkpoint()
    return tuple(found)
