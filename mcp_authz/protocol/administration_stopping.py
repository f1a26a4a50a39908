"""What the administration API stops and starts: the answers to its `POST` requests."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, cast, get_args

from starlette.requests import Request

from mcp_authz import views
from mcp_authz.administration import Actor, Administration
from mcp_authz.errors import InputError
from mcp_authz.halting import Off
from mcp_authz.protocol.administration_asked import exactly, flag, members, text
from mcp_authz.rules.audit_query import moment
from mcp_authz.store.ports import Clock, RevocableKind

_THINGS: Final = get_args(RevocableKind)
_KINDS: Final = (*_THINGS, "tool", "server", "everything")
_MAYBE: Final = ("dry_run",)


class Stopping:
    """Reads what is to be stopped, and has `Administration` do it, or say what it would stop."""

    def __init__(self, administration: Administration, clock: Clock) -> None:
        self._administration = administration
        self._clock = clock

    async def revoke(self, request: Request, actor: Actor) -> Mapping[str, Any]:
        """What stopped, or would; it is done at once."""
        said = await members(request)
        kind = said.get("kind")
        if kind not in _KINDS:
            raise InputError(f"`kind` is one of {', '.join(_KINDS)}")
        if kind == "everything":
            return await self._sweep(said, actor)
        reason, dry_run = _with_a_reason(said, "kind", "name")
        name = text(said, "name")
        if kind == "tool":
            tool = await self._tool_off(actor, name, reason, dry_run)
            return {"dry_run": dry_run, "name": name, **_off(tool)}
        if kind == "server":
            server = await self._server_off(actor, name, reason, dry_run)
            return {"dry_run": dry_run, "name": name, **_off(server)}
        return {"dry_run": dry_run, **await self._thing(actor, cast(RevocableKind, kind), name, reason, dry_run)}

    async def stop_all(self, request: Request, actor: Actor) -> Mapping[str, Any]:
        """Nothing is forwarded any more; which calls ended."""
        said = await members(request)
        reason, dry_run = _with_a_reason(said)
        running = views.running(await self._administration.running_all(actor))
        before = await self._administration.stopped(actor) is not None
        stopped = not dry_run and await self._administration.stop_all(actor, reason=reason)
        already = before if dry_run else not stopped
        return {"stopped": stopped, "already": already, "dry_run": dry_run, "running": running}

    async def start_all(self, request: Request, actor: Actor) -> Mapping[str, Any]:
        """Calls are forwarded again."""
        exactly(await members(request))
        return {"started": await self._administration.start_all(actor)}

    async def _thing(
        self, actor: Actor, kind: RevocableKind, name: str, reason: str, dry_run: bool
    ) -> Mapping[str, Any]:
        it = self._administration
        if dry_run:
            stopped = await it.foresee(actor, kind, name)
            running = await it.running(actor, kind, name)
        else:
            running = await it.running(actor, kind, name)
            stopped = await it.revoke(actor, kind, name, reason=reason)
        links = [{**views.link(link), "session": session.id} for session, link in stopped.links]
        ended = {"links": links, "holds": list(stopped.holds), "running": views.running(running)}
        return {"name": await it.full(kind, name), "already_revoked": stopped.already, **ended}

    async def _tool_off(self, actor: Actor, name: str, reason: str, dry_run: bool) -> Off:
        if dry_run:
            return await self._administration.foresee_tool_off(actor, name)
        return await self._administration.tool_off(actor, name, reason=reason)

    async def _server_off(self, actor: Actor, name: str, reason: str, dry_run: bool) -> Off:
        if dry_run:
            return await self._administration.foresee_server_off(actor, name)
        return await self._administration.server_off(actor, name, reason=reason)

    async def _sweep(self, said: Mapping[str, Any], actor: Actor) -> Mapping[str, Any]:
        """`before` is a time, or `now`: that of the gateway's clock."""
        reason, dry_run = _with_a_reason(said, "kind", "of", "before")
        of = text(said, "of")
        before = self._time(text(said, "before"))
        if dry_run:
            away = await self._administration.foresee_sweep(actor, of, before)
        else:
            away = await self._administration.sweep(actor, of, before, reason=reason)
        swept = {"name": away.subject, "already_revoked": away.swept.is_nothing, "dry_run": dry_run}
        return {**swept, **views.swept(away.swept), "running": views.running(away.running)}

    def _time(self, said: str) -> datetime:
        if said == "now":
            return self._clock()
        at = moment(said) if "T" in said else None
        if at is None:
            raise InputError("`before` is a time like 2026-01-31T12:00:00Z, or now")
        return at


def _off(it: Off) -> Mapping[str, Any]:
    digest = {} if it.pin is None else {"digest": (it.pin.changed_digest or it.pin.digest).hex()}
    ended = {"links": [], "holds": list(it.holds), "running": views.running(it.running)}
    return {"already_revoked": it.already, **ended, **digest}


def _with_a_reason(said: Mapping[str, Any], *needed: str) -> tuple[str, bool]:
    """Why, and whether nothing is to be changed: then nobody has to say why.

    Raises:
        InputError: the object has other members than these, or no reason.
    """
    dry_run = flag(said, "dry_run")
    if dry_run:
        exactly(said, *needed, maybe=("reason", *_MAYBE))
    else:
        exactly(said, *needed, "reason", maybe=_MAYBE)
    return (text(said, "reason") if "reason" in said else ""), dry_run
