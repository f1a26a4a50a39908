"""`mcp-authz stop-all`: nothing is forwarded any more, whoever asks, until `start-all`."""

from __future__ import annotations

from typing import Annotated

import typer

from mcp_authz import views
from mcp_authz.administration import Administration, at_the_store
from mcp_authz.cli import elsewhere_revoke
from mcp_authz.cli.invocation import asynchronous, command_line, installation, named_gateway, operator
from mcp_authz.cli.options import Json, Why, why
from mcp_authz.cli.output import next_step, print_json, say
from mcp_authz.cli.revoke_more import say_stopped

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
@asynchronous
async def stop_all(
    ctx: typer.Context,
    *,
    reason: Why = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would stop, and change nothing.")] = False,
    json: Json = False,
) -> None:
    """Forward no calls any more, and cancel those that run, until `start-all`."""
    reason = why(reason, dry_run=dry_run)
    if (there := named_gateway(ctx)) is not None:
        await elsewhere_revoke.stop_all(ctx, there, reason=reason, dry_run=dry_run, json=json)
        return
    async with installation(ctx) as here:
        administration, actor = Administration(here.store, here.clock), at_the_store(operator())
        before = await administration.stopped(actor)
        running = await administration.running_all(actor)
        stopped = not dry_run and await administration.stop_all(actor, reason=reason)
    if json:
        already = before is not None if dry_run else not stopped
        said = {"stopped": stopped, "already": already, "dry_run": dry_run}
        print_json({**said, "running": views.running(running)})
        return
    if before is not None:
        say(f"all calls were stopped before, by {before.by}: {before.reason}; nothing was changed")
    elif dry_run:
        say("all calls would be stopped; what waits for a person would go on waiting")
    else:
        say("all calls are stopped: every one is denied, by every process. What waits for a person goes on waiting")
    say_stopped((), running, dry_run=dry_run)
    next_step(command_line(ctx, "stop-all", "--reason", reason) if dry_run else command_line(ctx, "start-all"))
