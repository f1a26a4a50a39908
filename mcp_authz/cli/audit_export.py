"""`mcp-authz audit export`: the log in the forms that other programs read, whole or not at all."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, BinaryIO, Final, Literal, get_args

import typer
from rich.console import Console
from rich.progress import Progress

from mcp_authz import views
from mcp_authz.cli.audit_options import (
    AgentName,
    Call,
    Decision,
    Kind,
    Observed,
    PersonName,
    SessionId,
    Since,
    Text,
    ToolName,
    Until,
    chosen,
)
from mcp_authz.cli.invocation import config_of
from mcp_authz.cli.output import note
from mcp_authz.errors import InputError, NotFound, StoreError
from mcp_authz.installation import utc_now
from mcp_authz.rules import ocsf, record_csv
from mcp_authz.rules.audit_filter import Filter
from mcp_authz.rules.log import Stored
from mcp_authz.store.offline import LogFile, log_file
from mcp_authz.store.ports import Record
from mcp_authz.store.records import record

Format = Literal["chain", "jsonl", "csv", "ocsf"]
LONG: Final = 5000  # records; writing fewer is over before a progress bar could be read
_VERSION: Final = version("mcp-authz")


def export(
    ctx: typer.Context,
    *,
    format_: Annotated[
        Format, typer.Option("--format", metavar="FORMAT", help=f"One of: {', '.join(get_args(Format))}.")
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where to; only you can read it. Else standard output.")
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(metavar="FILE", readable=False, help="The store to read, also a copy. Else the one in use."),
    ] = None,
    agent: AgentName = None,
    person: PersonName = None,
    session: SessionId = None,
    tool: ToolName = None,
    decision: Decision = None,
    kind: Kind = None,
    call: Call = None,
    since: Since = None,
    until: Until = None,
    text: Text = None,
    observed: Observed = False,
) -> None:
    """Write the log for another program: what it has when the command begins, oldest first."""
    wanted = chosen(
        utc_now(),
        agent=agent,
        person=person,
        session=session,
        tool=tool,
        decision=decision,
        kind=kind,
        call=call,
        since=since,
        until=until,
        text=text,
        observed=observed,
    )
    if format_ == "chain" and wanted != Filter():
        raise InputError(
            "a chain hangs together with every record only; leave the filters out, or write another format"
        )
    path = store if store is not None else config_of(ctx).data / "store.db"
    if not path.exists():
        raise NotFound(f"there is no store at `{path}`; name one with --store FILE")
    with log_file(path) as log, _progress() as told, _destination(out) as file:
        head, hash_ = log.head()
        written = _write(file, log, head, format_=format_, wanted=wanted, told=told)
    where = "" if out is None else f" to {out}"
    note(f"{written} record{'s'[: written != 1]} written{where}, of a log up to record {head}, hash {hash_.hex()}")


def _write(
    file: BinaryIO, log: LogFile, head: int, *, format_: Format, wanted: Filter, told: Callable[[int, int], None]
) -> int:
    """How many records were written."""
    written = 0
    if format_ == "csv":
        file.write(record_csv.header().encode())
    for looked_at, rows in log.pages(after=0, until=head, wanted=wanted):
        lines = list(_chain(rows) if format_ == "chain" else _lines(rows, format_, wanted))
        file.writelines(lines)
        written += len(lines)
        told(looked_at, head)
    return written


def _chain(rows: list[Stored]) -> Iterator[bytes]:
    for row in rows:
        if b"\n" in row.body:
            raise StoreError(f"record {row.sequence} of the log was altered; run `mcp-authz audit verify`")
        yield row.body + b"\n"


def _lines(rows: list[Stored], format_: Format, wanted: Filter) -> Iterator[bytes]:
    for row in rows:
        it = record(row.sequence, row.body, row.hash)
        if wanted.has(it.event):
            yield _WAYS[format_](it).encode()


def _jsonl(it: Record) -> str:
    return json.dumps(views.record(it)) + "\n"


def _csv(it: Record) -> str:
    return record_csv.row(it.event, sequence=it.sequence, hash_=it.hash)


def _ocsf(it: Record) -> str:
    return json.dumps(ocsf.event(it.event, sequence=it.sequence, hash_=it.hash, version=_VERSION)) + "\n"


_WAYS: Final[dict[str, Callable[[Record], str]]] = {"jsonl": _jsonl, "csv": _csv, "ocsf": _ocsf}


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("records", total=None, visible=False)
        yield lambda done, of: progress.update(bar, completed=done, total=of, visible=of >= LONG)


@contextmanager
def _destination(out: Path | None) -> Iterator[BinaryIO]:
    """What is written comes to be at `out` when it is whole, readable by its owner; after an error nothing is there."""
    if out is None:
        yield sys.stdout.buffer
        return
    descriptor, name = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.parent)  # 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(out)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
