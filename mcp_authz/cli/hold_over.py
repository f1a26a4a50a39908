"""Says of a held call that waits no longer what became of it, and what would end it where it runs."""

from __future__ import annotations

import typer

from mcp_authz.cli.invocation import command_line
from mcp_authz.cli.output import next_step, say
from mcp_authz.installation import Installation
from mcp_authz.model import HeldCall, HoldId, HoldState
from mcp_authz.rules.standing_approval import StandingApproval
from mcp_authz.running import running_calls
from mcp_authz.store.ports import Store

_RAN = {
    HoldState.DONE: "its call has run already",
    HoldState.FAILED: "its call has run already, and failed",
    HoldState.UNKNOWN: "its call has begun, and nobody can say how it ended",
}


async def say_over(ctx: typer.Context, here: Installation, hold: HoldId) -> None:
    """A person has read why revoking this hold changed nothing, and what to revoke instead.

    A call that runs ends with its link, its session, or a standing approval that it stands on. One that has run is
    over; a standing approval that it was approved by may let others run.
    """
    held = await here.store.hold(hold)
    assert held is not None  # noqa: S101 - holds are never removed
    standing = await _standing_on(here.store, held)
    if held.state is HoldState.CLAIMED:
        say(f"hold {hold} waits no longer, its call runs already; nothing was changed")
        ends = [*await _what_ends(here.store, held), *(("approval", it.terms.id) for it in standing)]
        say("the call ends with: " + ", or ".join(f"{kind} {name}" for kind, name in ends))
    else:
        say(f"hold {hold} waits no longer, {_RAN.get(held.state, f'it is {held.state.value}')}; nothing was changed")
        ends = [("approval", it.terms.id) for it in standing if not it.is_over(here.clock())]
        for _, name in ends:
            say(f"calls like it run without being held, by approval {name}")
    for kind, name in ends[:1]:
        next_step(command_line(ctx, "revoke", kind, name, "--reason", "WHY"))


async def _what_ends(store: Store, held: HeldCall) -> list[tuple[str, str]]:
    """The link and the session that the running call ends with."""
    running = next((call for call in await running_calls(store) if call.hold == held.id), None)
    names = frozenset[str]() if running is None else running.grounds.names.get("link", frozenset())
    links = [link for link in await store.links(held.session) if link.id in names]
    leaf = [("link", link.id) for link in links if link.depth == max(it.depth for it in links)]
    return [*leaf, ("session", held.session)]


async def _standing_on(store: Store, held: HeldCall) -> list[StandingApproval]:
    """The standing approvals by which it was approved, without those that were revoked."""
    named = {verdict.standing for verdict in held.verdicts if verdict.approve}
    every = await store.standing_approvals() if named - {None} else ()
    return [it for it in every if it.terms.id in named and it.status == "active"]
