"""Agents that are hosted elsewhere: their keys are those of a document at a URL, read again when that may help."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final

import anyio

from mcp_authz import limits
from mcp_authz.errors import AuthzError, Conflict, FetchRefused, InputError, KeyRefused, NotFound
from mcp_authz.principals import Agent, AgentName, Key, Thumbprint
from mcp_authz.rules import client_metadata
from mcp_authz.rules.keys import PublicKey
from mcp_authz.store.ports import Clock, Event, Store

OVERLAP: Final = timedelta(minutes=10)  # of a key that the document does not show any more: what a token lives

Fetch = Callable[[str], Awaitable[bytes]]
"""Returns the document at a URL, or raises `FetchRefused`."""


@dataclass(slots=True)
class _Reading:
    """What this process knows of one agent's document."""

    tried_at: datetime | None = None
    read_at: datetime | None = None  # when it last succeeded
    failed: str | None = None  # why it did not, as recorded
    lock: anyio.Lock = field(default_factory=anyio.Lock)


class HostedAgents:
    """Reads metadata documents of agents, and keeps the store's keys like theirs."""

    def __init__(self, store: Store, clock: Clock, fetch: Fetch) -> None:
        self._store = store
        self._clock = clock
        self._fetch = fetch
        self._readings: dict[AgentName, _Reading] = {}

    async def keys_at(self, url: str) -> tuple[PublicKey, ...]:
        """Return the keys that the document at `url` declares: one or two.

        Raises:
            FetchRefused: it cannot be fetched, or is no such document.
            KeyRefused: a key in it is none.
        """
        try:
            with anyio.fail_after(limits.METADATA_TIME.total_seconds()):  # for both, where there are two
                declared = client_metadata.read_document(await self._fetch(url), url=url)
                if declared.jwks_uri is None:
                    return declared.keys
                return client_metadata.read_jwks(await self._fetch(declared.jwks_uri))
        except TimeoutError:
            raise FetchRefused(f"`{url}` and its keys did not come in time") from None
        except InputError as error:
            raise FetchRefused(f"`{url}`: {error}") from None
        except KeyRefused as error:
            raise KeyRefused(f"`{url}`: {error}") from None

    async def refresh(self, name: str, *, by: str) -> tuple[Key, ...]:
        """Return the agent's keys, which are what its document says now; keys that left it end after the overlap.

        Raises:
            NotFound: there is no such agent.
            Conflict: it is revoked or not hosted elsewhere, or a key is somebody else's, or one too many.
            FetchRefused, KeyRefused: the document is none; the agent's keys stay as they were.
        """
        agent = await self._store.agent(AgentName(name))
        if agent is None:
            raise NotFound(f"there is no agent `{name}`")
        if agent.metadata_url is None:
            raise Conflict(f"agent `{name}` is not hosted elsewhere; `agent rotate` gives it another key")
        await self._read(agent, agent.metadata_url, by=by)
        return await self._store.keys_of(f"agent:{name}")

    async def keys_of(self, agent: Agent) -> tuple[Key, ...]:
        """Return the agent's keys, read not long ago; none when they could not be read for too long.

        Why not is on record. Until then the keys that are known count, in case its host is only away for a while.
        """
        if agent.metadata_url is None or agent.status != "active":
            return await self.known_keys_of(agent)
        reading, now = self._reading(agent), self._clock()
        async with reading.lock:
            if reading.read_at is None or now - reading.read_at >= limits.METADATA_FRESH:
                await self._try(agent, agent.metadata_url, reading)
        return await self.known_keys_of(agent)

    async def known_keys_of(self, agent: Agent) -> tuple[Key, ...]:
        """Return the keys as `keys_of`, without waiting for a host: those read last, if that was not too long ago."""
        if agent.metadata_url is not None and agent.status == "active":
            read_at = self._reading(agent).read_at
            if read_at is None or self._clock() - read_at >= limits.METADATA_KEPT:
                return ()
        return await self._store.keys_of(f"agent:{agent.name}")

    async def prove(self, agent: Agent, key: Thumbprint) -> bool:
        """Whether the key, with which the agent has just signed, is its own; no other document can take it then."""
        held = await self._store.key(key)
        if held is not None and held.proved:
            return held.holder == f"agent:{agent.name}"
        return await self._store.prove_key(key, f"agent:{agent.name}")

    async def read_again(self, agent: Agent) -> bool:
        """Whether the document was read since this was asked; it is left alone when that was tried a moment ago."""
        if agent.metadata_url is None or agent.status != "active":
            return False
        reading, asked_at = self._reading(agent), self._clock()
        async with reading.lock:
            if reading.read_at is None or reading.read_at < asked_at:
                await self._try(agent, agent.metadata_url, reading)
        return reading.read_at is not None and reading.read_at >= asked_at

    def _reading(self, agent: Agent) -> _Reading:
        return self._readings.setdefault(agent.name, _Reading())

    async def _try(self, agent: Agent, url: str, reading: _Reading) -> None:
        now = self._clock()
        if reading.tried_at is not None and now - reading.tried_at < limits.METADATA_PAUSE:
            return
        reading.tried_at = now
        try:
            await self._read(agent, url, by=f"agent:{agent.name}")
        except (FetchRefused, KeyRefused, Conflict) as error:
            if reading.failed != str(error):  # once: strangers can make the gateway try, every minute
                await self._store.append(_failed(agent, error, now))
            reading.failed = str(error)

    async def _read(self, agent: Agent, url: str, *, by: str) -> None:
        keys = await self.keys_at(url)
        now = self._clock()
        await self._declare(agent, keys, now, by=by)
        reading = self._reading(agent)
        reading.tried_at = reading.read_at = now
        reading.failed = None

    async def _declare(self, agent: Agent, keys: tuple[PublicKey, ...], now: datetime, *, by: str) -> None:
        holder = f"agent:{agent.name}"
        declared = tuple(
            Key(thumbprint=Thumbprint(key.thumbprint), holder=holder, raw=key.raw, added_at=now, proved=False)
            for key in keys
        )
        fields = {
            "summary": f"agent {agent.name} has the keys that its document says",
            "by": by,
            "agent": holder,
            "keys": sorted(key.thumbprint for key in declared),
            "metadata_url": agent.metadata_url,
            "overlap": int(OVERLAP.total_seconds()),
        }
        await self._store.declare_keys(holder, declared, Event(kind="enrolment", at=now, fields=fields), now + OVERLAP)


def _failed(agent: Agent, error: AuthzError, at: datetime) -> Event:
    fields = {
        "summary": f"the document of agent {agent.name} could not be read; its keys stay as they are",
        "by": f"agent:{agent.name}",
        "agent": f"agent:{agent.name}",
        "metadata_url": agent.metadata_url,
        "reason": str(error)[: limits.DETAIL_RECORDED],
    }
    return Event(kind="enrolment", at=at, fields=fields)
