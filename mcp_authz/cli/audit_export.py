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

from mcp_authz import views
from mcp_authz.cli.audit_options import with_filter
from mcp_authz.cli.backup import progress
from mcp_authz.cli.elsewhere_log import LogElsewhere, log_elsewhere
from mcp_authz.cli.invocation import asynchronous, config_of, named_gateway
from mcp_authz.cli.output import note
from mcp_authz.errors import InputError, NotFound, StoreError
from mcp_authz.rules import ocsf, record_csv
from mcp_authz.rules.audit_filter import Filter
from mcp_authz.rules.log import Stored, record_bytes, record_hash
from mcp_authz.store.offline import LogFile, log_file
from mcp_authz.store.ports import Record
from mcp_authz.store.records import record

Format = Literal["chain", "jsonl", "csv", "ocsf"]
_VERSION: Final = version("mcp-authz")


@asynchronous
@with_filter
async def export(
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
    wanted: Filter,
) -> None:
    """Write the log for another program: what it has when the command begins, oldest first."""
    if format_ == "chain" and wanted != Filter():
        raise InputError(
            "a chain hangs together with every record only; leave the filters out, or write another format"
        )
    if (there := named_gateway(ctx)) is not None:
        if store is not None:
            raise typer.BadParameter("name a store with --store, or a gateway with --at, not both")
        way = _chained if format_ == "chain" else _WAYS[format_]
        async with log_elsewhere(there, wanted) as log:
            with progress("records") as told, _destination(out) as file:
                written = await _fetch(file, log, _begun(format_), way, told)
        head, hash_ = log.head, log.hash
    else:
        path = store if store is not None else config_of(ctx).data / "store.db"
        if not path.exists():
            raise NotFound(f"there is no store at `{path}`; name one with --store FILE")
        with log_file(path) as kept, progress("records") as told, _destination(out) as file:
            head, hash_ = kept.head()
            written = _write(file, kept, head, format_=format_, wanted=wanted, told=told)
    where = "" if out is None else f" to {out}"
    note(f"{written} record{'s'[: written != 1]} written{where}, of a log up to record {head}, hash {hash_.hex()}")


async def _fetch(
    file: BinaryIO, log: LogElsewhere, begun: str, way: Callable[[Record], str], told: Callable[[int, int], None]
) -> int:
    """How many records of the log elsewhere were written."""
    written = 0
    file.write(begun.encode())
    async for looked_at, records in log.pages():
        file.writelines(way(it).encode() for it in records)
        written += len(records)
        told(looked_at, log.head)
    return written


def _write(
    file: BinaryIO, log: LogFile, head: int, *, format_: Format, wanted: Filter, told: Callable[[int, int], None]
) -> int:
    """How many records were written."""
    written = 0
    file.write(_begun(format_).encode())
    for looked_at, rows in log.pages(after=0, until=head, wanted=wanted):
        lines = list(_chain(rows) if format_ == "chain" else _lines(rows, format_, wanted))
        file.writelines(lines)
        written += len(lines)
        told(looked_at, head)
    return written


def _begun(format_: Format) -> str:
    return record_csv.header() if format_ == "csv" else ""


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


def _chained(it: Record) -> str:
    """The bytes that are hashed; of a record elsewhere they are made anew, and are the same where its hash fits."""
    event = it.event
    body = record_bytes(
        sequence=it.sequence,
        previous=it.previous,
        kind=event.kind,
        at=event.at,
        call=event.call,
        fields=event.fields,
    )
    if record_hash(body) != it.hash:
        raise StoreError(f"record {it.sequence} of the log there was altered; have `mcp-authz audit verify` run there")
    return body.decode() + "\n"


def _jsonl(it: Record) -> str:
    return json.dumps(views.record(it)) + "\n"


def _csv(it: Record) -> str:
    return record_csv.row(it.event, sequence=it.sequence, hash_=it.hash)


def _ocsf(it: Record) -> str:
    return json.dumps(ocsf.event(it.event, sequence=it.sequence, hash_=it.hash, version=_VERSION)) + "\n"


_WAYS: Final[dict[str, Callable[[Record], str]]] = {"jsonl": _jsonl, "csv": _csv, "ocsf": _ocsf}


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
