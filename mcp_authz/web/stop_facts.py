"""What a page says before something is stopped: the calls that would end, and how many of what else, by name."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from mcp_authz.model import HoldId
from mcp_authz.rules.display import visible
from mcp_authz.running import RunningCall
from mcp_authz.store.ports import Store

NAMED = 50  # of each kind on the page; of the others there is a number


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """One thing that would stop; everything in it visible."""

    who: str = ""
    joins: str = ""  # the words between who and what
    what: str = ""
    id: str = ""
    since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stops:
    """How many of one kind would stop, and the first of them."""

    count: int
    one: str  # `held call`
    many: str
    named: tuple[Named, ...] = field(default=())
    says: str = ""  # what is to be known of them


def counted(named: Iterable[Named], one: str, many: str, says: str = "") -> Stops:
    """Return as many as there are, and the first of them by name."""
    all_ = tuple(named)
    return Stops(count=len(all_), one=one, many=many, named=all_[:NAMED], says=says if all_ else "")


async def held(store: Store, ids: Iterable[HoldId]) -> Stops:
    """Return the held calls with these ids; no more of them are read than are shown."""
    every = tuple(ids)
    known = [hold for id_ in every[:NAMED] if (hold := await store.hold(id_)) is not None]
    named = tuple(Named(who=visible(it.actor), joins="'s ", what=visible(it.tool), id=it.id) for it in known)
    return Stops(count=len(every), one="held call", many="held calls", named=named)


def run(running: Iterable[RunningCall]) -> Stops:
    """Return the calls that run."""
    return counted(
        [
            Named(who=visible(it.actor.removeprefix("agent:")), joins="'s ", what=visible(it.tool), since=it.since)
            for it in running
        ],
        "running call",
        "running calls",
        "What runs is cancelled, and may have happened all the same.",
    )
