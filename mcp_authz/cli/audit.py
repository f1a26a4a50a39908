"""`mcp-authz audit`: the log as sentences, as it grows, and as a chain that hangs together or does not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, get_args

import anyio
import typer
from rich.console import Console
from rich.progress import Progress

from mcp_authz.audit import sentence
from mcp_authz.cli import views
from mcp_authz.cli.invocation import asynchronous, config_of, installation, until_interrupted
from mcp_authz.cli.options import Json
from mcp_authz.cli.output import flush, local, print_json, print_json_line, say, shortener, table
from mcp_authz.cli.verification import Verified
from mcp_authz.cli.verification import verify as verify_chain
from mcp_authz.errors import InputError, NotFound
from mcp_authz.rules.display import visible
from mcp_authz.rules.duration import parse_duration
from mcp_authz.store.ports import EventKind, Record, Store

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, add_completion=False)

LONG = 5000  # records; verifying fewer is over before a progress bar could be read
PAGE = 1000
FRESH = 0.3  # seconds between two looks at the log

AgentName = Annotated[str | None, typer.Option("--agent", metavar="AGENT", help="Only what this agent had a part in.")]
Call = Annotated[str | None, typer.Option(metavar="ID", help="Only records of this call or hold; enough of its id.")]
Kind = Annotated[EventKind | None, typer.Option(metavar="KIND", help=f"Only one of: {', '.join(get_args(EventKind))}.")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which records are asked for."""

    agent: str | None = None
    call: str | None = None
    kind: EventKind | None = None
    since: datetime | None = None
    observed: bool = False  # only calls that ran because their server is in observe mode

    def has(self, record: Record) -> bool:
        """Whether this is one of them."""
        event = record.event
        if self.kind is not None and event.kind != self.kind:
            return False
        if self.observed and "observed" not in event.fields:
            return False
        if self.since is not None and event.at < self.since:
            return False
        if self.call is not None and not any(id_.startswith(self.call) for id_ in _calls(record)):
            return False
        return self.agent is None or f"agent:{self.agent}" in _parties(event.fields)


@app.callback()
def group() -> None:
    """The audit log: read it, follow it, verify it."""


@app.command("list")
@asynchronous
async def list_(
    ctx: typer.Context,
    *,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="How many records, the newest ones.")] = 50,
    agent: AgentName = None,
    call: Call = None,
    kind: Kind = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME|DURATION", help="Only after 2026-01-31, 2026-01-31T12:00 or 2h ago.")
    ] = None,
    observed: Annotated[
        bool, typer.Option("--observed", help="Only calls that ran in observe mode and would not have otherwise.")
    ] = False,
    json: Json = False,
) -> None:
    """List the newest records as sentences, oldest first."""
    async with installation(ctx) as here:
        start = None if since is None else moment(since, here.clock())
        of = "decision" if observed and kind is None else kind
        wanted = Wanted(agent=agent, call=call, kind=of, since=start, observed=observed)
        records = await newest(here.store, wanted, limit)
    if json:
        print_json([views.record(record) for record in records])
        return
    short = shortener(record.event.call or "-" for record in records)
    table(
        ("TIME", "CALL", "WHAT"),
        ((local(record.event.at), short(record.event.call or "-"), sentence(record.event)) for record in records),
        empty="no records" if wanted == Wanted() else "no records are like that",
    )


@app.command()
@until_interrupted
@asynchronous
async def tail(
    ctx: typer.Context,
    *,
    agent: AgentName = None,
    call: Call = None,
    kind: Kind = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on each line.")] = False,
) -> None:
    """Follow the log: the newest ten records, then each new one, until Ctrl-C."""
    wanted = Wanted(agent=agent, call=call, kind=kind)
    async with installation(ctx) as here:
        after, _ = await here.store.head()
        for record in await newest(here.store, wanted, 10):
            if record.sequence <= after:
                _tell(record, json)
        while True:
            flush()
            await anyio.sleep(FRESH)
            for record in await here.store.records(after=after, limit=PAGE):
                after = record.sequence
                if wanted.has(record):
                    _tell(record, json)


@app.command()
def verify(
    ctx: typer.Context,
    store: Annotated[
        Path | None,
        typer.Option(metavar="FILE", readable=False, help="The store to verify, also a copy. Else the one in use."),
    ] = None,
    json: Json = False,
) -> None:
    """Verify the whole chain: every record follows from the one before, none is missing."""
    path = store if store is not None else config_of(ctx).data / "store.db"
    if not path.exists():
        raise NotFound(f"there is no store at `{path}`; name one with --store FILE")
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("records", total=None, visible=False)
        verified = verify_chain(
            path, lambda done, of: progress.update(bar, completed=done, total=of, visible=of >= LONG)
        )
    _say_verified(verified, json)
    if verified.broken is not None:
        raise typer.Exit(1)


def _say_verified(verified: Verified, json: bool) -> None:
    broken = verified.broken
    if json:
        view = None if broken is None else {"sequence": broken.sequence, "why": broken.why}
        print_json(
            {"unbroken": broken is None, "records": verified.records, "head": verified.head.hex(), "broken": view}
        )
    elif broken is None:
        say(f"{verified.records} record{'s'[: verified.records != 1]}, unbroken")
        say(f"head {verified.head.hex()}")
    else:
        say(f"broken at record {broken.sequence}: {broken.why}")
        say("what stands before it is whole; keep this file, and compare it with a copy or a backup")


async def newest(store: Store, wanted: Wanted, limit: int) -> list[Record]:
    """The newest records that are wanted, oldest first, read backwards page by page."""
    found: list[Record] = []
    until, _ = await store.head()
    while until > 0 and len(found) < limit:
        after = max(0, until - PAGE)
        page = await store.records(after=after, limit=until - after, kind=wanted.kind)
        found[:0] = [record for record in page if record.sequence <= until and wanted.has(record)]
        if wanted.since is not None and page and page[-1].event.at < wanted.since:
            break
        until = after
    return found[-limit:]


def _tell(record: Record, json: bool) -> None:
    if json:
        print_json_line(views.record(record))
    else:
        call = record.event.call or "-"
        say(f"{local(record.event.at)}  {shortener([call])(call)}  {visible(sentence(record.event))}")


def _calls(record: Record) -> list[str]:
    return [str(id_) for id_ in (record.event.call, record.event.fields.get("hold")) if id_ is not None]


def _parties(fields: Mapping[str, object]) -> set[str]:
    """Everybody a record names."""
    chain = fields.get("chain")
    named = [*chain] if isinstance(chain, list) else []
    return {str(name) for name in [*named, *(fields.get(key) for key in ("actor", "agent", "holder", "from", "by"))]}


def moment(text: str, now: datetime) -> datetime:
    """A moment: so long ago, or a date or time, in the local zone unless it names one."""
    try:
        return now - parse_duration(text, at_most=timedelta(days=3650))
    except InputError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"`{text}` is neither a time nor a duration; write 2026-01-31T12:00 or 2h") from None
    return at.astimezone() if at.tzinfo is None else at
