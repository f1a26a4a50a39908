"""What the gateway asks of a store about what is switched off for everybody, and about all of a subject's at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from mcp_authz.model import HoldId
from mcp_authz.store.facts import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Switch:
    """What nobody can call: a tool of a server, a server, or anything at all."""

    server: str = ""  # empty: every server
    tool: str = ""  # as its server calls it; empty: every tool
    since: datetime
    by: str
    reason: str

    @property
    def is_everything(self) -> bool:
        """Whether nothing is forwarded any more."""
        return not self.server

    def is_for(self, server: str, tool: str) -> bool:
        """Whether this tool cannot be called because of it."""
        return self.server in ("", server) and self.tool in ("", tool)


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What ended of a subject: the ids by kind, and how many sign-ins and one-time codes that nobody used."""

    ids: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # grant, session, link, key, approval
    sign_ins: int = 0
    codes: int = 0
    holds: tuple[HoldId, ...] = ()

    @property
    def is_nothing(self) -> bool:
        """Whether nothing was left that could end."""
        return not (any(self.ids.values()) or self.sign_ins or self.codes)


class Switches(Protocol):
    """What an operator stops for everybody, or all at once; each is durable, and on record, when it returns."""

    async def switched_off(self) -> tuple[Switch, ...]: ...

    async def switch_off(self, switch: Switch, event: Event, *, tool: str = "") -> tuple[HoldId, ...] | None:
        """Calls of it are not admitted any more; the waiting holds of it that were cancelled. None: it was so before.

        `tool` is the gateway's name of the tool. Where everything is switched off, holds stay as they are.
        """

    async def switch_on(self, server: str, tool: str, event: Event) -> bool:
        """Whether it was switched off until now; what else covers a tool goes on to do so."""

    async def endings(self) -> int:
        """A number that is larger each time after anything was revoked, or switched off, however that was done."""

    async def sweep(self, subject: str, before: datetime, event: Event, *, rehearse: bool = False) -> Swept:
        """What `user:NAME`, `agent:NAME` or `client:ID` has from before then is revoked, with what descends from it.

        Where there is nothing, nothing is recorded. With `rehearse` nothing is changed.
        """
