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
from mcp_authz.cli.standing import Any_, Below, Calls, OneOf, Options, list_standing
from mcp_authz.cli.watching import watch
from mcp_authz.errors import Conflict, SignatureRefused
from mcp_authz.installation import Installation
from mcp_authz.model import Assurance, HeldCall, HoldId, HoldState, Verdict
from mcp_authz.principals import PersonName
from mcp_authz.rules.display import displayed, for_whom, visible
from mcp_authz.rules.keys import PrivateKey, random_bytes
from mcp_authz.rules.session_request import sentence
from mcp_authz.rules.standing_approval import make_statement as make_standing
from mcp_authz.rules.standing_approval import sentence as sentence_of
from mcp_authz.rules.verdict import make_statement
from mcp_authz.standing_approvals import StandingApprovals
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
app.command("standing")(list_standing)


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
    """Approve exactly this call, signed with your key; the passphrase is typed at the terminal."""
    if standing is not None or any_ or one_of or below:
        if tool:
            raise Conflict("a request for a session is approved by itself: leave --standing or --tool out")
        options = Options(calls=standing, minutes=minutes, any_=any_ or (), one_of=one_of or (), below=below or ())
        await _approve_alike(ctx, hold, options, person=PersonName(as_), key=key, reason=reason)
        return
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
    _require_pending(held)
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
    approvals, _ = await _approvals(here)
    with advising(SignatureRefused, f"the keys of {person}: {command_line(ctx, 'user', 'show', person)}"):
        return await approvals.hear_signed(held.id, person, statement)


async def _approve_alike(
    ctx: typer.Context, hold: str, options: Options, *, person: PersonName, key: Path, reason: str
) -> None:
    """The call is approved, and the next ones like it; what that permits is shown before the passphrase is typed."""
    async with installation(ctx) as here:
        held = await _find(here.store, hold)
        sealed = keyfile.sealed_key(key)
        _show(held)
        _require_pending(held)
        approvals, gateway_key = await _approvals(here)
        alike = StandingApprovals(store=here.store, clock=here.clock, approvals=approvals, gateway_key=gateway_key)
        terms = await alike.draft(held.id, person, options.wish(held, here.clock()), reason=reason)
        _show_also(f"\nyou also approve: {sentence_of(terms)}")
        passphrase = terminal.ask_passphrase(f"\npassphrase of {person}'s key, to approve this and those: ")
        signer = keyfile.unsealed(key, sealed, passphrase)
        at = here.clock()
        statement = make_standing(terms, held, assurance=Assurance.SIGNED_IN, at=at, key=signer)
        with advising(SignatureRefused, f"the keys of {person}: {command_line(ctx, 'user', 'show', person)}"):
            held = await alike.give_signed(terms, statement)
    say(f"{held.id} is {held.state.value}, and {person}'s standing approval {terms.id} counts from now on")
    next_step(command_line(ctx, "holds", "standing"))


def _require_pending(held: HeldCall) -> None:
    if held.state is not HoldState.PENDING:
        raise Conflict(f"hold `{held.id}` is {held.state.value}, it cannot be answered any more")


async def _approvals(here: Installation) -> tuple[Approvals, PrivateKey]:
    gateway_key = PrivateKey.from_seed(await here.store.secret("verdict-key", lambda: random_bytes(32)))
    return Approvals(store=here.store, clock=here.clock, gateway_key=gateway_key), gateway_key


def _show_terms(narrowed: Mapping[str, Any], held: HeldCall) -> None:
    """What would be given instead of what was asked for stands under it."""
    _show_also(f"\nyou give: {visible(sentence(narrowed, held.actor))}")


def _show_also(text: str) -> None:
    """Whoever types the passphrase reads this too, wherever stdout leads."""
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
