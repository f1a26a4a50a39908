"""`mcp-authz start-all`: calls are forwarded again after `stop-all`."""

from __future__ import annotations

import typer

from mcp_authz.administration import Administration, at_the_store
from mcp_authz.cli import elsewhere_revoke
from mcp_authz.cli.invocation import asynchronous, command_line, installation, named_gateway, operator
from mcp_authz.cli.output import next_step, say

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
@asynchronous
async def start_all(ctx: typer.Context) -> None:
    """Forward calls again after `stop-all`; nothing that was cancelled runs by itself."""
    if (there := named_gateway(ctx)) is not None:
        await elsewhere_revoke.start_all(there)
        return
    async with installation(ctx) as here:
        started = await Administration(here.store, here.clock).start_all(at_the_store(operator()))
    say("calls are forwarded again" if started else "calls were not stopped; nothing was changed")
    next_step(command_line(ctx, "status"))
