"""`mcp-authz holds`: calls that wait for a person, and the verdicts that people sign at a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mcp_authz import views
from mcp_authz.approvals import Context
from mcp_authz.cli.answering import (
    Said,
    Signing,
    answer,
    approvals_of,
    approve_alike,
    compared,
    find,
    open_page,
    say_how_to_answer,
)
from mcp_authz.cli.hold_bundle import export, verify
from mcp_authz.cli.hold_stats import stats
from mcp_authz.cli.invocation import asynchronous, command_line, installation
from mcp_authz.cli.options import Json
from mcp_authz.cli.output import local, next_step, print_json, say, shortener, table
from mcp_authz.cli.standing import Any_, Below, Calls, OneOf, Options, list_standing
from mcp_authz.cli.watching import watch
from mcp_authz.errors import Conflict, InputError
from mcp_authz.model import HeldCall, HoldState, Verdict
from mcp_authz.principals import PersonName
from mcp_authz.rules.display import displayed, for_whom, visible
from mcp_authz.rules.hold import was_sent_back

app = typer.Typer(rich_markup_mode=None, invoke_without_command=True, add_completion=False)

WAITING = (HoldState.PENDING, HoldState.APPROVED)

HoldText = Annotated[str, typer.Argument(metavar="HOLD", help="Its id, or enough of it.")]
As = Annotated[str, typer.Option("--as", metavar="PERSON", help="Who you are.")]
KeyFile = Annotated[
    Path, typer.Option("--key", metavar="FILE", readable=False, help="Your sealed key, made by `mcp-authz user key`.")
]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why; it is signed and goes on record.")]
Heard = Annotated[str, typer.Option(metavar="TEXT", help="Why; it is signed, goes on record, and the agent reads it.")]


@app.callback()
def group(ctx: typer.Context) -> None:
    """Held calls: look at them, approve or deny them; by itself, the list of those that wait."""
    if ctx.invoked_subcommand is None:
        list_(ctx)


@app.command("list")
@asynchronous
async def list_(
    ctx: typer.Context,
    all_: Annotated[bool, typer.Option("--all", help="Also those that are over.")] = False,
    json: Json = False,
) -> None:
    """List the calls that wait for a person, or were approved and have not run."""
    async with installation(ctx) as here:
        holds = await here.store.holds(states=None if all_ else WAITING)
    if json:
        print_json([views.held(held) for held in holds])
        return
    short = shortener(held.id for held in holds)
    table(
        ("HOLD", "STATE", "AGENT", "FOR", "TOOL", "PURPOSE", "ENDS"),
        (
            (
                short(held.id),
                held.state.value,
                held.actor,
                for_whom(held),
                held.tool,
                held.purpose,
                local(held.ended_at or held.expires_at),
            )
            for held in holds
        ),
        empty="no call was ever held" if all_ else "no call waits; `mcp-authz holds list --all` has those that did",
    )


app.command("watch")(watch)
app.command("standing")(list_standing)


@app.command()
@asynchronous
async def show(ctx: typer.Context, hold: HoldText, json: Json = False) -> None:
    """Show one held call: all that an approver is asked to approve, and what became of it."""
    async with installation(ctx) as here:
        held = await find(here.store, hold)
        context = await (await approvals_of(here)).context(held)
        if json:
            print_json({**views.held(held), "displayed": displayed(held), **views.context(context)})
            return
        _say(held, context)
        if held.state is HoldState.PENDING:
            await say_how_to_answer(ctx, here, held)
        elif held.verdicts:
            next_step(command_line(ctx, "holds", "export", held.id))


def _say(held: HeldCall, context: Context) -> None:
    say(displayed(held))
    say()
    for line in compared(held, context):
        say(line)
    say()
    for verdict in held.verdicts:
        say(_shown_verdict(verdict))
    ended = "" if held.ended_at is None else f" since {local(held.ended_at)}"
    state = "sent back" if was_sent_back(held) else held.state.value
    say(f"asked {local(held.asked_at)}, {state}{ended}")


@app.command()
@asynchronous
async def approve(
    ctx: typer.Context,
    hold: HoldText,
    *,
    as_: Annotated[str | None, typer.Option("--as", metavar="PERSON", help="Who you are; goes with --key.")] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            readable=False,
            help="Your sealed key, made by `mcp-authz user key`; without it, the page of the call opens.",
        ),
    ] = None,
    reason: Reason = "",
    minutes: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="N", help="For a request for a session: give fewer minutes. With --standing: how long."
        ),
    ] = None,
    tool: Annotated[
        list[str] | None, typer.Option(metavar="TOOL", help="For a request for a session: give only this; repeatable.")
    ] = None,
    standing: Calls = None,
    any_: Any_ = None,
    one_of: OneOf = None,
    below: Below = None,
) -> None:
    """Approve exactly this call: on its page, or signed with your key, whose passphrase is typed at the terminal."""
    alike = standing is not None or bool(any_ or one_of or below)
    terms = {**({} if minutes is None else {"minutes": minutes}), **({"tools": tool} if tool else {})}
    if key is None or as_ is None:
        if key is not None or as_ is not None or reason or terms or alike:
            raise InputError("to sign it here, give both --as and --key; by itself, the command opens the page")
        async with installation(ctx) as here:
            held = await find(here.store, hold)
            open_page(here, held)
        next_step(command_line(ctx, "holds", "show", held.id))
        return
    who = Signing(person=PersonName(as_), key=key)
    async with installation(ctx) as here:
        if alike:
            if tool:
                raise Conflict("a request for a session is approved by itself: leave --standing or --tool out")
            options = Options(calls=standing, minutes=minutes, any_=any_ or (), one_of=one_of or (), below=below or ())
            await approve_alike(ctx, here, hold, options, who, reason=reason)
            return
        held = await answer(ctx, here, hold, who, Said(approve=True, reason=reason, terms=terms))
    if held.state is HoldState.PENDING:
        say(f"{as_}'s approval of {held.id} is on record; it is not enough yet, see what it needs above")
    else:
        say(f"{held.id} is {held.state.value} by {as_}; the call runs once, when {held.actor} makes it again")
    next_step(command_line(ctx, "holds", "show", held.id))


@app.command()
@asynchronous
async def deny(ctx: typer.Context, hold: HoldText, *, as_: As, key: KeyFile, reason: Heard = "") -> None:
    """Deny this call, signed with your key; the passphrase is typed at the terminal."""
    async with installation(ctx) as here:
        said = Said(approve=False, reason=reason)
        held = await answer(ctx, here, hold, Signing(person=PersonName(as_), key=key), said)
    say(f"{held.id} is {held.state.value} by {as_}; the call does not run")
    next_step(command_line(ctx, "holds", "list"))


@app.command("send-back")
@asynchronous
async def send_back(
    ctx: typer.Context,
    hold: HoldText,
    *,
    as_: As,
    key: KeyFile,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="What the call should be instead; the agent reads it.")],
) -> None:
    """Deny this call and tell its agent what to call instead, signed with your key."""
    async with installation(ctx) as here:
        said = Said(approve=False, sent_back=True, reason=reason)
        held = await answer(ctx, here, hold, Signing(person=PersonName(as_), key=key), said)
    say(f"{held.id} is sent back by {as_}; it does not run, and {held.actor} reads your reason, not your name")
    next_step(command_line(ctx, "holds", "list"))


app.command("export")(export)
app.command("verify")(verify)
app.command("stats")(stats)


def _shown_verdict(verdict: Verdict) -> str:
    verb = "sent it back" if verdict.sent_back else "approved" if verdict.approve else "denied"
    because = f": {visible(verdict.reason)}" if verdict.reason else ""
    return f"{verdict.person} {verb} {local(verdict.given_at)} ({verdict.assurance.label}){because}"
