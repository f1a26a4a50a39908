"""What `holds approve --standing` permits beside the call itself, and the list of what people have permitted so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Any

import typer

from mcp_authz.cli.invocation import asynchronous, command_line, installation
from mcp_authz.cli.options import Json
from mcp_authz.cli.output import local, next_step, print_json, shortener, table
from mcp_authz.errors import InputError
from mcp_authz.model import HeldCall
from mcp_authz.principals import Session
from mcp_authz.rules import strict_json
from mcp_authz.rules.constraint import Constraint
from mcp_authz.rules.standing_approval import StandingApproval, read_freed, sentence
from mcp_authz.standing_approvals import Wish

Calls = Annotated[
    int | None, typer.Option("--standing", min=1, metavar="N", help="Also approve the next N calls like this one.")
]
Any_ = Annotated[
    list[str] | None,
    typer.Option("--any", metavar="ARGUMENT", help="There, this argument may be anything; repeatable."),
]
OneOf = Annotated[
    list[str] | None,
    typer.Option("--one-of", metavar="ARGUMENT=A,B", help="There, it is one of these, or of a JSON list; repeatable."),
]
Below = Annotated[
    list[str] | None,
    typer.Option("--below", metavar="ARGUMENT=PATH", help="There, it is this path or one below it; repeatable."),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What was asked for at the command line, not read yet."""

    calls: int | None
    minutes: int | None
    any_: Sequence[str]
    one_of: Sequence[str]
    below: Sequence[str]

    def wish(self, held: HeldCall, now: datetime) -> Wish:
        """Return what the person wants to approve beside this call.

        Raises:
            InputError: they do not say how many calls, or cannot be read.
        """
        if self.calls is None:
            raise InputError("say how many further calls you approve: add --standing N")
        freed: dict[str, Constraint] = {name: read_freed({"constraint_type": "wildcard"}) for name in self.any_}
        for text in self.one_of:
            name, said = _parts(text, "--one-of")
            freed[name] = read_freed({"constraint_type": "one_of", "values": _values(held, name, said)})
        for text in self.below:
            name, root = _parts(text, "--below")
            freed[name] = read_freed({"constraint_type": "under", "root": root})
        until = None if self.minutes is None else now + timedelta(minutes=self.minutes)
        return Wish(calls=self.calls, freed=freed, until=until)


def _parts(text: str, option: str) -> tuple[str, str]:
    name, equals, said = text.partition("=")
    if not (name and equals and said):
        raise InputError(f"`{option} {text}` lacks the argument or what it may be; write {option} ARGUMENT=...")
    return name, said


def _values(held: HeldCall, name: str, said: str) -> list[Any]:
    """The values of a list: texts where the call has a text, else JSON."""
    if said.startswith("["):
        listed = strict_json.parse_value(said.encode())
        return listed if isinstance(listed, list) else [listed]
    if isinstance(held.arguments.get(name), str):
        return said.split(",")
    return [strict_json.parse_value(one.encode()) for one in said.split(",")]


@asynchronous
async def list_standing(
    ctx: typer.Context,
    all_: Annotated[bool, typer.Option("--all", help="Also those that are over.")] = False,
    json: Json = False,
) -> None:
    """List standing approvals: what people have approved before it is asked for."""
    async with installation(ctx) as here:
        known = await here.store.standing_approvals()
        sessions = {session.id: session for session in await here.store.sessions()}
        now = here.clock()
    shown = [one for one in known if all_ or state_of(one, sessions.get(_session(one)), now) == "active"]
    if json:
        print_json([{**view(one), "state": state_of(one, sessions.get(_session(one)), now)} for one in shown])
        return
    short = shortener(one.terms.id for one in shown)
    table(
        ("APPROVAL", "BY", "LEFT", "STATE", "ENDS", "PERMITS"),
        (
            (
                short(one.terms.id),
                one.terms.person,
                f"{one.terms.most - one.used} of {one.terms.most}",
                state_of(one, sessions.get(_session(one)), now),
                local(one.terms.expires_at),
                sentence(one.terms),
            )
            for one in shown
        ),
        empty="nobody has given a standing approval" if all_ else "no standing approval counts now",
    )
    counts = [one for one in shown if state_of(one, sessions.get(_session(one)), now) == "active"]
    if counts:
        next_step(command_line(ctx, "revoke", "approval", short(counts[0].terms.id), "--reason", "TEXT"))


def state_of(standing: StandingApproval, session: Session | None, now: datetime) -> str:
    """What became of it: `active`, `revoked`, `used up` or `over`."""
    if standing.status != "active":
        return "revoked"
    if standing.used >= standing.terms.most:
        return "used up"
    over = session is None or session.status != "active" or now >= session.expires_at
    return "over" if over or standing.is_over(now) else "active"


def view(standing: StandingApproval) -> dict[str, Any]:
    """The standing approval as JSON."""
    terms = standing.terms
    return {
        "id": terms.id,
        "person": terms.person,
        "hold": terms.hold,
        "session": _session(standing),
        "permits": sentence(terms),
        "arguments": terms.pattern.to_json()["arguments"],
        "rules": [rule.name for rule in terms.rules],
        "assurance": standing.assurance.label,
        "reason": terms.reason,
        "calls": terms.most,
        "used": standing.used,
        "given_at": standing.given_at.isoformat(),
        "expires_at": terms.expires_at.isoformat(),
        "statement": standing.statement,
    }


def _session(standing: StandingApproval) -> Any:
    return standing.terms.pattern.bound["session"]
