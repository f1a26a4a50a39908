"""`mcp-authz audit shred`: the values of arguments, gone at once; the log keeps what it says of the calls."""

from __future__ import annotations

from typing import Annotated

import typer

from mcp_authz.audit_excerpts import records_of
from mcp_authz.cli.audit_options import moment
from mcp_authz.cli.invocation import asynchronous, command_line, installation, operator
from mcp_authz.cli.options import Json
from mcp_authz.cli.output import next_step, print_json, say
from mcp_authz.rules.log import timestamp
from mcp_authz.shredding import counted, of_calls, shred_now
from mcp_authz.store.evidence_port import Before, OfCalls, Shredded


@asynchronous
async def shred(
    ctx: typer.Context,
    call: Annotated[
        str | None, typer.Argument(metavar="[CALL]", help="The id of a call or a hold, or enough of it.")
    ] = None,
    *,
    before: Annotated[
        str | None,
        typer.Option(
            metavar="TIME|DURATION", help="Instead: all calls that were over before 2026-01-31, 2h ago, or now."
        ),
    ] = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it goes on record.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be gone, and change nothing.")] = False,
    json: Json = False,
) -> None:
    """Shred the arguments and results of a call, and whatever else has their values; the log stays as it is."""
    if (call is None) == (before is None):
        raise typer.BadParameter("name a call, or --before a time")
    async with installation(ctx) as here:
        what: OfCalls | Before
        if call is not None:
            what, whose = of_calls(await records_of(here.store, call)), f"of {call}"
        else:
            now = here.clock()
            what = Before(at=now if before == "now" else min(moment(str(before), now), now))
            whose = f"from before {timestamp(what.at)}"
        gone = (
            await here.store.would_shred(what)
            if dry_run
            else await shred_now(here.store, what, whose=whose, reason=reason, by=operator(), at=here.clock())
        )
    if json:
        print_json(_view(gone, dry_run=dry_run))
        return
    _say(gone, dry_run=dry_run)
    if dry_run:
        named = [call] if call is not None else ["--before", str(before)]
        next_step(command_line(ctx, "audit", "shred", *named, "--reason", reason))
    else:
        next_step(command_line(ctx, "audit", "list", "--kind", "administration"))


def _view(gone: Shredded, *, dry_run: bool) -> dict[str, object]:
    return {
        "dry_run": dry_run,
        "holds": list(gone.holds),
        "proofs": gone.proofs,
        "inputs": gone.inputs,
        "standing": gone.standing,
        "open": list(gone.open),
        "in_use": list(gone.in_use),
    }


def _say(gone: Shredded, *, dry_run: bool) -> None:
    if gone.is_nothing:
        say("nothing is kept that has values of their arguments")
    else:
        say(f"{'would be gone' if dry_run else 'gone'}: {counted(gone)}")
    for hold in gone.open:
        say(f"left alone: {hold} is not over; deny or revoke it first")
    for standing in gone.in_use:
        say(f"left alone: standing approval {standing} has values of the call; it goes once it and its calls are over")
    if not gone.is_nothing and not dry_run:
        say("backups that were made before still have it")
