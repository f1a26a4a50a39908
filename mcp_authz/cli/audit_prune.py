"""`mcp-authz audit prune`: what is old goes from the beginning of the log, and what remains is verified as before."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from mcp_authz import limits
from mcp_authz.cli.backup import progress
from mcp_authz.cli.invocation import advising, asynchronous, command_line, installation, operator
from mcp_authz.cli.options import Json
from mcp_authz.cli.output import next_step, print_json, say
from mcp_authz.errors import StoreError
from mcp_authz.retention import Archived, Kept, Prunable, archive_name, prunable, remove_pruned
from mcp_authz.retention import prune as prune_log
from mcp_authz.rules.duration import parse_duration
from mcp_authz.store.offline import log_file
from mcp_authz.store.retention_port import LogBase

LONGEST = timedelta(days=36500)
_PRUNED = "where the log begins is settled, and the rows before that go with the next `audit prune`"


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
        store = here.config.data / "store.db"
        what = await prunable(here.store, kept_for, here.clock())
        archived = None
        if isinstance(what, Prunable) and not dry_run:
            path = _archive(archive, here.config.archive, what)
            words = "read" if path is None else "archived"
            with progress(words) as told:
                heard = partial(_hear, told, what.records)
                archived = await prune_log(
                    here.store, here.clock, what, path=store, by=operator(), archive=path, told=heard
                )
        if not dry_run:
            with advising(StoreError, _PRUNED), progress("removed") as told:
                await remove_pruned(here.store, partial(_hear, told, _left(store, await here.store.log_base())))
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


def _hear(told: Callable[[int, int], None], all_: int, done: int) -> None:
    told(done, all_)


def _left(store: Path, base: LogBase) -> int:
    """How many rows are no part of the log any more, also of an earlier run that was killed."""
    with log_file(store) as log:
        return max(0, base.sequence - log.first() + 1)


def _archive(named: Path | None, directory: Path | None, what: Prunable) -> Path | None:
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
