"""Calls that run: let through by a process that lives, and no outcome on record yet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from mcp_authz import grounds
from mcp_authz.grounds import Grounds, Known
from mcp_authz.model import HoldId
from mcp_authz.principals import LinkId, Session, SessionId
from mcp_authz.store.ports import Event, Record, Store


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningCall:
    """A call with its tool server, and what it stands on."""

    call: str
    since: datetime
    actor: str
    tool: str
    server: str
    grounds: Grounds
    hold: HoldId | None = None  # that it was approved as


async def running_calls(store: Store) -> tuple[RunningCall, ...]:
    """Every call that runs now, of whichever process on the store, oldest first."""
    begun = [record for call in await store.under_way() if (record := await _permit(store, call)) is not None]
    events = [record.event for record in sorted(begun, key=lambda record: record.sequence)]
    named = dict.fromkeys(SessionId(str(event.fields.get("session"))) for event in events)
    known = await known_of(store, [it for id_ in named if (it := await store.session(id_)) is not None])
    return tuple([await _running(store, event, known) for event in events])


def stands_on(call: RunningCall, kind: str, names: frozenset[str]) -> bool:
    """Whether the call would be cancelled if these things of one kind were revoked, or switched off."""
    return kind == "everything" or call.grounds.meet(kind, names)


async def known_of(store: Store, sessions: Iterable[Session]) -> Known:
    """What it takes to say what links of these sessions stand on; a store has many more of them that are over."""
    known = {session.id: session for session in sessions}
    grants = [await store.grant(id_) for id_ in {session.grant for session in known.values()}]
    return Known(
        agents={agent.name: agent for agent in await store.agents()},
        sessions=known,
        clients={grant.id: grant.client for grant in grants if grant is not None},
    )


async def _permit(store: Store, call: str) -> Record | None:
    """The record by which the call was let through."""
    found = [record for record in await store.records(call=call) if record.event.fields.get("decision") == "permit"]
    return found[-1] if found else None


async def _running(store: Store, event: Event, known: Known) -> RunningCall:
    fields = event.fields
    named = {kind: frozenset({str(fields[kind])}) for kind in ("key", "tool", "server") if fields.get(kind)}
    stands = Grounds(names=named)
    session = known.sessions.get(SessionId(str(fields.get("session"))))
    if session is not None:
        links = [link for id_ in fields.get("links", ()) if (link := await store.link(LinkId(id_))) is not None]
        stands |= grounds.of_chain(session, links, known)
    hold = None
    if isinstance(approval := fields.get("approval"), Mapping):
        hold = HoldId(str(approval.get("hold")))
        stands |= await _approved(store, hold)
    return RunningCall(
        call=str(event.call),
        since=event.at,
        actor=str(fields.get("actor")),
        tool=str(fields.get("tool")),
        server=str(fields.get("server")),
        grounds=stands,
        hold=hold,
    )


async def _approved(store: Store, hold: HoldId) -> Grounds:
    held = await store.hold(hold)
    if held is None:
        return Grounds(names={})
    people = {str(it.person): who for it in held.verdicts if (who := await store.person(it.person)) is not None}
    return grounds.of_approval(held, people)
