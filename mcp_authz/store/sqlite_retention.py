"""The part of the SQLite store that is about where its log begins."""

from __future__ import annotations

from mcp_authz.store import retention
from mcp_authz.store.connections import Reader
from mcp_authz.store.facts import Event
from mcp_authz.store.retention_port import LogBase
from mcp_authz.store.writer import Writer


class RetentionInSqlite:
    """The promises of `store.retention_port`; reads and writes go where the store's others go."""

    _reader: Reader
    _writer: Writer

    async def log_base(self) -> LogBase:
        return self._reader.ask(retention.base)

    async def needed_from(self) -> int | None:
        return self._reader.ask(retention.needed_from)

    async def prune(self, base: LogBase, event: Event) -> int:
        return await self._writer.run(lambda tx: retention.prune(tx, base, event))

    async def remove_pruned(self, most: int) -> int:
        return await self._writer.run(lambda tx: retention.remove_pruned(tx, most))
