"""People who give standing approvals, with their own keys, as the command line does."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from mcp_authz.model import Assurance, HoldId, StandingId
from mcp_authz.principals import PersonName
from mcp_authz.rules.standing_approval import make_statement, read_freed
from mcp_authz.standing_approvals import Wish
from tests.rules.drawn import WILDCARD
from tests.world import World

ANY = WILDCARD


async def give(
    w: World, hold: HoldId, *, by: str, calls: int = 5, minutes: int = 30, reason: str = "", **freed: Any
) -> StandingId:
    """The hold is approved by this person, and the next calls like it; the id of the standing approval."""
    standing = w.running.standing_approvals
    until = w.clock() + timedelta(minutes=minutes)
    wish = Wish(calls=calls, freed={name: read_freed(one) for name, one in freed.items()}, until=until)
    terms = await standing.draft(hold, PersonName(by), wish, reason=reason)
    held = await w.store.hold(hold)
    statement = make_statement(terms, held, assurance=Assurance.SIGNED_IN, at=w.clock(), key=w.approvers[by])
    await standing.give_signed(terms, statement)
    return terms.id
