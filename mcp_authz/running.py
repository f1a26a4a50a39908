"""Calls that run, as the log knows them: let through a while ago, and no outcome on record yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from mcp_authz.rules.audit_filter import Filter
from mcp_authz.store.ports import Store

LONGEST: Final = timedelta(hours=1)  # which is the longest `call_timeout` that a server may have
READ: Final = 20_000  # records of each kind, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningCall:
    """A call with its tool server, or one whose gateway was killed while it was there."""

    call: str
    since: datetime
    actor: str
    tool: str
    server: str
    known: Mapping[str, Any]  # the members of its decision record


async def running_calls(store: Store, now: datetime) -> tuple[RunningCall, ...]:
    """Every call that runs now, oldest first; of those that no process ended in order, those of the last hour too."""
    since = now - LONGEST
    permits = await store.search(Filter(kind="decision", decision="permit", since=since), limit=READ)
    ended = {record.event.call for record in await store.search(Filter(kind="outcome", since=since), limit=READ)}
    return tuple(
        RunningCall(
            call=event.call,
            since=event.at,
            actor=str(event.fields.get("actor")),
            tool=str(event.fields.get("tool")),
            server=str(event.fields.get("server")),
            known=event.fields,
        )
        for event in (record.event for record in permits)
        if event.call is not None and event.call not in ended
    )


def stands_on(call: RunningCall, kind: str, names: frozenset[str]) -> bool:
    """Whether the call would be cancelled if these things of one kind were revoked, or switched off."""
    known = call.known
    match kind:
        case "link":
            return not names.isdisjoint(known.get("links", ()))
        case "session" | "key" | "client" | "tool" | "server":
            return known.get(kind) in names
        case "agent":
            return not {f"agent:{name}" for name in names}.isdisjoint((call.actor, *known.get("chain", ())))
        case "person":
            return known.get("subject") in {f"user:{name}" for name in names}
        case "everything":
            return True
    return False
