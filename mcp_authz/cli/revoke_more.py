"""`mcp-authz revoke tool | server | everything`: what is stopped for everybody, and all of a subject's at once."""

from __future__ import annotations

from collections.abc import Iterable

import typer

from mcp_authz import views
from mcp_authz.administration import Administration, at_the_store
from mcp_authz.cli.audit_options import moment
from mcp_authz.cli.invocation import command_line, operator
from mcp_authz.cli.output import next_step, print_json, say
from mcp_authz.cli.said_stopped import say_ended, say_off, say_swept
from mcp_authz.halting import Off
from mcp_authz.installation import Installation
from mcp_authz.model import HoldId
from mcp_authz.running import RunningCall


async def revoke_tool(
    ctx: typer.Context, here: Installation, name: str, *, reason: str, dry_run: bool, json: bool
) -> None:
    """The tool is switched off for everybody until it is accepted."""
    administration, actor = Administration(here.store, here.clock), at_the_store(operator())
    off = await (
        administration.foresee_tool_off(actor, name) if dry_run else administration.tool_off(actor, name, reason=reason)
    )
    _say_off("tool", name, off, dry_run=dry_run, json=json)
    if not json and off.pin is not None:
        digest = (off.pin.changed_digest or off.pin.digest).hex()
        again = command_line(ctx, "revoke", "tool", name, "--reason", reason)
        next_step(again if dry_run else command_line(ctx, "tools", "accept", name, "--expect", digest))


async def revoke_server(
    ctx: typer.Context, here: Installation, name: str, *, reason: str, dry_run: bool, json: bool
) -> None:
    """Every tool of the server is switched off for everybody, those that it will list later, too."""
    administration = Administration(here.store, here.clock, servers=here.config.servers)
    actor = at_the_store(operator())
    off = await (
        administration.foresee_server_off(actor, name)
        if dry_run
        else administration.server_off(actor, name, reason=reason)
    )
    _say_off("server", name, off, dry_run=dry_run, json=json)
    if not json:
        again = command_line(ctx, "revoke", "server", name, "--reason", reason)
        next_step(again if dry_run else command_line(ctx, "tools", "accept", "--server", name))


async def revoke_everything(
    ctx: typer.Context, here: Installation, subject: str, before: str, *, reason: str, dry_run: bool, json: bool
) -> None:
    """What the subject has, and was made before then, is revoked."""
    at = here.clock() if before == "now" else moment(before, here.clock())
    administration, actor = Administration(here.store, here.clock), at_the_store(operator())
    if dry_run:
        away = await administration.foresee_sweep(actor, subject, at)
    else:
        away = await administration.sweep(actor, subject, at, reason=reason)
    subject, swept, ended = away.subject, away.swept, away.running
    if json:
        said = {"kind": "everything", "name": subject, "dry_run": dry_run, "already_revoked": swept.is_nothing}
        print_json({**said, **views.swept(swept), "running": views.running(ended)})
        return
    if swept.is_nothing:
        say(f"{subject} has nothing from before then that is still active; nothing was changed")
        return
    say_swept(subject, {**views.swept(swept), "running": views.running(ended)}, dry_run=dry_run)
    if dry_run:
        again = ("revoke", "everything", "--of", subject, "--before", before, "--reason", reason)
        next_step(command_line(ctx, *again))
    else:
        next_step(command_line(ctx, "audit", "list", "--kind", "revocation"))


def say_stopped(holds: Iterable[HoldId], running: Iterable[RunningCall], *, dry_run: bool) -> None:
    """Say which held and running calls it is about."""
    say_ended(holds, views.running(running), dry_run=dry_run)


def _say_off(kind: str, name: str, off: Off, *, dry_run: bool, json: bool) -> None:
    told = {"links": [], "holds": list(off.holds), "running": views.running(off.running)}
    if json:
        print_json({"kind": kind, "name": name, "dry_run": dry_run, "already_revoked": off.already, **told})
    else:
        say_off(kind, name, {"already_revoked": off.already, **told}, dry_run=dry_run)
