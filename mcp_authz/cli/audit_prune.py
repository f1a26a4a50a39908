"""`mcp-authz audit prune`: what is old goes from the beginning of the log, and what remains is verified as before."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from mcp_authz import limits
from mcp_authz.cli.invocation import asynchronous, command_line, installation, operator
from mcp_authz.cli.options import Json
from mcp_authz.cli.output import next_step, print_json, say
from mcp_authz.errors import ConfigError
from mcp_authz.retention import Archived, Kept, Prunable, archive_name, prunable, remove_pruned
from mcp_authz.retention import prune as prune_log
from mcp_authz.rules.duration import parse_duration

LONGEST = timedelta(days=36500)


@asynchronous
async def prune(
    ctx: typer.Context,
    *,
    keep: Annotated[str, typer.Option(metavar="DURATION", help="How old a record must be to go: 400d; at least 30d.")],
    archive: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Where what goes is written first. Else [audit] archive, or nowhere."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and leave it.")] = False,
    json: Json = False,
) -> None:
    """Remove old records from the beginning of the log, up to a checkpoint: what remains can be verified."""
    kept_for = parse_duration(keep, at_least=limits.LOG_KEPT_LEAST, at_most=LONGEST)
    async with installation(ctx) as here:
        what = await prunable(here.store, kept_for, here.clock())
        archived = None
        if isinstance(what, Prunable) and not dry_run:
            path = _archive(archive, here.config.archive, what)
            store = here.config.data / "store.db"
            archived = await prune_log(here.store, here.clock, what, path=store, by=operator(), archive=path)
        if not dry_run:
            await remove_pruned(here.store)  # also what an earlier run left
    if json:
        print_json(_view(what, archived, dry_run))
        return
    if isinstance(what, Kept):
        say(f"nothing was pruned: {what.why}")
        return
    said = f"records {what.after.sequence + 1} to {what.head.sequence}"
    if dry_run:
        say(f"{said} would go; checkpoint {what.number} says what the log follows then")
        return
    say(f"{said} were pruned; checkpoint {what.number} says what the log follows now")
    if archived is not None:
        say(f"archived in {archived.path}, SHA-256 {archived.sha256}")
        next_step(command_line(ctx, "audit", "verify", "--archive", str(archived.path)))
    else:
        next_step(command_line(ctx, "audit", "verify"))


def _archive(named: Path | None, directory: Path | None, what: Prunable) -> Path | None:
    if named is not None and named.exists():
        raise ConfigError(f"`{named}` is there already; name another file")
    if named is not None:
        return named
    return None if directory is None else directory / archive_name(what)


def _view(what: Prunable | Kept, archived: Archived | None, dry_run: bool) -> dict[str, Any]:
    can = isinstance(what, Prunable)
    return {
        "pruned": can and not dry_run,
        "from": what.after.sequence + 1 if isinstance(what, Prunable) else None,
        "until": what.head.sequence if isinstance(what, Prunable) else None,
        "checkpoint": what.number if isinstance(what, Prunable) else None,
        "archive": None if archived is None else str(archived.path),
        "archive_sha256": None if archived is None else archived.sha256,
        "why": what.why if isinstance(what, Kept) else None,
    }
