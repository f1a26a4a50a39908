"""`mcp-authz keys`: the keys that the gateway itself signs with, and giving it others."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from functools import partial
from typing import Annotated, Any, Final

import typer

from mcp_authz import views
from mcp_authz.cli import elsewhere_commands
from mcp_authz.cli.invocation import advising, asynchronous, command_line, installation, named_gateway, operator
from mcp_authz.cli.options import Json
from mcp_authz.cli.output import local, next_step, print_json, say, table
from mcp_authz.cli.revoke_more import say_stopped
from mcp_authz.errors import Conflict
from mcp_authz.key_rotation import KeyRotation, signing_keys
from mcp_authz.running import RunningCall, running_calls
from mcp_authz.signing_key import OVERLAP, KeyUse, SigningKey, state

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, add_completion=False)

_AT_ONCE: Final[dict[KeyUse, tuple[str, ...]]] = {
    "issuer": (
        "access tokens that were issued until now are refused, and streams that they opened end; clients sign in again "
        "by themselves",
        "signed chains, and work that agents were given by them, have ended: whoever delegated delegates again",
        "sessions, grants and agents stay",
    ),
    "context": (
        "a tool server fetches the new key at its next call, or refuses calls for a minute if it fetched one just now",
        "one that is not called believes the old key for up to an hour: restart it if that matters",
    ),
    "checkpoint": (
        "checkpoints from now on are signed by the new key, which the log names; give it to whoever verifies them",
        "of those before, believe the copies that were kept elsewhere before the old key may have been known",
    ),
}


@app.callback()
def _group() -> None:
    """The gateway's own signing keys: look at them, rotate them."""


@app.command("list")
@asynchronous
async def list_(ctx: typer.Context, *, json: Json = False) -> None:
    """List the keys that the gateway signs with, and those that it signed with before."""
    if (there := named_gateway(ctx)) is not None:
        await elsewhere_commands.listed(there, "keys", partial(_say_keys, json=json))
        return
    async with installation(ctx) as here:
        keys = [views.signing_key(key, how) for key, how in await signing_keys(here.store, here.clock)]
    _say_keys(keys, json=json)


def _say_keys(keys: list[dict[str, Any]], *, json: bool) -> None:
    if json:
        print_json(keys)
        return
    table(
        ("USE", "KEY", "STATE", "SIGNS FROM", "COUNTS UNTIL"),
        ((it["use"], it["key"], it["state"], _local(it["signs_from"]), _until(it)) for it in keys),
        empty="",
    )


@app.command()
@asynchronous
async def rotate(
    ctx: typer.Context,
    *,
    which: Annotated[
        KeyUse,
        typer.Option(
            metavar="USE",
            help="issuer: tokens and chains. context: what tool servers are told. checkpoint: where the log ends.",
        ),
    ] = "issuer",
    now: Annotated[
        bool, typer.Option("--now", help="The old key is known to somebody: nothing that it signed counts any more.")
    ] = False,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why; it goes on record.")] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="With --now: say what would stop, and change nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Give the gateway another key to sign with. A gateway that runs follows within a second.

    The new key is published at once and signs ten minutes later, when everybody who keeps the published keys has it.
    """
    if dry_run and not now:
        raise typer.BadParameter("--dry-run goes with --now: without it nothing stops")
    async with installation(ctx) as here:
        rotation = KeyRotation(here.store, here.clock)
        # Every token counts by an issuer key, and none of those that there are is left.
        running = await running_calls(here.store) if now and which == "issuer" else ()
        if dry_run:
            _say_foreseen(ctx, which, running, reason=reason, json=json)
            return
        change = rotation.replace if now else rotation.rotate
        with advising(Conflict, f"where that is too late: {command_line(ctx, 'keys', 'rotate', '--now')}"):
            made = await change(which, by=operator(), reason=reason)
        keys = await rotation.keys(which)
        at = here.clock()
    if json:
        print_json({**views.signing_key(made, state(made, keys, at)), "running": views.running(running)})
        return
    for line in _told_now(made) if now else _told(made):
        say(line)
    say_stopped((), running, dry_run=False)
    next_step(command_line(ctx, "keys", "list"))


def _say_foreseen(
    ctx: typer.Context, which: KeyUse, running: Sequence[RunningCall], *, reason: str, json: bool
) -> None:
    """Say what `--now` would cost."""
    if json:
        print_json({"use": which, "dry_run": True, "running": views.running(running)})
        return
    say(f"the {which} key would be replaced at once, and the others be revoked")
    for line in _AT_ONCE[which]:
        say(line)
    say_stopped((), running, dry_run=True)
    because = ("--reason", reason) if reason else ()
    next_step(command_line(ctx, "keys", "rotate", "--now", "--which", which, *because))


def _told(made: SigningKey) -> Sequence[str]:
    published = f"{made.use} key {made.kid} is published, and signs from {local(made.signs_from)} on"
    if made.use == "checkpoint":
        return published, "what the one before signs until then counts for good: keep the public keys of both"
    last = local(made.signs_from + OVERLAP[made.use])
    return published, f"what the one before signs until then counts until it ends, {last} at last"


def _told_now(made: SigningKey) -> Sequence[str]:
    return (f"{made.use} key {made.kid} signs from now on; the others are revoked", *_AT_ONCE[made.use])


def _until(key: dict[str, Any]) -> str:
    if key["state"] == "revoked":
        return "-"
    return "" if key["retires_at"] is None else _local(key["retires_at"])


def _local(at: str) -> str:
    return local(datetime.fromisoformat(at))
