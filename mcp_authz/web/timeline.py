"""The audit log as a page: what happened, newest first, with filters, and one call's story."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from itertools import groupby
from typing import Final, get_args
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mcp_authz import limits
from mcp_authz.audit_story import story, times_again, told_once
from mcp_authz.rules.administration import reaches_everything
from mcp_authz.rules.audit_query import DECISIONS, asked_for, number
from mcp_authz.rules.display import visible
from mcp_authz.rules.sentence import sentence
from mcp_authz.store.ports import EventKind, Record
from mcp_authz.web.desk import Desk

SHOWN: Final = 50  # records on a page
_KINDS: Final = get_args(EventKind)
_OF_CALLS: Final = frozenset({"decision", "outcome", "approval"})
_STATES: Final[Mapping[str, tuple[str, str]]] = {  # what the mark beside a record says, and the state it looks like
    "permit": ("permitted", "done"),
    "hold": ("held", "pending"),
    "deny": ("denied", "denied"),
    "replay": ("replayed", ""),
    "approve": ("approved", "approved"),
    "send-back": ("sent back", "denied"),
    "tool-error": ("tool error", "failed"),
    "error": ("failed", "failed"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownRecord:
    """One record as a line, with everything that is in it behind the line."""

    sequence: int
    at: datetime
    call: str | None
    mark: str
    state: str
    says: str
    fields: str
    hash: str
    again: str = ""  # that it was asked for again, and
    until: datetime | None = None  # when last


class Timeline:
    """Shows records to those who may read them."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    @property
    def routes(self) -> list[Route]:
        """Where the requests come in."""
        return [Route("/audit", self.timeline), Route("/audit/calls/{call}", self.call)]

    async def timeline(self, request: Request) -> Response:
        """The newest records that the person may read and asks for, newest first."""
        actor = await self._desk.actor(request)
        asked = {name: value for name, value in request.query_params.items() if value}
        kept = {name: value for name, value in asked.items() if name != "before"}
        found = await self._desk.administration.records(
            actor,
            asked_for(kept, _KINDS),
            limit=SHOWN,
            before=number("before", asked.get("before")),
            at_most=limits.RECORDS_LOOKED_AT,
        )
        return await self._desk.page(
            "timeline",
            actor,
            everything=reaches_everything("audit list", actor.roles),
            days=list(_days(reversed(found.records))),
            asked=asked,
            is_filtered=bool(kept),
            kinds=_KINDS,
            decisions=DECISIONS,
            reached=found.reached,
            newest=None if "before" not in asked else f"/audit?{urlencode(kept)}".rstrip("?"),
            older=None if found.reached <= 1 else f"/audit?{urlencode({**kept, 'before': found.reached})}",
        )

    async def call(self, request: Request) -> Response:
        """One call, from what was asked to what came of it."""
        actor = await self._desk.actor(request)
        found = await self._desk.administration.story(actor, request.path_params["call"])
        return await self._desk.page(
            "call",
            actor,
            call=request.path_params["call"],
            story=story([record.event for record in found]),
            records=[_shown_once(*one) for one in told_once(found, lambda record: record.event)],
        )


def shown(record: Record) -> ShownRecord:
    """Return a record as the page shows it."""
    event = record.event
    said = str(event.fields.get("verdict") or event.fields.get("decision") or event.fields.get("outcome") or "")
    mark, state = _STATES.get(said, (said or event.kind, said))
    if event.kind not in _OF_CALLS:
        mark, state = event.kind, "denied" if said == "deny" else ""
    return ShownRecord(
        sequence=record.sequence,
        at=event.at,
        call=event.call,
        mark=visible(mark),
        state=state if state.isalpha() else "",
        says=visible(sentence(event).removeprefix(f"{event.kind}: ")),
        fields="\n".join(map(visible, json.dumps(dict(event.fields), ensure_ascii=False, indent=2).split("\n"))),
        hash=record.hash.hex(),
    )


def _shown_once(record: Record, again: tuple[Record, ...]) -> ShownRecord:
    """A record of a call as its own page shows it: what only repeats it is counted, and stands in the timeline."""
    once = shown(record)
    return replace(once, again=times_again(len(again)), until=again[-1].event.at) if again else once


def _days(records: Iterable[Record]) -> Iterator[tuple[date, list[ShownRecord]]]:
    for day, ones in groupby(records, lambda record: record.event.at.astimezone(UTC).date()):
        yield day, [shown(one) for one in ones]
