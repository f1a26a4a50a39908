"""`mcp-authz holds`: calls that wait for a person, and the verdicts that people sign at a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from mcp_authz.approvals import Approvals, terms_of
from mcp_authz.cli import keyfile, terminal, views
from mcp_authz.cli.invocation import advising, asynchronous, command_line, installation
from mcp_authz.cli.options import Json, the_one
from mcp_authz.cli.output import local, next_step, on_terminal, print_json, say, shortener, table
from mcp_authz.cli.watching import watch
from mcp_authz.errors import Conflict, SignatureRefused
from mcp_authz.installation import Installation
from mcp_authz.model import Assurance, HeldCall, HoldId, HoldState, Verdict
from mcp_authz.principals import PersonName
from mcp_authz.rules.display import displayed, for_whom, visible
from mcp_authz.rules.keys import PrivateKey, random_bytes
from mcp_authz.rules.session_request import sentence
from mcp_authz.rules.verdict import make_statement
from mcp_authz.store.ports import Store

app = typer.Typer(rich_markup_mode=None, invoke_without_command=True, add_completion=False)

WAITING = (HoldState.PENDING, HoldState.APPROVED)

HoldText = Annotated[str, typer.Argument(metavar="HOLD", help="Its id, or enough of it.")]
As = Annotated[str, typer.Option("--as", metavar="PERSON", help="Who you are.")]
KeyFile = Annotated[
    Path, typer.Option("--key", metavar="FILE", readable=False, help="Your sealed key, made by `mcp-authz user key`.")
]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="Why; it is signed and goes on record.")]


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


@app.command()
@asynchronous
async def show(ctx: typer.Context, hold: HoldText, json: Json = False) -> None:
    """Show one held call: all that an approver is asked to approve, and what became of it."""
    async with installation(ctx) as here:
        held = await _find(here.store, hold)
    if json:
        print_json({**views.held(held), "displayed": displayed(held)})
        return
    say(displayed(held))
    say()
    for verdict in held.verdicts:
        say(_shown_verdict(verdict))
    ended = "" if held.ended_at is None else f" since {local(held.ended_at)}"
    say(f"asked {local(held.asked_at)}, {held.state.value}{ended}")
    if held.state is HoldState.PENDING:
        next_step(command_line(ctx, "holds", "approve", held.id, "--as", "PERSON", "--key", "FILE"))


@app.command()
@asynchronous
async def approve(
    ctx: typer.Context,
    hold: HoldText,
    *,
    as_: As,
    key: KeyFile,
    reason: Reason = "",
    minutes: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="For a request for a session: give fewer minutes.")
    ] = None,
    tool: Annotated[
        list[str] | None, typer.Option(metavar="TOOL", help="For a request for a session: give only this; repeatable.")
    ] = None,
) -> None:
    """Approve exactly this call, signed with your key; the passphrase is typed at the terminal."""
    terms = {**({} if minutes is None else {"minutes": minutes}), **({"tools": tool} if tool else {})}
    async with installation(ctx) as here:
        held = await _answer(ctx, here, hold, person=PersonName(as_), key=key, reason=reason, approve=True, terms=terms)
    if held.state is HoldState.PENDING:
        say(f"{as_}'s approval of {held.id} is on record; it is not enough yet, see what it needs above")
    else:
        say(f"{held.id} is {held.state.value} by {as_}; the call runs once, when {held.actor} makes it again")
    next_step(command_line(ctx, "holds", "show", held.id))


@app.command()
@asynchronous
async def deny(ctx: typer.Context, hold: HoldText, *, as_: As, key: KeyFile, reason: Reason = "") -> None:
    """Deny this call, signed with your key; the passphrase is typed at the terminal."""
    async with installation(ctx) as here:
        held = await _answer(ctx, here, hold, person=PersonName(as_), key=key, reason=reason, approve=False, terms={})
    say(f"{held.id} is {held.state.value} by {as_}; the call does not run")
    next_step(command_line(ctx, "holds", "list"))


async def _answer(
    ctx: typer.Context,
    here: Installation,
    hold: str,
    *,
    person: PersonName,
    key: Path,
    reason: str,
    approve: bool,
    terms: Mapping[str, Any],
) -> HeldCall:
    """The verdict is heard: shown in full, signed by who types the passphrase, judged by `Approvals`."""
    held = await _find(here.store, hold)
    sealed = keyfile.sealed_key(key)
    _show(held)
    if held.state is not HoldState.PENDING:
        raise Conflict(f"hold `{held.id}` is {held.state.value}, it cannot be answered any more")
    if approve and not reason.strip() and any(rule.reason for rule in held.rules):
        raise Conflict("a rule of this hold wants to know why: add --reason TEXT")
    if terms:
        _show_terms(terms_of(held, terms), held)
    verb = "approve" if approve else "deny"
    passphrase = terminal.ask_passphrase(f"\npassphrase of {person}'s key, to {verb} exactly this: ")
    signer = keyfile.unsealed(key, sealed, passphrase)
    statement = make_statement(
        held,
        person=person,
        approve=approve,
        assurance=Assurance.SIGNED_IN,
        reason=reason,
        at=here.clock(),
        key=signer,
        terms=terms,
    )
    gateway_key = PrivateKey.from_seed(await here.store.secret("verdict-key", lambda: random_bytes(32)))
    approvals = Approvals(store=here.store, clock=here.clock, gateway_key=gateway_key)
    with advising(SignatureRefused, f"the keys of {person}: {command_line(ctx, 'user', 'show', person)}"):
        return await approvals.hear_signed(held.id, person, statement)


def _show_terms(narrowed: Mapping[str, Any], held: HeldCall) -> None:
    """What would be given instead of what was asked for stands under it."""
    text = f"\nyou give: {visible(sentence(narrowed, held.actor))}"
    say(text)
    if not on_terminal():
        terminal.show(text)


def _show(held: HeldCall) -> None:
    """Whoever types the passphrase has the call before them, wherever stdout leads."""
    say(displayed(held))
    if not on_terminal():
        terminal.show(displayed(held))


async def _find(store: Store, text: str) -> HeldCall:
    found = await store.hold(HoldId(the_one("hold", text, [held.id for held in await store.holds()])))
    assert found is not None  # noqa: S101 - it was there a moment ago, and holds are never removed
    return found


def _shown_verdict(verdict: Verdict) -> str:
    verb = "approved" if verdict.approve else "denied"
    because = f": {visible(verdict.reason)}" if verdict.reason else ""
    return f"{verdict.person} {verb} {local(verdict.given_at)} ({verdict.assurance.label}){because}"
