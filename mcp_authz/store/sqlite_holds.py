"""The part of the SQLite store that is about held calls, and about what ends them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from mcp_authz.errors import StoreInDoubt
from mcp_authz.model import HeldCall, HoldId, HoldState, Verdict
from mcp_authz.principals import AgentName, SessionId
from mcp_authz.rules import strict_json
from mcp_authz.rules.hold_stats import HoldStory
from mcp_authz.store import holds, revoke
from mcp_authz.store.connections import Reader
from mcp_authz.store.files import InstanceLock
from mcp_authz.store.hold_stories import hold_stories
from mcp_authz.store.ports import Event, RevocableKind
from mcp_authz.store.writer import Writer


class HoldsInSqlite:
    """The promises of `store.ports.Holds`, and the verb that stops things."""

    _reader: Reader
    _writer: Writer
    _instance: InstanceLock

    async def revoke(self, kind: RevocableKind, name: str, event: Event) -> tuple[HoldId, ...]:
        return await self._writer.run(lambda tx: revoke.revoke(tx, kind, name, event))

    async def would_cancel(self, kind: RevocableKind, name: str) -> tuple[HoldId, ...]:
        try:
            await self._writer.run(lambda tx: revoke.foresee(tx, kind, name))
        except revoke.Foreseen as foreseen:
            return foreseen.holds
        raise AssertionError("what was foreseen has happened")

    async def hold(self, hold: HoldId) -> HeldCall | None:
        return self._reader.ask(lambda tx: holds.hold(tx, hold))

    async def holds(self, *, states: Sequence[HoldState] | None = None) -> tuple[HeldCall, ...]:
        return self._reader.ask(lambda tx: holds.holds(tx, states))

    async def hold_ids(self) -> tuple[HoldId, ...]:
        return self._reader.ask(holds.hold_ids)

    async def latest_holds(self, limit: int) -> tuple[HeldCall, ...]:
        return self._reader.ask(lambda tx: holds.latest_holds(tx, limit))

    async def hold_stories(self, *, since: datetime) -> tuple[HoldStory, ...]:
        return self._reader.ask(lambda tx: hold_stories(tx, since))

    async def moved_holds(self, after: int) -> tuple[int, tuple[HoldId, ...]]:
        return self._reader.ask(lambda tx: holds.moved_holds(tx, after))

    async def approved_like(self, held: HeldCall, limit: int) -> tuple[HeldCall, ...]:
        return self._reader.ask(lambda tx: holds.approved_like(tx, held, limit))

    async def find_hold(self, *, digest: bytes, session: SessionId, actor: AgentName) -> HeldCall | None:
        return self._reader.ask(lambda tx: holds.find_hold(tx, digest=digest, session=session, actor=actor))

    async def open_hold(self, held: HeldCall, event: Event, *, per_session: int, per_agent: int) -> HeldCall:
        room = holds.Room(per_session=per_session, per_agent=per_agent)
        size = len(strict_json.dump(dict(held.arguments)))
        return await self._writer.run(lambda tx: holds.open_hold(tx, held, event, room), size=size)

    async def give_verdict(self, verdict: Verdict, *, after: int, to: HoldState, event: Event) -> HeldCall:
        return await self._writer.run(lambda tx: holds.give_verdict(tx, verdict, after=after, to=to, event=event))

    async def move_hold(
        self,
        hold: HoldId,
        *,
        come_from: HoldState,
        to: HoldState,
        event: Event | None,
        result: Mapping[str, Any] | None = None,
    ) -> bool:
        move = holds.Move(hold=hold, come_from=come_from, to=to, result=result)
        if come_from is not HoldState.CLAIMED:
            try:
                return await self._writer.run(lambda tx: holds.move_hold(tx, move, event))
            except StoreInDoubt:
                if to is HoldState.CLAIMED and event is not None:
                    self._writer.finish_later(hold, lambda tx: holds.undo_claim(tx, hold, event))
                raise
        return await self._writer.finish(hold, lambda tx: holds.move_hold(tx, move, event), size=_size(result))

    async def abandon_hold(self, hold: HoldId, event: Event) -> bool:
        return await self._writer.finish(hold, lambda tx: holds.abandon(tx, hold, event))


def _size(result: Mapping[str, Any] | None) -> int:
    return 0 if result is None else len(strict_json.dump(dict(result)))
