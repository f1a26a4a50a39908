"""`mcp-authz backup`: a copy of the store while it is in use, and whether a copy is whole."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from mcp_authz.cli.invocation import (
    asynchronous,
    command_line,
    config_of,
    installation,
    operator,
    require_uninterrupted,
)
from mcp_authz.cli.options import Json
from mcp_authz.cli.output import next_step, print_json, say
from mcp_authz.cli.verification import verify
from mcp_authz.errors import InputError, NotFound, StoreError
from mcp_authz.new_file import flush
from mcp_authz.store.copying import copy, inspect
from mcp_authz.store.ports import Event

app = typer.Typer(rich_markup_mode=None, add_completion=False)

LARGE = 10_000  # pages or records: less is over before a bar could be read


@app.command()
@asynchronous
async def backup(
    ctx: typer.Context,
    *,
    file: Annotated[Path, typer.Argument(metavar="FILE", readable=False, help="Where to; nothing may be there yet.")],
    check: Annotated[
        bool, typer.Option("--verify", help="Verify the backup that is there, and make none; the store is not needed.")
    ] = False,
    json: Json = False,
) -> None:
    """Copy the whole store into one file, also while the gateway runs. The master key is not in it."""
    if check:
        _verify(ctx, file, json)
        return
    if file.exists():
        raise InputError(f"`{file}` is there already; name another file")
    data = config_of(ctx).data
    async with installation(ctx) as here:
        fields = {"summary": f"{operator()} made a backup: {file.name}", "by": operator(), "backup": file.name}
        await here.store.append(Event(kind="administration", at=here.clock(), fields=fields))
        with progress("copied") as told, _destination(file) as temporary:
            mark = copy(data / "store.db", temporary, told)
    if json:
        print_json({"file": str(file), "epoch": mark.epoch, "records": mark.sequence, "head": mark.hash.hex()})
        return
    say(f"{file} has the store up to record {mark.sequence}, for your eyes only")
    say(f"it opens with {data / 'master.key'} alone, which is not in it: keep a copy of the key in another place")
    next_step(command_line(ctx, "backup", "--verify", str(file)))


def _verify(ctx: typer.Context, file: Path, json: bool) -> None:
    if not file.exists():
        raise NotFound(f"there is no backup at `{file}`")
    found = inspect(file)
    with progress("records") as told:
        verified = verify(file, told)
    if verified.broken is not None:
        raise StoreError(f"`{file}` is broken at record {verified.broken.sequence}: {verified.broken.why}")
    if json:
        view = {"file": str(file), "epoch": found.mark.epoch, "records": verified.records}
        print_json({**view, "head": found.mark.hash.hex(), "schema": found.schema})
        return
    say(f"{file} is whole: {verified.records} record{'s'[: verified.records != 1]}, unbroken; epoch {found.mark.epoch}")
    next_step(command_line(ctx, "restore", str(file), "--reason", "...", "--dry-run"))


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """On a terminal, long work has a bar."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as shown:
        bar = shown.add_task(what, total=None, visible=False)

        def told(done: int, of: int) -> None:
            require_uninterrupted()
            shown.update(bar, completed=done, total=of, visible=of >= LARGE)

        yield told


@contextmanager
def _destination(file: Path) -> Iterator[Path]:
    """What is written is at `file` once it is whole; nothing that was there is replaced, nor left half done."""
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        try:
            file.hardlink_to(temporary)
        except FileExistsError:
            raise InputError(f"`{file}` is there already; name another file") from None
        temporary.unlink()
        flush(file.parent)
    except OSError as error:
        raise InputError(f"`{file}` cannot be written: {error.strerror}") from None
    finally:
        temporary.unlink(missing_ok=True)
