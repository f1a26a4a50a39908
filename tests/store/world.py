"""A person, two agents, one delegation, one tool, and a clock that is told the time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from mcp_authz.model import ApprovalRule, Assurance, Hazard, HeldCall, HoldId, HoldState, ToolName, Verdict
from mcp_authz.principals import (
    Agent,
    AgentName,
    Grant,
    GrantId,
    Key,
    Link,
    LinkId,
    Mode,
    Person,
    PersonName,
    Session,
    SessionId,
    Thumbprint,
)
from mcp_authz.rules.constraint import parse_tools
from mcp_authz.rules.scope import Scope
from mcp_authz.store.ports import Admission, Event, EventKind, Once, Pin, Store

START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)

ALICE, BOB = PersonName("alice"), PersonName("bob")
PLANNER, CODER = AgentName("planner"), AgentName("coder")
GRANT, SESSION, ROOT, LEAF = GrantId("g_1"), SessionId("s_1"), LinkId("l_root"), LinkId("l_leaf")
DIGEST = b"\x01" * 32


class Time:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def pass_(self, duration: timedelta) -> None:
        self.now += duration


def event(kind: EventKind = "administration", call: str | None = None, **fields: Any) -> Event:
    return Event(kind=kind, at=START, call=call, fields=fields)


def person(name: str = ALICE) -> Person:
    return Person(name=PersonName(name), groups=frozenset({"developers"}))


def agent(name: str = CODER) -> Agent:
    return Agent(
        name=AgentName(name),
        owner=ALICE,
        labels={"environment": "staging", "team": "ü"},
        roles=frozenset({"reader"}),
        ceiling=frozenset({Scope("files:read"), Scope("pr:*")}),
        depth=3,
        delegates_to=frozenset({CODER}),
        interactive=True,
    )


def key(holder: str, name: str = "1") -> Key:
    """A key as the store sees one: unique bytes; whether they are a point is not the store's business."""
    raw = f"{holder}/{name}".encode().ljust(32, b"\0")[:32]
    return Key(thumbprint=Thumbprint(f"{holder}/{name}"), holder=holder, raw=raw, added_at=START)


def grant(id_: str = GRANT, holder: str = PLANNER) -> Grant:
    return Grant(
        id=GrantId(id_),
        subject=ALICE,
        agent=AgentName(holder),
        scope=frozenset({Scope("files:read"), Scope("files:write")}),
        tools=parse_tools({"files__read": {"path": {"constraint_type": "under", "root": "/srv"}}}),
        granted_at=START,
        expires_at=START + 90 * 24 * HOUR,
    )


def session(id_: str = SESSION, of: str = GRANT, holder: str = PLANNER) -> Session:
    return Session(
        id=SessionId(id_),
        grant=GrantId(of),
        subject=ALICE,
        agent=AgentName(holder),
        mode=Mode.DELEGATED,
        purpose="fix issue 41",
        started_at=START,
        expires_at=START + 10 * HOUR,
        last_used_at=START,
    )


def link(id_: str = LEAF, parent: str | None = ROOT, holder: str = CODER, of: str = SESSION, depth: int = 1) -> Link:
    return Link(
        id=LinkId(id_),
        session=SessionId(of),
        parent=None if parent is None else LinkId(parent),
        holder=AgentName(holder),
        scope=frozenset({Scope("files:read")}),
        tools=None,
        depth=depth,
        max_depth=7,
        issued_at=START,
        expires_at=START + 9 * HOUR,
        reason="the part in Python",
    )


def root(id_: str = ROOT, holder: str = PLANNER, of: str = SESSION) -> Link:
    return link(id_, None, holder, of, 0)


def pin(tool: str = "read", digest: bytes = DIGEST) -> Pin:
    return Pin(
        server="files",
        tool=tool,
        digest=digest,
        definition={"name": tool, "inputSchema": {"type": "object"}},
        seen_at=START,
    )


def admission(call: str = "c_1", **changes: Any) -> Admission:
    asked = Admission(
        event=event("decision", call, decision="permit", actor="agent:coder"),
        agent=CODER,
        key=key("agent:coder").thumbprint,
        subject=ALICE,
        grant=GRANT,
        session=SESSION,
        links=(ROOT, LEAF),
        server="files",
        tool="read",
        definition_digest=DIGEST,
        once=(once(f"proof of {call}"),),
    )
    return replace(asked, **changes)


def once(id_: str) -> Once:
    return Once(kind="proof", id=id_, expires_at=START + HOUR)


def held(id_: str = "h_1", digest: bytes = DIGEST, **changes: Any) -> HeldCall:
    call = HeldCall(
        id=HoldId(id_),
        state=HoldState.PENDING,
        digest=digest,
        tool=ToolName("files__write"),
        server="files",
        arguments={"path": "/srv/a.txt", "content": "a value nobody may read", "size": 1.5},
        hazard=Hazard.DESTRUCTIVE,
        session=SESSION,
        purpose="fix issue 41",
        subject=ALICE,
        owner=ALICE,
        actor=CODER,
        chain=(PLANNER, CODER),
        interactive=False,
        rules=(ApprovalRule(name="two", by=("owner", "group:ops"), quorum=2, assurance=Assurance.PASSKEY),),
        asked_at=START,
        expires_at=START + 15 * MINUTE,
    )
    return replace(call, **changes)


def verdict(hold: str = "h_1", by: str = ALICE, approve: bool = True) -> Verdict:
    return Verdict(
        hold=HoldId(hold),
        person=PersonName(by),
        approve=approve,
        assurance=Assurance.SIGNED_IN,
        statement="header.payload.signature",
        signed_by="thumbprint",
        reason="looks right",
        given_at=START,
    )


async def settle(store: Store, *, session_calls: int | None = None, link_calls: int | None = None) -> None:
    """Alice has granted the planner something, and the planner has delegated a part of it to the coder."""
    await store.add_person(person(), event("enrolment"))
    await store.add_agent(agent(PLANNER), key("agent:planner"), event("enrolment"))
    await store.add_agent(agent(CODER), key("agent:coder"), event("enrolment"))
    await store.add_grant(grant(), event("grant"))
    await store.open_session(replace(session(), max_calls=session_calls), root(), event("session"))
    await store.add_link(replace(link(), max_calls=link_calls), event("delegation"))
    await store.pin_first([pin()], event("pin"))


async def open_hold(store: Store, call: HeldCall | None = None, *, most: int = 20) -> HeldCall:
    return await store.open_hold(call or held(), event("approval"), per_session=most, per_agent=most)


async def approve(store: Store, hold: str = "h_1") -> HeldCall:
    """One verdict that is enough."""
    return await store.give_verdict(verdict(hold), after=0, to=HoldState.APPROVED, event=event("approval"))


async def state_of(store: Store, hold: str = "h_1") -> HoldState:
    found = await store.hold(HoldId(hold))
    assert found is not None
    return found.state
