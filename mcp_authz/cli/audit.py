"""`mcp-authz audit`: the log as sentences, as it grows, and as a chain that hangs together or does not."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated

import anyio
import typer

from mcp_authz import views
from mcp_authz.audit_reading import newest
from mcp_authz.cli import elsewhere_log
from mcp_authz.cli.audit_evidence import excerpted, read_keys
from mcp_authz.cli.audit_explain import explain, keys
from mcp_authz.cli.audit_export import export
from mcp_authz.cli.audit_options import with_filter
from mcp_authz.cli.audit_prune import prune
from mcp_authz.cli.audit_shown import say_shown
from mcp_authz.cli.audit_shred import shred
from mcp_authz.cli.backup import progress
from mcp_authz.cli.invocation import asynchronous, config_of, installation, named_gateway, until_interrupted
from mcp_authz.cli.options import Json
from mcp_authz.cli.output import flush, local, note, print_json, print_json_line, say, shortener, table
from mcp_authz.cli.verification import Proof, Verified, kept_checkpoints
from mcp_authz.cli.verification import verify as verify_chain
from mcp_authz.errors import NotFound
from mcp_authz.rules.audit_filter import Filter
from mcp_authz.rules.display import visible
from mcp_authz.rules.sentence import sentence
from mcp_authz.store.ports import Record

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, add_completion=False)

PAGE = 1000
FRESH = 0.3  # seconds between two looks at the log


@app.callback()
def group() -> None:
    """The audit log: read it, follow it, export it, verify it."""


@app.command("list")
@asynchronous
@with_filter
async def list_(
    ctx: typer.Context,
    *,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="How many records, the newest ones.")] = 50,
    wanted: Filter,
    json: Json = False,
) -> None:
    """List the newest records as sentences, oldest first."""
    if (there := named_gateway(ctx)) is not None:
        await elsewhere_log.records(there, wanted, limit, json=json)
        return
    async with installation(ctx) as here:
        records = await newest(here.store, wanted, limit)
    if json:
        print_json([views.record(record) for record in records])
        return
    short = shortener(record.event.call or "-" for record in records)
    table(
        ("TIME", "CALL", "WHAT"),
        ((local(record.event.at), short(record.event.call or "-"), sentence(record.event)) for record in records),
        empty="no records" if wanted == Filter() else "no records are like that",
    )
    if len(records) == limit and records[0].sequence > 1:
        note(f"these are the newest {limit}; --limit N for more")


@app.command()
@until_interrupted
@asynchronous
@with_filter
async def tail(
    ctx: typer.Context,
    *,
    limit: Annotated[int, typer.Option(metavar="N", min=0, help="How many records to begin with.")] = 10,
    wanted: Filter,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on each line.")] = False,
) -> None:
    """Follow the log: the newest ten records, then each new one, until Ctrl-C."""
    if (there := named_gateway(ctx)) is not None:
        await elsewhere_log.tail(there, wanted, limit, json=json)
        return
    async with installation(ctx) as here:
        after, _ = await here.store.head()
        for record in await newest(here.store, wanted, limit):
            if record.sequence <= after:
                _tell(record, json)
        while True:
            flush()
            await anyio.sleep(FRESH)
            for record in await here.store.records(after=after, limit=PAGE):
                after = record.sequence
                if wanted.has(record.event):
                    _tell(record, json)


app.command("export")(export)
app.command("explain")(explain)
app.command("shred")(shred)
app.command("keys")(keys)
app.command("prune")(prune)


@app.command()
def verify(
    ctx: typer.Context,
    *,
    store: Annotated[
        Path | None,
        typer.Option(metavar="FILE", readable=False, help="The store to verify, also a copy. Else the one in use."),
    ] = None,
    checkpoints: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Checkpoints that were kept elsewhere: the log is also what they say."),
    ] = None,
    excerpt: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Verify what `audit explain --bundle` wrote, and no store.")
    ] = None,
    keys_file: Annotated[
        Path | None, typer.Option("--keys", metavar="FILE", help="The public keys of checkpoints: `audit keys`.")
    ] = None,
    archive: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="What was pruned from the log, oldest first: verified with it as one chain."),
    ] = None,
    json: Json = False,
) -> None:
    """Verify the whole chain: every record follows from the one before, none is missing."""
    if (excerpt is not None or checkpoints is not None) and keys_file is None:
        raise typer.BadParameter("name the public keys with --keys FILE; `mcp-authz audit keys` prints them")
    if excerpt is not None and keys_file is not None:
        say_shown(excerpted(excerpt, read_keys(keys_file)), json=json)
        return
    path = store if store is not None else config_of(ctx).data / "store.db"
    if not path.exists():
        raise NotFound(f"there is no store at `{path}`; name one with --store FILE")
    proof = Proof(
        checkpoints=None if checkpoints is None else kept_checkpoints(checkpoints),
        keys=None if keys_file is None else read_keys(keys_file),
        archives=tuple(archive or ()),
    )
    with progress("records") as told:
        verified = verify_chain(path, told, proof)
    _say_verified(verified, json)
    if verified.broken is not None:
        raise typer.Exit(1)


def _say_verified(verified: Verified, json: bool) -> None:
    broken, pruned = verified.broken, verified.pruned
    if json:
        print_json(
            {
                "unbroken": broken is None,
                "records": verified.records,
                "first": verified.first,
                "head": verified.head.hex(),
                "broken": None if broken is None else {"sequence": broken.sequence, "why": broken.why},
                "checkpointed": verified.vouched,
                "pruned": None if pruned is None else asdict(pruned),
                "restored": [{"epoch": it.epoch, "at": it.at, "by": it.by} for it in verified.restores],
                "lost_checkpoints": verified.lost,
            }
        )
    elif broken is None:
        which = "" if verified.first == 1 else f" ({verified.first} to {verified.last})"
        say(f"{verified.records} record{'s'[: verified.records != 1]}{which}, unbroken")
        say(f"head {verified.head.hex()}")
        if pruned is not None:
            where = "archived nowhere" if pruned.archive is None else f"archived in {pruned.archive}"
            say(f"records up to {pruned.until} were pruned {_local(pruned.at)} by {pruned.by}, {where}")
        for restore in verified.restores:
            said = f"restored {_local(restore.at)} by {restore.by}: what followed record {restore.sequence} was lost"
            say(visible(f"{said}, and epoch {restore.epoch} began"))
        if verified.lost:
            say(f"{verified.lost} checkpoints are of what was lost by that: were all of these restores yours?")
        if verified.checkpoints is not None:
            say(f"{verified.checkpoints} checkpoints vouch for the first {verified.vouched}")
        else:
            say("that nobody wrote it anew takes checkpoints kept elsewhere: --checkpoints FILE --keys FILE")
    else:
        say(f"broken at record {broken.sequence}: {broken.why}" if broken.sequence else f"not proved: {broken.why}")
        say("what stands before it is whole; keep this file, and compare it with a copy or a backup")


def _tell(record: Record, json: bool) -> None:
    if json:
        print_json_line(views.record(record))
    else:
        call = record.event.call or "-"
        say(f"{local(record.event.at)}  {shortener([call])(call)}  {visible(sentence(record.event))}")


def _local(at: str) -> str:
    """A time of the log in the zone of who reads it; what is none, as it stands there: anybody may have written it."""
    try:
        return local(datetime.fromisoformat(at))
    except (ValueError, OverflowError):
        return visible(at)
