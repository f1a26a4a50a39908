"""The part of the SQLite store that is about standing approvals."""

from __future__ import annotations

from datetime import datetime

from mcp_authz.model import HeldCall, HoldId, HoldState, StandingId, Verdict
from mcp_authz.rules.standing_approval import StandingApproval
from mcp_authz.store import standing
from mcp_authz.store.connections import Reader
from mcp_authz.store.ports import Event
from mcp_authz.store.rows import micros
from mcp_authz.store.standing_port import StandingUse
from mcp_authz.store.writer import Writer


class StandingInSqlite:
    """The promises of `store.standing_port`; reads and writes go where the store's others go."""

    _reader: Reader
    _writer: Writer

    async def standing_approval(self, id_: StandingId) -> StandingApproval | None:
        return self._reader.ask(lambda tx: standing.standing_approval(tx, id_))

    async def standing_approvals(self, *, hold: HoldId | None = None) -> tuple[StandingApproval, ...]:
        return self._reader.ask(lambda tx: standing.standing_approvals(tx, hold))

    async def live_standing(self, held: HeldCall) -> tuple[StandingApproval, ...]:
        return self._reader.ask(lambda tx: standing.live_standing(tx, held))

    async def give_standing(
        self, given: StandingApproval, verdict: Verdict, *, after: int, to: HoldState, event: Event
    ) -> HeldCall:
        return await self._writer.run(lambda tx: standing.give(tx, given, verdict, after=after, to=to, event=event))

    async def use_standing(self, use: StandingUse) -> HeldCall:
        return await self._writer.run(lambda tx: standing.use(tx, use))

    async def rests_on_ended(self, hold: HoldId, *, at: datetime | None = None) -> bool:
        return self._reader.ask(lambda tx: standing.rests_on_ended(tx, hold, tx.now if at is None else micros(at)))
