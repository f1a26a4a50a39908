"""The part of the SQLite store that pages read a bounded part of sessions and agents from."""

from __future__ import annotations

from collections.abc import Sequence

from mcp_authz.principals import Agent, AgentName, Link, LinkId, PersonName, Session, SessionId
from mcp_authz.store import overview
from mcp_authz.store.connections import Reader
from mcp_authz.store.overview_port import SessionsAsked


class OverviewInSqlite:
    """The promises of `store.overview_port`; reads go where the store's others go."""

    _reader: Reader

    async def sessions_seen(self, asked: SessionsAsked) -> tuple[Session, ...]:
        return self._reader.ask(lambda tx: overview.sessions_seen(tx, asked))

    async def agents_seen(
        self, whose: PersonName | None, *, after: str = "", limit: int | None = None
    ) -> tuple[Agent, ...]:
        return self._reader.ask(lambda tx: overview.agents_seen(tx, whose, after, limit))

    async def agents_owned(self, owner: PersonName) -> frozenset[AgentName]:
        return self._reader.ask(lambda tx: overview.agents_owned(tx, owner))

    async def sees_agent(self, whose: PersonName | None, agent: AgentName) -> bool:
        return self._reader.ask(lambda tx: overview.sees_agent(tx, whose, agent))

    async def links_held(self, agent: AgentName, *, limit: int) -> tuple[tuple[Session, Link], ...]:
        return self._reader.ask(lambda tx: overview.links_held(tx, agent, limit))

    async def links_below(self, above: Sequence[LinkId], *, limit: int) -> tuple[Link, ...]:
        return self._reader.ask(lambda tx: overview.links_below(tx, above, limit)) if above else ()

    async def session_mark(self, session: SessionId) -> tuple[int, int, int]:
        return self._reader.ask(lambda tx: overview.session_mark(tx, session))
