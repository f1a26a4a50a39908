"""The part of the SQLite store that is about what is switched off, and about all of a subject's at once."""

from __future__ import annotations

from datetime import datetime

from mcp_authz.model import HoldId
from mcp_authz.store import sweep, switches
from mcp_authz.store.connections import Reader
from mcp_authz.store.ports import Event
from mcp_authz.store.switch_port import Swept, Switch
from mcp_authz.store.writer import Writer


class SwitchesInSqlite:
    """The promises of `store.switch_port`; reads and writes go where the store's others go."""

    _reader: Reader
    _writer: Writer

    async def switched_off(self) -> tuple[Switch, ...]:
        return self._reader.ask(switches.switched_off)

    async def endings(self) -> int:
        return self._reader.ask(switches.endings)

    async def switch_off(self, switch: Switch, event: Event, *, tool: str = "") -> tuple[HoldId, ...] | None:
        return await self._writer.run(lambda tx: switches.switch_off(tx, switch, event, tool))

    async def switch_on(self, server: str, tool: str, event: Event) -> bool:
        return await self._writer.run(lambda tx: switches.switch_on(tx, server, tool, event))

    async def sweep(self, subject: str, before: datetime, event: Event, *, rehearse: bool = False) -> Swept:
        if not rehearse:
            return await self._writer.run(lambda tx: sweep.sweep(tx, subject, before, event))
        try:
            await self._writer.run(lambda tx: sweep.rehearse(tx, subject, before, event))
        except sweep.Rehearsed as rehearsed:
            return rehearsed.swept
        raise AssertionError("what was rehearsed has happened")
