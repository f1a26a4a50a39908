"""`Stopping` by the names that people have for things: which calls end by it, said before it happens and after."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from mcp_authz.errors import NotFound
from mcp_authz.model import HoldId
from mcp_authz.naming import pin_called, subject_called
from mcp_authz.running import RunningCall, running_calls, stands_on
from mcp_authz.stopping import Stopping
from mcp_authz.store.ports import Clock, Pin, Store
from mcp_authz.store.switch_port import Swept


@dataclass(frozen=True, slots=True, kw_only=True)
class Off:
    """What nobody can call any more, or could not; `already`: nobody could before, and nothing was changed."""

    holds: tuple[HoldId, ...] = ()
    running: tuple[RunningCall, ...] = ()
    already: bool = False
    pin: Pin | None = None  # of a tool


@dataclass(frozen=True, slots=True, kw_only=True)
class SweptAway:
    """What ended of a subject, or would, and the calls of it that ran."""

    subject: str  # as records name it
    swept: Swept
    running: tuple[RunningCall, ...]


class Halting:
    """Switches off what it is told by name, and sweeps; or says what that would stop."""

    def __init__(self, store: Store, clock: Clock, *, servers: frozenset[str]) -> None:
        self._store = store
        self._stopping = Stopping(store, clock)
        self._servers = servers  # those of the configuration

    async def foresee_tool(self, name: str) -> Off:
        """What `tool_off` would stop; nothing is changed.

        Raises:
            NotFound: there is no such tool.
        """
        pin = await pin_called(self._store, name)
        if await self._is_off(pin.server, pin.tool):
            return Off(already=True, pin=pin)
        holds = await self._stopping.would_cancel(pin.server, name)
        return Off(holds=holds, running=await self._running("tool", name), pin=pin)

    async def tool_off(self, name: str, *, reason: str, by: str) -> Off:
        """Nobody can call the tool that the gateway calls so, until it is accepted.

        Raises:
            NotFound: there is no such tool.
        """
        pin = await pin_called(self._store, name)
        return await self._off("tool", name, partial(self._stopping.tool_off, pin, name, reason=reason, by=by), pin)

    async def foresee_server(self, name: str) -> Off:
        """What `server_off` would stop; nothing is changed.

        Raises:
            NotFound: there is no such server.
        """
        await self._require_server(name)
        if await self._is_off(name, ""):
            return Off(already=True)
        holds = await self._stopping.would_cancel(name)
        return Off(holds=holds, running=await self._running("server", name))

    async def server_off(self, name: str, *, reason: str, by: str) -> Off:
        """Nobody can call a tool of the server, also none that it lists later, until the server is accepted.

        Raises:
            NotFound: there is no such server.
        """
        await self._require_server(name)
        return await self._off("server", name, partial(self._stopping.server_off, name, reason=reason, by=by))

    async def foresee_sweep(self, subject: str, before: datetime) -> SweptAway:
        """What `sweep` would end now; nothing is changed.

        Raises:
            InputError, NotFound: as `sweep`.
        """
        full = await subject_called(self._store, subject)
        running = await running_calls(self._store)
        return _swept(full, await self._stopping.foresee_sweep(full, before), running)

    async def sweep(self, subject: str, before: datetime, *, reason: str, by: str) -> SweptAway:
        """What the subject has, and was made before then, is revoked.

        Raises:
            InputError: that names no subject, or the time is not over.
            NotFound: there is no such person, agent or client.
        """
        full = await subject_called(self._store, subject)
        running = await running_calls(self._store)
        return _swept(full, await self._stopping.sweep(full, before, reason=reason, by=by), running)

    async def _off(
        self,
        kind: str,
        name: str,
        switch_off: Callable[[], Awaitable[tuple[HoldId, ...] | None]],
        pin: Pin | None = None,
    ) -> Off:
        running = await self._running(kind, name)
        holds = await switch_off()
        return Off(already=True, pin=pin) if holds is None else Off(holds=holds, running=running, pin=pin)

    async def _require_server(self, name: str) -> None:
        known = {*self._servers, *(pin.server for pin in await self._store.pins())}
        if name not in known:
            raise NotFound(f"there is no server `{name}`; there are: {', '.join(sorted(known)) or 'none'}")

    async def _is_off(self, server: str, tool: str) -> bool:
        return any((switch.server, switch.tool) == (server, tool) for switch in await self._store.switched_off())

    async def _running(self, kind: str, name: str) -> tuple[RunningCall, ...]:
        return tuple(call for call in await running_calls(self._store) if stands_on(call, kind, frozenset({name})))


def _swept(subject: str, swept: Swept, running: tuple[RunningCall, ...]) -> SweptAway:
    """`running`: the calls that ran before."""
    named = {kind: frozenset(ids) for kind, ids in swept.ids.items()}
    ended = tuple(it for it in running if any(stands_on(it, kind, ids) for kind, ids in named.items()))
    return SweptAway(subject=subject, swept=swept, running=ended)
