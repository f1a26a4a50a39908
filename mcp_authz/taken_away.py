"""What was taken away while a call ran, where the call ended by that: so it is told who ended it, and why."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from mcp_authz.rules.audit_filter import Filter
from mcp_authz.store.ports import Log, Record

_MOST: Final = 500  # records of one kind behind the decision; who ends that much while one call runs is told in the log


async def taken_away(log: Log, records: Iterable[Record], readable: Filter) -> tuple[Record, ...]:
    """Return what was revoked or stopped while the call of these records ran, if that is what ended it, oldest first.

    What names something that the call itself names comes alone; without such, what somebody or some session of the
    call lost meanwhile. Only what is readable is among it.
    """
    span = _ran(records)
    if span is None:
        return ()
    decision, outcome = span
    behind = [
        record
        for kind in ("revocation", "administration")
        for record in await log.records(after=decision.sequence, kind=kind, limit=_MOST)
        if record.sequence < outcome.sequence and readable.has(record.event)
    ]
    its_own = _things(decision.event.fields)
    for names in (_named, _concerned):
        if found := [record for record in behind if not its_own.isdisjoint(names(record.event.fields))]:
            return tuple(found)
    return ()


def _ran(records: Iterable[Record]) -> tuple[Record, Record] | None:
    """The decision and the outcome of the call that was ended; a hold's call runs once."""
    decisions: dict[str | None, Record] = {}
    for record in records:
        call, fields = record.event.call, record.event.fields
        if record.event.kind == "decision":
            decisions[call] = record
        elif record.event.kind == "outcome" and fields.get("ended_by") == "revocation" and call in decisions:
            return decisions[call], record
    return None


def _things(decided: Mapping[str, Any]) -> set[tuple[str, str]]:
    """What the call names, by kind."""
    names = {(kind, str(decided[kind])) for kind in ("session", "key", "tool", "server") if kind in decided}
    names |= {("link", str(link)) for link in decided.get("links") or ()}
    for principal in (decided.get("subject"), *(decided.get("chain") or ())):
        kind, _, name = str(principal).partition(":")
        names |= {("person" if kind == "user" else kind, name), ("everything", str(principal))}
    return names | {("everything", "all calls"), ("use", "issuer")}


def _named(fields: Mapping[str, Any]) -> set[tuple[str, str]]:
    """What was taken away; of the gateway's own keys, which every token stands on, their use."""
    if "of" in fields:
        return {(str(fields["of"]), str(fields.get("name")))}
    is_at_once = "use" in fields and fields.get("signs_from") == fields.get("replaced_count_until")
    return {("use", str(fields["use"]))} if is_at_once else set()


def _concerned(fields: Mapping[str, Any]) -> set[tuple[str, str]]:
    """Who lost something by it, and which sessions did."""
    if "of" not in fields:
        return set()
    names = {("session", str(one)) for one in fields.get("sessions") or ()}
    return names | {("everything", str(one)) for part in ("agents", "people") for one in fields.get(part) or ()}
