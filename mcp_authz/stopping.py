"""Switches that stop a tool, a server or all calls for everybody, and the end of all that one subject has."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from mcp_authz.errors import Conflict, InputError, NotFound
from mcp_authz.model import HoldId, HoldState
from mcp_authz.principals import AgentName, ClientId, PersonName
from mcp_authz.rules.log import timestamp
from mcp_authz.store.ports import Clock, Event, Pin, Store
from mcp_authz.store.switch_port import Swept, Switch

_SUBJECTS: Final = {"user": "person", "agent": "agent", "client": "client"}


class Stopping:
    """Switches off and on again, and ends what was given before a time; each is on record with who did it and why."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def stopped(self) -> Switch | None:
        """The switch by which nothing is forwarded; None where calls are."""
        return next((switch for switch in await self._store.switched_off() if switch.is_everything), None)

    async def would_cancel(self, server: str, name: str | None = None) -> tuple[HoldId, ...]:
        """The waiting holds of this server; with `name` those of that tool alone, as the gateway calls it."""
        waiting = await self._store.holds(states=[HoldState.PENDING, HoldState.APPROVED])
        return tuple(held.id for held in waiting if held.server == server and name in (None, held.tool))

    async def tool_off(self, pin: Pin, name: str, *, reason: str, by: str) -> tuple[HoldId, ...] | None:
        """Nobody can call the tool until it is accepted; the holds that were cancelled. None: it was off already."""
        return await self._off(pin.server, pin.tool, name, of="tool", named=name, reason=reason, by=by)

    async def server_off(self, server: str, *, reason: str, by: str) -> tuple[HoldId, ...] | None:
        """Nobody can call a tool of the server, also none that it lists later, until the server is accepted."""
        return await self._off(server, "", "", of="server", named=server, reason=reason, by=by)

    async def stop_all(self, *, reason: str, by: str) -> bool:
        """Nothing is forwarded any more, by any process; holds stay as they are. False: it was so before."""
        return await self._off("", "", "", of="everything", named="all calls", reason=reason, by=by) is not None

    async def start_all(self, *, by: str) -> bool:
        """Whether calls had been stopped; they are forwarded again."""
        return await self._on("", "", "all calls are forwarded again", by)

    async def tool_on(self, pin: Pin, name: str, *, by: str) -> bool:
        """Whether the tool was switched off by itself; it is not any more.

        Raises:
            Conflict: its whole server is switched off, and stays so.
        """
        on = await self._on(pin.server, pin.tool, f"tool {name} is switched on again", by)
        if any((switch.server, switch.tool) == (pin.server, "") for switch in await self._store.switched_off()):
            raise Conflict(
                f"server `{pin.server}` is switched off as a whole; `mcp-authz tools accept --server {pin.server}`"
            )
        return on

    async def server_on(self, server: str, *, by: str) -> None:
        """The server is switched on again; tools of it that were switched off by themselves stay off.

        Raises:
            Conflict: it was not switched off.
        """
        if not await self._on(server, "", f"server {server} is switched on again", by):
            raise Conflict(f"server `{server}` is not switched off; there is nothing to accept")

    async def sweep(self, subject: str, before: datetime, *, reason: str, by: str) -> Swept:
        """What the subject (`user:NAME`, `agent:NAME` or `client:ID`) has, and was made before then, is revoked.

        Raises:
            InputError: that names no subject, or the time is not over.
            NotFound: there is no such person, agent or client.
        """
        return await self._store.sweep(subject, before, await self._swept(subject, before, reason, by))

    async def foresee_sweep(self, subject: str, before: datetime) -> Swept:
        """What that would end now; nothing is changed.

        Raises:
            InputError, NotFound: as `sweep`.
        """
        event = await self._swept(subject, before, "", "")
        return await self._store.sweep(subject, before, event, rehearse=True)

    async def _swept(self, subject: str, before: datetime, reason: str, by: str) -> Event:
        kind, _, name = subject.partition(":")
        if kind not in _SUBJECTS or not name:
            raise InputError(f"`{subject}` is neither user:NAME nor agent:NAME, nor client:ID")
        if before > self._clock():
            raise InputError("that time has not come yet; name one that is over, or `now`")
        if not await self._is_there(kind, name):
            raise NotFound(f"there is no {_SUBJECTS[kind]} `{name}`")
        told = f"everything of {subject} before {timestamp(before)} revoked: {reason}"
        fields = {"of": "everything", "name": subject, "before": timestamp(before), "reason": reason, "by": by}
        return Event(kind="revocation", at=self._clock(), fields={"summary": told, **fields})

    async def _is_there(self, kind: str, name: str) -> bool:
        match kind:
            case "user":
                return await self._store.person(PersonName(name)) is not None
            case "agent":
                return await self._store.agent(AgentName(name)) is not None
            case _:
                return await self._store.client(ClientId(name)) is not None

    async def _off(
        self, server: str, tool: str, name: str, *, of: str, named: str, reason: str, by: str
    ) -> tuple[HoldId, ...] | None:
        switch = Switch(server=server, tool=tool, since=self._clock(), by=by, reason=reason)
        verb = "stopped" if switch.is_everything else "switched off"
        told = named if switch.is_everything else f"{of} {named}"
        fields = {"summary": f"{told} {verb}: {reason}", "by": by, "of": of, "name": named, "reason": reason}
        event = Event(kind="revocation", at=switch.since, fields=fields)
        return await self._store.switch_off(switch, event, tool=name)

    async def _on(self, server: str, tool: str, told: str, by: str) -> bool:
        fields = {"summary": told, "by": by}
        return await self._store.switch_on(server, tool, Event(kind="administration", at=self._clock(), fields=fields))
