"""What is stopped and started at a gateway elsewhere, as far as the person's roles reach."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import typer

from mcp_authz.cli.audit_options import moment
from mcp_authz.cli.elsewhere import elsewhere
from mcp_authz.cli.invocation import command_line
from mcp_authz.cli.options import named
from mcp_authz.cli.output import next_step, print_json, say
from mcp_authz.cli.said_stopped import say_ended, say_off, say_swept
from mcp_authz.rules.display import visible
from mcp_authz.rules.log import timestamp

_PREFIX: Final = {"agent": "agent:", "person": "user:"}


async def revoke(ctx: typer.Context, url: str, kind: str, name: str, *, reason: str, dry_run: bool, json: bool) -> None:
    """The thing is revoked there, or the tool or server switched off, if the person may; what stopped is printed."""
    name = name.removeprefix(_PREFIX.get(kind, ""))
    async with elsewhere(url, stops=True) as there:
        told = await there.change("/revoke", kind=kind, name=name, reason=reason, dry_run=dry_run)
        if json:
            print_json({"kind": kind, "name": name, **told})
            return
        if kind in ("tool", "server"):
            say_off(kind, name, told, dry_run=dry_run)
            if not dry_run:
                say(f"where the gateway runs, `{_accepting(kind, name, told)}` lets it be called again")
        else:
            _say_revoked(kind, name, told, dry_run=dry_run)
        if told["already_revoked"]:
            return
    if dry_run:
        next_step(command_line(ctx, "revoke", *named(kind, name, "--reason", reason)))
    else:
        next_step(command_line(ctx, "audit", "list", "--kind", "revocation"))


async def sweep(
    ctx: typer.Context, url: str, subject: str, before: str, *, reason: str, dry_run: bool, json: bool
) -> None:
    """What the subject has there, and was made before then, is revoked, if the person may."""
    at = before if before == "now" else timestamp(moment(before, datetime.now(UTC)))
    async with elsewhere(url, stops=True) as there:
        said = {"kind": "everything", "of": subject, "before": at, "reason": reason, "dry_run": dry_run}
        told = await there.change("/revoke", **said)
        if json:
            print_json({"kind": "everything", **told})
            return
        full = visible(told["name"])
        if told["already_revoked"]:
            say(f"{full} has nothing from before then that is still active; nothing was changed")
            return
        say_swept(full, told, dry_run=dry_run)
    if dry_run:
        next_step(command_line(ctx, "revoke", "everything", "--of", full, "--before", before, "--reason", reason))
    else:
        next_step(command_line(ctx, "audit", "list", "--kind", "revocation"))


async def stop_all(ctx: typer.Context, url: str, *, reason: str, dry_run: bool, json: bool) -> None:
    """Nothing is forwarded there any more, if the person may say so."""
    async with elsewhere(url, stops=True) as there:
        told = await there.change("/stop-all", reason=reason, dry_run=dry_run)
        if json:
            print_json(told)
            return
        if told["already"]:
            say("all calls were stopped before; nothing was changed")
        elif dry_run:
            say("all calls would be stopped; what waits for a person would go on waiting")
        else:
            say("all calls are stopped: every one is denied, by every process. What waits for a person goes on waiting")
        say_ended((), told["running"], dry_run=dry_run)
    next_step(command_line(ctx, "stop-all", "--reason", reason) if dry_run else command_line(ctx, "start-all"))


async def start_all(url: str) -> None:
    """Calls are forwarded there again, if the person may say so."""
    async with elsewhere(url, stops=True) as there:
        told = await there.change("/start-all")
        say("calls are forwarded again" if told["started"] else "calls were not stopped; nothing was changed")


def _say_revoked(kind: str, name: str, told: dict[str, Any], *, dry_run: bool) -> None:
    if told["already_revoked"]:
        say(f"{kind} {name} {'waits no longer' if kind == 'hold' else 'is revoked already'}; nothing was changed")
        return
    say(f"{kind} {name} {'would be' if dry_run else 'is'} revoked")
    would = "would stop" if dry_run else "stopped"
    for link in told["links"]:
        say(visible(f"{would}: agent {link['holder']}: link {link['id']}"))
    say_ended(told["holds"], told["running"], dry_run=dry_run)
    if not (told["links"] or told["holds"] or told["running"]):
        say("nothing that was open stands on it")


def _accepting(kind: str, name: str, told: dict[str, Any]) -> str:
    """The command that undoes it, with words of the gateway elsewhere in it only where they are a digest."""
    if kind == "server":
        return f"mcp-authz tools accept --server {name}"
    return f"mcp-authz tools accept {name} --expect {bytes.fromhex(told['digest']).hex()}"
