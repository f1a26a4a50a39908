"""The part of the SQLite store that is about calls, from their admission to their outcome."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace

from mcp_authz import limits
from mcp_authz.errors import StoreError, StoreInDoubt
from mcp_authz.model import HeldCall, HoldId, HoldState
from mcp_authz.rules import strict_json
from mcp_authz.seldom import trouble
from mcp_authz.store import admission, begun
from mcp_authz.store.calls_port import Begun, Ending
from mcp_authz.store.connections import Reader
from mcp_authz.store.faults import store_error
from mcp_authz.store.files import InstanceLock
from mcp_authz.store.ports import Admission, Event, Lost
from mcp_authz.store.records import append
from mcp_authz.store.writer import Writer


class CallsInSqlite:
    """The promises of `store.calls_port`, and `admit`. So many calls may have begun that their ends have room."""

    _reader: Reader
    _writer: Writer
    _instance: InstanceLock
    _running: set[str]  # calls that this open store admitted, or is about to, and nobody has ended

    @property
    def instance(self) -> str:
        """The id of this open store; calls that run through it, and no other process, are known by it."""
        return self._instance.name

    async def admit(self, asked: Admission) -> int | Lost:
        call = asked.event.call or ""
        if len(self._running) + self._writer.endings >= limits.CALLS_BEGUN:
            raise StoreError(f"{limits.CALLS_BEGUN} calls run already; try again in a moment")
        self._running.add(call)
        try:
            return await self._writer.run(lambda tx: admission.admit(tx, asked))
        except admission.NotAdmitted as refusal:
            self._running.discard(call)
            return refusal.lost
        except StoreInDoubt:
            self._running.discard(call)
            self._writer.finish_later(call, lambda tx: begun.undo(tx, asked))
            raise
        except BaseException:
            self._running.discard(call)
            raise

    async def end_call(self, ending: Ending) -> None:
        size = 0 if ending.result is None else len(strict_json.dump(dict(ending.result)))
        if size and not self._writer.has_room(size):
            # Nobody is given a result that could not be kept; that it ran, and with what outcome, is on record.
            ending = replace(ending, result=None, to=HoldState.UNKNOWN)
        self._running.discard(ending.call)
        await self._writer.finish(ending.call, lambda tx: begun.end(tx, ending), size=size if ending.result else 0)

    async def append_spare(self, events: Sequence[Event]) -> bool:
        try:
            free = shutil.disk_usage(self._reader.path.parent).free
        except OSError as fault:
            raise store_error(fault, self._reader.path) from fault
        if free < limits.STORE_RESERVE or self._writer.queued > limits.STORE_QUEUE // 2:
            trouble.error("spare", "counted refusals are kept back: the store's disk, or its queue, is nearly full")
            return False
        await self._writer.run(lambda tx: [append(tx, event) for event in events])
        return True

    async def under_way(self) -> tuple[str, ...]:
        found = self._reader.ask(begun.calls)
        gone = self._instance.gone({instance for _, instance in found})
        return tuple(call for call, instance in found if instance not in gone)

    async def recover(self, event_for: Callable[[HeldCall | Begun], Event]) -> tuple[HoldId, ...]:
        gone = self._instance.gone(self._reader.ask(begun.instances))
        if not gone:
            return ()
        return await self._writer.run(lambda tx: begun.give_up(tx, event_for, gone))
