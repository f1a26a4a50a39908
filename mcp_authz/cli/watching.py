"""`mcp-authz holds watch`: held calls as they come and go, for whoever keeps a terminal open."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import anyio
import typer

from mcp_authz import views
from mcp_authz.cli.answering import page_of, say_how_to_answer
from mcp_authz.cli.invocation import asynchronous, installation, until_interrupted
from mcp_authz.cli.output import flush, local, note, print_json_line, say
from mcp_authz.installation import Installation
from mcp_authz.model import HeldCall, HoldId, HoldState
from mcp_authz.rules.display import displayed


@until_interrupted
@asynchronous
async def watch(
    ctx: typer.Context,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on each line.")] = False,
) -> None:
    """Show each call that waits for a person as it comes, and what became of it, until Ctrl-C."""
    async with installation(ctx) as here:
        waiting: dict[HoldId, HeldCall] = {}
        seen, first = 0, True
        while True:
            now = await _waiting(here)
            for hold in sorted(waiting.keys() - now.keys()):
                _tell_end(waiting[hold], await here.store.hold(hold), here.clock(), json)
            for hold, held in now.items():
                if hold not in waiting:
                    await _tell(ctx, here, held, json)
            if first and not json and not now:
                note("no call waits; each one is shown here when it comes. Stop with Ctrl-C")
            waiting, first = now, False
            flush()
            with anyio.move_on_after(_until_one_ends(now, here.clock())):
                seen = await here.store.changed(seen)


async def _waiting(here: Installation) -> dict[HoldId, HeldCall]:
    """What waits now, in the order in which it was asked; what has run out of time does not."""
    holds = await here.store.holds(states=[HoldState.PENDING])
    now = here.clock()
    return {held.id: held for held in sorted(holds, key=lambda held: held.asked_at) if now < held.expires_at}


def _until_one_ends(waiting: dict[HoldId, HeldCall], now: datetime) -> float | None:
    """Seconds until one of them runs out of time, which nobody writes down; None when none can."""
    return min(((held.expires_at - now).total_seconds() for held in waiting.values()), default=None)


async def _tell(ctx: typer.Context, here: Installation, held: HeldCall, json: bool) -> None:
    if json:
        print_json_line({**views.held(held), "displayed": displayed(held), "page": page_of(here, held)})
        return
    say(displayed(held))
    await say_how_to_answer(ctx, here, held)
    say()


def _tell_end(before: HeldCall, after: HeldCall | None, now: datetime, json: bool) -> None:
    held = before if after is None else after
    state = HoldState.EXPIRED if held.state is HoldState.PENDING else held.state
    if json:
        print_json_line({**views.held(held), "state": state.value})
        return
    by = sorted({verdict.person for verdict in held.verdicts})
    who = f" by {', '.join(by)}" if by and state is not HoldState.EXPIRED else ""
    say(f"{local(now)}  {held.id} is {state.value}{who}")
    say()
