"""`mcp-authz revoke tool | server | everything`: what is stopped for everybody, and all of a subject's at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import typer

from mcp_authz.administration import Administration, at_the_store
from mcp_authz.cli.audit_options import moment
from mcp_authz.cli.invocation import command_line, operator
from mcp_authz.cli.output import next_step, print_json, say
from mcp_authz.cli.tools import find_pin
from mcp_authz.errors import NotFound
from mcp_authz.installation import Installation
from mcp_authz.model import HoldId
from mcp_authz.rules.log import timestamp
from mcp_authz.running import RunningCall, running_calls, stands_on
from mcp_authz.store.switch_port import Swept


async def revoke_tool(
    ctx: typer.Context, here: Installation, name: str, *, reason: str, dry_run: bool, json: bool
) -> None:
    """The tool is switched off for everybody until it is accepted."""
    pin = await find_pin(here, name)
    administration, actor = Administration(here.store, here.clock), at_the_store(operator())
    running = await _running(here, "tool", {name})
    off = await _is_off(here, pin.server, pin.tool)
    holds: tuple[HoldId, ...] | None = None
    if not off:
        holds = await (
            administration.foresee_off(actor, pin.server, name)
            if dry_run
            else administration.tool_off(actor, pin, name, reason=reason)
        )
    _say_off("tool", name, holds, running, dry_run=dry_run, json=json)
    if not json:
        digest = (pin.changed_digest or pin.digest).hex()
        again = command_line(ctx, "revoke", "tool", name, "--reason", reason)
        next_step(again if dry_run else command_line(ctx, "tools", "accept", name, "--expect", digest))


async def revoke_server(
    ctx: typer.Context, here: Installation, name: str, *, reason: str, dry_run: bool, json: bool
) -> None:
    """Every tool of the server is switched off for everybody, those that it will list later, too."""
    known = {*here.config.servers, *(pin.server for pin in await here.store.pins())}
    if name not in known:
        raise NotFound(f"there is no server `{name}`; there are: {', '.join(sorted(known)) or 'none'}")
    administration, actor = Administration(here.store, here.clock), at_the_store(operator())
    running = await _running(here, "server", {name})
    off = await _is_off(here, name, "")
    holds: tuple[HoldId, ...] | None = None
    if not off:
        holds = await (
            administration.foresee_off(actor, name)
            if dry_run
            else administration.server_off(actor, name, reason=reason)
        )
    _say_off("server", name, holds, running, dry_run=dry_run, json=json)
    if not json:
        again = command_line(ctx, "revoke", "server", name, "--reason", reason)
        next_step(again if dry_run else command_line(ctx, "tools", "accept", "--server", name))


async def revoke_everything(
    ctx: typer.Context, here: Installation, subject: str, before: str, *, reason: str, dry_run: bool, json: bool
) -> None:
    """What the subject has, and was made before then, is revoked."""
    at = here.clock() if before == "now" else moment(before, here.clock())
    administration, actor = Administration(here.store, here.clock), at_the_store(operator())
    if subject.startswith("client:"):
        handles = {f"client:{client.handle}": f"client:{client.id}" for client in await here.store.clients()}
        subject = handles.get(subject, subject)
    running = await running_calls(here.store)
    if dry_run:
        swept = await administration.foresee_sweep(actor, subject, at)
    else:
        swept = await administration.sweep(actor, subject, at, reason=reason)
    ended = [it for it in running if _ends_with(it, swept)]
    if json:
        said = {"kind": "everything", "name": subject, "dry_run": dry_run, "already_revoked": swept.is_nothing}
        counts = {"sign_ins": swept.sign_ins, "codes": swept.codes, "holds": list(swept.holds)}
        print_json(
            {**said, "ids": {kind: list(ids) for kind, ids in swept.ids.items()}, **counts, **running_view(ended)}
        )
        return
    if swept.is_nothing:
        say(f"{subject} has nothing from before then that is still active; nothing was changed")
        return
    say(f"everything of {subject} from before then {'would be' if dry_run else 'is'} revoked")
    would = "would stop" if dry_run else "stopped"
    for kind, ids in swept.ids.items():
        if ids:
            say(f"{would}: {len(ids)} {kind}{'s'[: len(ids) != 1]}: {' '.join(ids)}")
    code = "invitation" if subject.startswith("user:") else "enrolment code"
    for count, what in ((swept.sign_ins, "sign-in"), (swept.codes, code)):
        if count:
            say(f"{would}: {count} {what}{'s'[: count != 1]}")
    say_stopped(swept.holds, ended, dry_run=dry_run)
    if dry_run:
        again = ("revoke", "everything", "--of", subject, "--before", before, "--reason", reason)
        next_step(command_line(ctx, *again))
    else:
        next_step(command_line(ctx, "audit", "list", "--kind", "revocation"))


def say_stopped(holds: Iterable[HoldId], running: Iterable[RunningCall], *, dry_run: bool) -> None:
    """Say which held and running calls it is about."""
    would = "would stop" if dry_run else "stopped"
    for hold in holds:
        say(f"{would}: held call {hold}")
    for call in running:
        say(f"{would}: running call {call.call} of {call.tool} by {call.actor}")


async def _is_off(here: Installation, server: str, tool: str) -> bool:
    return any((switch.server, switch.tool) == (server, tool) for switch in await here.store.switched_off())


async def _running(here: Installation, kind: str, names: set[str]) -> list[RunningCall]:
    found = await running_calls(here.store)
    return [call for call in found if stands_on(call, kind, frozenset(names))]


def _ends_with(call: RunningCall, swept: Swept) -> bool:
    return any(stands_on(call, kind, frozenset(ids)) for kind, ids in swept.ids.items())


def _say_off(
    kind: str, name: str, holds: tuple[HoldId, ...] | None, running: list[RunningCall], *, dry_run: bool, json: bool
) -> None:
    if json:
        said = {"kind": kind, "name": name, "dry_run": dry_run, "already_revoked": holds is None}
        print_json({**said, "links": [], "holds": list(holds or ()), **running_view(running)})
        return
    if holds is None:
        say(f"{kind} {name} is switched off already; nothing was changed")
        return
    say(f"{kind} {name} {'would be' if dry_run else 'is'} switched off: nobody can call it until it is accepted again")
    say_stopped(holds, running, dry_run=dry_run)


def running_view(running: Iterable[RunningCall]) -> dict[str, Any]:
    """The member that lists running calls."""
    return {
        "running": [
            {"call": it.call, "tool": it.tool, "actor": it.actor, "since": timestamp(it.since)} for it in running
        ]
    }
