"""Tool servers are started once, and who looks on sees how far it is."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mcp_authz.rules.display import visible
from mcp_authz.wrap.starting import Candidate, Listed, Silent, list_once


async def list_with_progress(
    candidates: Mapping[str, Candidate], names: Mapping[str, str]
) -> dict[str, Listed | Silent]:
    """Return what each server answers; `names` are what people call them."""
    with _progress(len(candidates)) as advance:
        return await list_once(candidates, lambda key, _: advance(names[key]))


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    columns = (
        TextColumn("starting the servers"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not sys.stderr.isatty()) as shown:
        task = shown.add_task("", total=total)
        yield lambda name: shown.update(task, advance=1, description=visible(name))
