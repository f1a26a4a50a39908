"""The log of a gateway elsewhere: the newest records, each new one, all of them, and the story of one call."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from itertools import pairwise
from typing import Any, Final

import anyio

from mcp_authz.audit_story import times_again, told_once
from mcp_authz.cli.elsewhere import elsewhere
from mcp_authz.cli.output import flush, local, note, print_json, print_json_line, say, shortener, table
from mcp_authz.client.administering import Elsewhere, Refused, segment
from mcp_authz.errors import Conflict
from mcp_authz.rules.audit_filter import Filter
from mcp_authz.rules.display import visible
from mcp_authz.rules.log import timestamp
from mcp_authz.rules.sentence import sentence
from mcp_authz.store.facts import Event, Record

_PAGE: Final = 500  # what one answer has at most
_PAGES: Final = 50  # answers that are asked for
_FRESH: Final = 2.0  # seconds between two looks at the log there


async def records(url: str, wanted: Filter, limit: int, *, json: bool) -> None:
    """The newest records that are wanted and may be read are printed, oldest first."""
    async with elsewhere(url) as there:
        _, found = await _newest(there, _query(wanted), limit)
        if json:
            print_json(found)
            return
        short = shortener(record["call"] or "-" for record in found)
        table(
            ("TIME", "CALL", "WHAT"),
            ((_local(record["at"]), short(record["call"] or "-"), _sentence(record)) for record in found),
            empty="no records are there that you may read and that are like that",
        )


async def tail(url: str, wanted: Filter, limit: int, *, json: bool) -> None:
    """The newest records that are wanted and may be read are printed, then each new one."""
    query = _query(wanted)
    async with elsewhere(url) as there:
        after, found = await _newest(there, query, limit)
        while True:
            for record in found:
                if json:
                    print_json_line(record)
                else:
                    say(f"{_local(record['at'])}  {_sentence(record)}")
            flush()
            await anyio.sleep(_FRESH)
            after, found = await _newest(there, {**query, "after": after}, _PAGE * _PAGES)


async def _newest(there: Elsewhere, query: Mapping[str, Any], limit: int) -> tuple[int, list[dict[str, Any]]]:
    """The number of the newest record, and the newest that are like this, oldest first; an answer after the other."""
    found: list[dict[str, Any]] = []
    before, head = None, None
    for _ in range(_PAGES):
        told = await there.read("/records", **query, before=before, limit=max(1, min(limit - len(found), _PAGE)))
        found[:0] = told["records"]
        before, head = int(told["reached"]), int(told["head"]) if head is None else head
        if len(found) >= limit or before <= query.get("after", 0) + 1:
            return head, found[-limit:] if limit else []
    note("there are more; ask for less, with --since for one")
    return head or 0, found


def _query(wanted: Filter) -> dict[str, Any]:
    query = {name: getattr(wanted, name) for name in ("agent", "person", "session", "tool", "text", "call")}
    query |= {"decision": wanted.decision, "kind": wanted.kind, "observed": "true" if wanted.observed else None}
    times = {"since": wanted.since, "until": wanted.until}
    return query | {name: None if at is None else timestamp(at) for name, at in times.items()}


async def story(url: str, call: str, *, json: bool) -> None:
    """One call's story is printed."""
    async with elsewhere(url) as there:
        found = await there.read(f"/calls/{segment(call)}")
        if json:
            print_json(found)
            return
        say(visible(found["story"]))
        say()
        for record, again in told_once(found["records"], _event):
            until = f"{times_again(len(again))} {_local(again[-1]['at'])}" if again else ""
            say(f"{_local(record['at'])}  {_sentence(record)}{until}")


class LogElsewhere:
    """What the log there had when it was first asked for, whatever is appended while it is read."""

    def __init__(self, there: Elsewhere, wanted: Filter, first: Mapping[str, Any]) -> None:
        self.head = int(first["head"])
        self.hash = bytes.fromhex(first["hash"])
        self._there = there
        self._query = _query(wanted)
        self._first = first

    async def pages(self) -> AsyncIterator[tuple[int, list[Record]]]:
        """Up to which number every record was looked at, and what is wanted of them: oldest first, each once.

        Raises:
            Conflict: records that were not read yet were pruned meanwhile.
            Refused: the answers do not go on, or not one behind the other.
        """
        reached, told = 0, self._first
        while True:
            records = [_record(one) for one in told["records"]]
            numbers = [reached, *(it.sequence for it in records), int(told["reached"]) + 1]
            if any(left >= right for left, right in pairwise(numbers)):
                raise Refused(f"the records that {self._there.url} answered are not in order; is it of this version?")
            reached = int(told["reached"])
            yield reached, records
            if reached >= self.head:
                return
            told = await self._there.read("/export", **self._query, after=reached, before=self.head + 1, limit=_PAGE)
            if int(told["first"]) > reached + 1:
                raise Conflict("the log there was pruned while it was read; begin again")
            if int(told["reached"]) <= reached:
                raise Refused(f"{self._there.url} does not answer what follows record {reached}; ask again")


@asynccontextmanager
async def log_elsewhere(url: str, wanted: Filter) -> AsyncIterator[LogElsewhere]:
    """The log there can be read from its beginning, where the person may write it for another program.

    Raises:
        Refused: they may not.
    """
    async with elsewhere(url) as there:
        yield LogElsewhere(there, wanted, await there.read("/export", **_query(wanted), limit=_PAGE))


def _record(told: Mapping[str, Any]) -> Record:
    return Record(
        sequence=int(told["sequence"]),
        event=_event(told),
        previous=bytes.fromhex(told["previous"]),
        hash=bytes.fromhex(told["hash"]),
    )


def _event(told: Mapping[str, Any]) -> Event:
    at = datetime.fromisoformat(told["at"])
    return Event(kind=told["kind"], at=at, call=told["call"], fields=told["fields"])


def _sentence(record: Mapping[str, Any]) -> str:
    return visible(sentence(_event(record)))


def _local(at: str) -> str:
    return local(datetime.fromisoformat(at))
