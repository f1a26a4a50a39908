"""What `mcp-authz wrap` tells of a wrapping, as text and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import typer

from mcp_authz.cli import classes
from mcp_authz.cli.invocation import command_line
from mcp_authz.cli.output import say
from mcp_authz.cli.wrap_reading import shown_command
from mcp_authz.config import Config
from mcp_authz.locking import is_locked, note_of
from mcp_authz.model import Hazard
from mcp_authz.rules.display import visible
from mcp_authz.wrap.applying import Done
from mcp_authz.wrap.client_file import ClientFile
from mcp_authz.wrap.entry import Left
from mcp_authz.wrap.plan import Move


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """A wrapping that was carried out."""

    done: Done
    config: Config
    stopped: bool  # whether a gateway ran that knew none of it, and ends now
    link: str | None  # where the person registers a first passkey; None when they have one


def tell_left(left: Iterable[Left]) -> None:
    """A line for each server that stays in the client's file."""
    for one in left:
        say(f"left as it is: {visible(one.name)}: {visible(one.because)}")


def tell_moves(moves: Iterable[Move]) -> None:
    """What is to be known of the servers beside their tools."""
    for move in moves:
        if move.name != move.entry.name:
            say(f"{visible(move.entry.name)} is called {move.name} behind the gateway")
        if move.reused:
            say(f"{move.name} is in your configuration already, and is used from there")
        if move.listed.unreadable:
            say(f"{move.name}: {move.listed.unreadable} tools have definitions that cannot be read; they are left out")
        for warning in move.entry.warnings:
            say(f"{move.name}: {visible(warning)}")


def tell_dry_run(ctx: typer.Context, file: ClientFile, moves: Iterable[Move]) -> None:
    """What would be done besides what the table says."""
    for move in moves:
        if move.entry.secrets and not move.reused:
            say(f"{move.name}: into files that only you can read would move: {', '.join(sorted(move.entry.secrets))}")
    say("nothing was changed")
    say(f"next: {command_line(ctx, 'wrap', str(file.path))}")


def tell_written(ctx: typer.Context, file: ClientFile, moves: Iterable[Move], written: Written) -> None:
    """What has happened, and what to do now."""
    config, done = written.config, written.done
    say()
    say(f"behind the gateway: {', '.join(dict.fromkeys(move.name for move in moves))}")
    for agent in done.agents:
        say(f"{file.client.title} is agent {agent.name}, works for {agent.person}, and has the key")
        say(f"  {config.agent_key(agent.name)}")
    for path in done.secrets:
        say(f"secret moved into {path}")
    say(f"configuration: {config.source}")
    say(f"{file.path} leads to the gateway now; the old file is kept in")
    say(f"  {done.kept}")
    if any(place.project is not None and len(place.where) == 1 for place in file.places):
        say("the file belongs to a project: what stands in it now is for you alone, so do not commit it")
    if any(one.by in {"nobody", "warning"} for move in moves for one in move.proposals):
        say(f"to classify what counts as destructive only because nobody did: {command_line(ctx, 'tools', 'review')}")
    if written.link is not None:
        say("register a passkey, to approve with; the link works once, while the gateway runs:")
        say(f"  {written.link}")
    if written.stopped:
        say("the gateway that ran is stopped; what your clients call next starts one that knows these servers")
    elif is_locked(config.lock):
        say(f"a gateway runs already, {note_of(config.lock)}: it knows none of this until it is started again")
    say()
    say(f"next: {file.client.restart}")
    say(f"then: {command_line(ctx, 'doctor')}")
    say(f"back: {command_line(ctx, 'wrap', str(file.path), '--undo')}")


def plan_view(
    file: ClientFile, moves: Iterable[Move], left: Iterable[Left], chosen: Mapping[str, Mapping[str, Hazard]]
) -> dict[str, Any]:
    """What is planned, as JSON; no secret is in it."""
    return {
        "file": str(file.path),
        "client": file.client.name,
        "servers": [
            {
                "name": move.name,
                "in_file": move.entry.name,
                "runs": shown_command(move.entry, hide=True),
                "preset": move.preset,
                "already_configured": move.reused,
                "secrets": sorted(move.entry.secrets),
                "warnings": list(move.entry.warnings),
                "tools": classes.views(move.proposals, chosen.get(move.name, {})),
            }
            for move in moves
        ],
        "left": [{"name": one.name, "because": one.because} for one in left],
        "changed": False,
    }


def written_view(ctx: typer.Context, file: ClientFile, written: Written) -> dict[str, Any]:
    """What has happened, as JSON."""
    done = written.done
    return {
        "changed": True,
        "agents": [{"name": a.name, "person": a.person, "scopes": sorted(a.scopes)} for a in done.agents],
        "secret_files": [str(path) for path in done.secrets],
        "kept": str(done.kept),
        "passkey_link": written.link,
        "undo": command_line(ctx, "wrap", str(file.path), "--undo"),
    }
