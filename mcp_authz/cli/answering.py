"""A person's answer to a held call at the command line: the call before them, their passphrase, and the verdict."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import typer

from mcp_authz.approvals import Approvals, Context, terms_of
from mcp_authz.cli import keyfile, terminal
from mcp_authz.cli.invocation import advising, command_line
from mcp_authz.cli.options import the_one
from mcp_authz.cli.output import local, next_step, on_terminal, say
from mcp_authz.cli.standing import Options
from mcp_authz.errors import Conflict, SignatureRefused
from mcp_authz.installation import Installation
from mcp_authz.model import Assurance, HeldCall, HoldId, HoldState
from mcp_authz.principals import PersonName
from mcp_authz.rules.display import displayed, for_whom, shown_name, visible
from mcp_authz.rules.hold import is_eligible, is_enough, wants_reason
from mcp_authz.rules.session_request import sentence
from mcp_authz.rules.standing_approval import make_statement as make_standing
from mcp_authz.rules.standing_approval import sentence as sentence_of
from mcp_authz.rules.verdict import make_statement
from mcp_authz.standing_approvals import StandingApprovals
from mcp_authz.store.ports import Store
from mcp_authz.verdict_bundles import verdict_key

_LONGEST: Final = 200  # characters of a value in a comparison; the call above has it whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """Who answers, and where their sealed key is."""

    person: PersonName
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What they answer."""

    approve: bool
    sent_back: bool = False
    reason: str = ""
    terms: Mapping[str, Any] = field(default_factory=dict)


async def find(store: Store, text: str) -> HeldCall:
    """The hold that this is the id of, or the beginning of it.

    Raises:
        NotFound: there is none, or there are several.
    """
    found = await store.hold(HoldId(the_one("hold", text, await store.hold_ids())))
    assert found is not None  # noqa: S101 - it was there a moment ago, and holds are never removed
    return found


async def approvals_of(here: Installation) -> Approvals:
    """What hears verdicts in this installation."""
    return Approvals(store=here.store, clock=here.clock, gateway_key=await verdict_key(here.store))


def page_of(here: Installation, held: HeldCall) -> str:
    """The address where the call is shown, and answered by whoever signs in there."""
    return f"{here.config.public_url}/holds/{held.id}"


async def say_how_to_answer(ctx: typer.Context, here: Installation, held: HeldCall) -> None:
    """A person has read where the call's page is, and the command for it: with a key if one of a person would count."""
    say(f"page: {page_of(here, held)}")
    signed = ("--as", "PERSON", "--key", "FILE") if await _takes_a_key(here.store, held) else ()
    next_step(command_line(ctx, "holds", "approve", held.id, *signed))


async def _takes_a_key(store: Store, held: HeldCall) -> bool:
    """Whether somebody whom its rules name has a key, by which an approval would be enough."""
    for person in await store.people():
        named = any(is_eligible(person, held, rule) for rule in held.rules)
        if named and is_enough(person, held, Assurance.SIGNED_IN):
            keys = await store.keys_of(f"user:{person.name}")
            if any(key.status == "active" for key in keys):
                return True
    return False


def open_page(here: Installation, held: HeldCall) -> None:
    """The address of the call's page is printed, and the person's browser shows it where there is one."""
    url = page_of(here, held)
    say(f"answer it on its page: {url}")
    if sys.platform in {"darwin", "win32"} or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        import webbrowser

        with suppress(webbrowser.Error):
            webbrowser.open(url)


async def answer(ctx: typer.Context, here: Installation, hold: str, who: Signing, said: Said) -> HeldCall:
    """The verdict is heard: shown in full, signed by who types the passphrase, judged by `Approvals`."""
    held, approvals = await find(here.store, hold), await approvals_of(here)
    sealed = keyfile.sealed_key(who.key)
    await _show(held, approvals)
    _require_answerable(held, said)
    if said.approve:
        await _require_enough(here.store, held, who.person, said.reason)
    if said.terms:
        _show_also(f"\nyou give: {visible(sentence(terms_of(held, said.terms), held.actor))}")
    verb = "send back" if said.sent_back else "approve" if said.approve else "deny"
    passphrase = terminal.ask_passphrase(f"\npassphrase of {who.person}'s key, to {verb} exactly this: ")
    statement = make_statement(
        held,
        person=who.person,
        approve=said.approve,
        assurance=Assurance.SIGNED_IN,
        reason=said.reason,
        at=here.clock(),
        key=keyfile.unsealed(who.key, sealed, passphrase),
        terms=said.terms,
        sent_back=said.sent_back,
    )
    with advising(SignatureRefused, f"the keys of {who.person}: {command_line(ctx, 'user', 'show', who.person)}"):
        return await approvals.hear_signed(held.id, who.person, statement)


async def approve_alike(
    ctx: typer.Context, here: Installation, hold: str, options: Options, who: Signing, *, reason: str
) -> None:
    """The call is approved, and the next ones like it; what that permits is shown before the passphrase is typed."""
    held, approvals, person = await find(here.store, hold), await approvals_of(here), who.person
    sealed = keyfile.sealed_key(who.key)
    await _show(held, approvals)
    _require_answerable(held, Said(approve=True))
    await _require_enough(here.store, held, person, reason)
    alike = StandingApprovals(
        store=here.store, clock=here.clock, approvals=approvals, gateway_key=await verdict_key(here.store)
    )
    terms = await alike.draft(held.id, person, options.wish(held, here.clock()), reason=reason)
    _show_also(f"\nyou also approve: {sentence_of(terms)}")
    passphrase = terminal.ask_passphrase(f"\npassphrase of {person}'s key, to approve this and those: ")
    signer = keyfile.unsealed(who.key, sealed, passphrase)
    statement = make_standing(terms, held, assurance=Assurance.SIGNED_IN, at=here.clock(), key=signer)
    with advising(SignatureRefused, f"the keys of {person}: {command_line(ctx, 'user', 'show', person)}"):
        held = await alike.give_signed(terms, statement)
    say(f"{held.id} is {held.state.value}, and {person}'s standing approval {terms.id} counts from now on")
    next_step(command_line(ctx, "holds", "standing"))


def compared(held: HeldCall, context: Context) -> list[str]:
    """What helps to judge the call, in lines: how it differs from the last approved one, and when the same one ran."""
    lines = []
    if context.same_ran is not None and context.same_ran.ended_at is not None:
        lines.append(f"the same call ran {local(context.same_ran.ended_at)}")
    if context.last is None:
        return [*lines, f"no call of this kind by {held.actor} for {for_whom(held)} was approved before"]
    asked = f"the last approved call of this kind, asked {local(context.last.asked_at)}"
    if not context.differences:
        return [*lines, f"{asked}, had the same arguments"]
    return [
        *lines,
        f"{asked}, differs:",
        *(f"  {shown_name(one.name)}: {_value(one.before)} -> {_value(one.now)}" for one in context.differences),
    ]


def _value(value: tuple[Any, ...]) -> str:
    if not value:
        return "(not given)"
    text = visible(json.dumps(value[0], ensure_ascii=False))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}... ({len(text)} characters)"


def _require_answerable(held: HeldCall, said: Said) -> None:
    may = held.state is HoldState.PENDING or (held.state is HoldState.APPROVED and not said.approve)
    if not may:
        raise Conflict(f"hold `{held.id}` is {held.state.value}, it cannot be answered any more")


async def _require_enough(store: Store, held: HeldCall, name: PersonName, reason: str) -> None:
    """Nobody types a passphrase in vain: an approval with a key that would not count is refused before.

    Raises:
        Conflict: a rule of theirs asks for a passkey, or for a reason.
    """
    person = await store.person(name)
    if person is not None and not is_enough(person, held, Assurance.SIGNED_IN):
        raise Conflict(
            f"a rule of this hold takes a passkey: approve it on its page, mcp-authz holds approve {held.id}"
        )
    if person is not None and not reason.strip() and wants_reason(person, held):
        raise Conflict("a rule of this hold wants to know why: add --reason TEXT")


async def _show(held: HeldCall, approvals: Approvals) -> None:
    """Whoever types the passphrase has the call before them, wherever stdout leads."""
    text = "\n".join([displayed(held), "", *compared(held, await approvals.context(held))])
    _show_also(text)


def _show_also(text: str) -> None:
    """Whoever types the passphrase reads this too, wherever stdout leads."""
    say(text)
    if not on_terminal():
        terminal.show(text)
