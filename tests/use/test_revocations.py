"""Random forests of delegations: any revocation stops exactly what stands on it, and was foreseen to the last call."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from mcp_authz import audit, limits
from mcp_authz.approvals import Approvals
from mcp_authz.authorization import RegisteredClient
from mcp_authz.errors import TokenRefused
from mcp_authz.ids import new_id
from mcp_authz.model import ApprovalRule, Assurance, Hazard, HeldCall, HoldId, HoldState, ToolName
from mcp_authz.principals import (
    AccessToken,
    Agent,
    AgentName,
    Caller,
    ClientId,
    Grant,
    GrantId,
    Link,
    PersonName,
    Proof,
    Session,
)
from mcp_authz.revocation import Revocation
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.rules.verdict import make_statement
from mcp_authz.running import running_calls
from mcp_authz.stopping import Stopping
from mcp_authz.store.ports import Event
from mcp_authz.underway import Underway
from tests.oauth.house import OPERATOR, Actor, House, house
from tests.use.test_trees import AGENTS, ON_DISK, REPOS, STEPS, Step, Tree, in_an_office, tools

KINDS = ("link", "session", "grant", "agent", "client", "key", "person", "hold", "approver", "approver's key")
CLIENT = "https://c.example/c"
SUBJECTS = ("user:alice", "user:dave", "user:bob", "agent:agent-0", "agent:agent-2", f"client:{CLIENT}")
SECOND = timedelta(seconds=1)
BOUNDED = settings(ON_DISK, max_examples=8, phases=[Phase.generate])  # what fails is small enough as it is


@dataclass
class Node:
    """A link of whose holder a call runs, another waits, and a stream is open; `by` approved what runs."""

    caller: Caller
    stands_on: set[tuple[str, str]]
    waits: HoldId
    call: str = field(default_factory=lambda: new_id("c"))
    by: PersonName | None = None
    approved: HoldId | None = None


class Forest:
    """Trees of several sessions: of one grant, of another person, of an agent for itself, of a client."""

    def __init__(self, h: House) -> None:
        self.h, self.nodes = h, list[Node]()
        self.approvers = {PersonName(name): PrivateKey.generate() for name in ("bob", "carol")}
        self.approvals = Approvals(store=h.store, clock=h.clock, gateway_key=PrivateKey.generate())
        self.actors = dict[str, Actor]()

    async def plant(self, steps: list[Step]) -> None:
        h = self.h
        for name, key in self.approvers.items():
            await h.people.add(name, by=OPERATOR)
            await h.people.add_key(name, key.public, by=OPERATOR)
        await h.people.add("dave", by=OPERATOR)
        every = frozenset(map(AgentName, AGENTS))
        self.actors = {name: await h.agent(name, depth=7, delegates_to=every) for name in AGENTS}
        first = self.actors[AGENTS[0]]
        grant = await h.grant(first, "pr secret:read", tools=tools(frozenset(REPOS)))
        other = await h.grant(first, "pr secret:read", subject="dave", tools=tools(frozenset(REPOS)))
        for number, one in enumerate((grant, grant, other)):
            session, root = await h.sessions.start(one, purpose="test", by=OPERATOR)
            await self.tree(session, root, steps[number::3])
        own = await h.sessions.start_own(AGENTS[1], purpose="x", scope=parse_scopes("pr"), by=OPERATOR)
        await self.tree(*own, [])
        await self.client()

    async def tree(self, session: Session, root: Link, steps: list[Step]) -> None:
        tree = Tree(self.h, self.actors, session, root)
        for step in steps:
            await tree.grow(step)
        for link in tree.links:
            caller = await tree.caller(link)
            keys = [caller.key, *(key for it in tree.chain_of(link).links for key in (it.holder_key, it.signed_by))]
            await self.note(caller, {("key", key) for key in keys if key is not None})

    async def client(self) -> None:
        """What a client is for alice."""
        h, now = self.h, self.h.clock().replace(microsecond=0)
        known = RegisteredClient(
            id=ClientId(CLIENT),
            handle="c",
            name="C",
            kind="document",
            redirect_uris=(),
            registered_at=now,
        )
        await h.store.add_client(known, Event(kind="administration", at=now))
        name = AgentName("c@alice")
        agent = Agent(name=name, owner=PersonName("alice"), ceiling=parse_scopes("pr"), client=known.id)
        grant = Grant(
            id=GrantId(new_id("g")), subject=agent.owner, agent=name, scope=agent.ceiling, tools=None,
            granted_at=now, expires_at=now + timedelta(days=1), client=known.id,
        )  # fmt: skip
        await h.store.authorize(agent, grant, None, Event(kind="grant", at=now))
        session, root = await h.sessions.start(grant, purpose="test", by="user:alice")
        token = AccessToken(
            id=new_id("t"), client_id=known.id, actor=name, key=None, subject="user:alice", session=session.id,
            link=root.id, scope=grant.scope, issued_at=now, expires_at=now + limits.ACCESS_TOKEN_LIFETIME,
            confirmation=None, mode=session.mode,
        )  # fmt: skip
        await self.note(await h.sessions.identify(token, Proof.BEARER), {("client", known.id)})

    async def note(self, caller: Caller, more: set[tuple[str, str]]) -> None:
        assert caller.session is not None and caller.chain is not None and caller.grant is not None
        session, holders = caller.session, caller.chain.agents
        owner = caller.holders[session.agent].owner
        stands_on = {("session", session.id), ("grant", session.grant), ("person", session.subject or owner), *more}
        stands_on |= {("agent", name) for name in holders} | {("link", link.id) for link in caller.chain.links}
        node = Node(
            caller=caller, stands_on=stands_on, waits=await self.hold(caller),
        )  # fmt: skip
        if len(self.nodes) % 2:
            node.by = list(self.approvers)[len(self.nodes) // 2 % 2]
            node.approved = await self.hold(caller)
            await self.approve(node)
            key = self.approvers[node.by].public.thumbprint
            node.stands_on |= {("person", node.by), ("key", key)}
        self.nodes.append(node)
        await self.record(node)
        self.h.clock.ahead += SECOND

    async def hold(self, caller: Caller) -> HoldId:
        assert caller.session is not None and caller.chain is not None
        now, subject = self.h.clock(), caller.session.subject or caller.holders[caller.session.agent].owner
        held = HeldCall(
            id=HoldId(new_id("h")), state=HoldState.PENDING, digest=PrivateKey.generate().public.raw,
            tool=ToolName("acme__merge"), server="acme", arguments={}, hazard=Hazard.DESTRUCTIVE,
            session=caller.session.id, purpose="test", subject=subject, owner=subject, actor=caller.agent.name,
            chain=caller.chain.agents, interactive=False, asked_at=now, expires_at=now + timedelta(hours=2),
            rules=(ApprovalRule(name="one", by=tuple(f"user:{name}" for name in self.approvers)),),
            mode=caller.session.mode,
        )  # fmt: skip
        await self.h.store.open_hold(held, Event(kind="approval", at=now), per_session=99, per_agent=99)
        return held.id

    async def approve(self, node: Node) -> None:
        """The call is approved, and runs."""
        assert node.by is not None and node.approved is not None
        held = await self.h.store.hold(node.approved)
        assert held is not None
        statement = make_statement(
            held, person=node.by, approve=True, assurance=Assurance.SIGNED_IN, reason="", at=self.h.clock(),
            key=self.approvers[node.by],
        )  # fmt: skip
        await self.approvals.hear_signed(held.id, node.by, statement)
        await self.h.store.move_hold(held.id, come_from=HoldState.APPROVED, to=HoldState.CLAIMED, event=None)

    async def record(self, node: Node) -> None:
        tool = {"tool": "acme__merge", "server": "acme"}
        fields: dict[str, Any] = {**audit.who(node.caller), "decision": "permit", **tool}
        if node.approved is not None:
            fields["approval"] = {"hold": node.approved}
        store = self.h.store
        await store.append(Event(kind="decision", at=self.h.clock(), call=node.call, fields=fields))
        row = (node.call, store._instance.name, node.caller.agent.name, tool["tool"])
        begun = "INSERT INTO begun (call, instance, actor, tool) VALUES (?, ?, ?, ?)"
        await store._writer.run(lambda tx: tx.db.execute(begun, row))

    def named(self, kind: str, which: int) -> tuple[Any, str]:
        """A thing of this kind."""
        if kind == "hold":
            return "hold", self.nodes[which % len(self.nodes)].waits
        if kind.startswith("approver"):
            name = list(self.approvers)[which % 2]
            return ("person", name) if kind == "approver" else ("key", self.approvers[name].public.thumbprint)
        names = sorted({name for node in self.nodes for of, name in node.stands_on if of == kind})
        return kind, names[which % len(names)]


@asynccontextmanager
async def under_way(forest: Forest) -> AsyncIterator[tuple[set[str], set[str]]]:
    """Every call runs, and every stream is open; the calls, and the streams, that were cancelled."""
    h, calls, streams = forest.h, set[str](), set[str]()
    underway = Underway(h.store, h.keys.live, h.sessions.identify, forest.approvals.stands, h.clock)

    async def run(node: Node) -> None:
        with underway.while_standing(node.caller, None, node.approved):
            await anyio.sleep_forever()
        calls.add(node.call)

    async def listen(node: Node) -> None:
        with underway.while_listening(node.caller):
            await anyio.sleep_forever()
        streams.add(node.call)

    async def told() -> None:
        pass

    async with anyio.create_task_group() as group:
        group.start_soon(underway.run, told)
        for node in forest.nodes:
            group.start_soon(run, node)
            group.start_soon(listen, node)
        await anyio.sleep(0.03)
        yield calls, streams
        group.cancel_scope.cancel()


async def settled(calls: set[str], streams: set[str], no_calls: set[str], no_streams: set[str]) -> None:
    """These were cancelled, or never will be; and nothing else in the time that it takes."""
    with anyio.move_on_after(2):
        while not (calls >= no_calls and streams >= no_streams):  # noqa: ASYNC110 - whoever runs has no event for this
            await anyio.sleep(0.005)
    await anyio.sleep(0.03)


async def refused(forest: Forest) -> set[str]:
    """Whose next request is refused, or comes without its session."""
    gone = set()
    for node in forest.nodes:
        try:
            now = await forest.h.sessions.identify(node.caller.token, Proof.BEARER)
        except TokenRefused:
            gone.add(node.call)
        else:
            gone |= {node.call} if now.session is None else set()
    return gone


@BOUNDED
@given(steps=STEPS, kind=st.sampled_from(KINDS), which=st.integers(0, 99))
def test_a_revocation_of_any_kind_stops_exactly_what_was_foreseen(steps: list[Step], kind: str, which: int) -> None:
    async def test(h: House) -> None:
        forest, revocation = Forest(h), Revocation(h.store, h.clock)
        await forest.plant(steps)
        of, name = forest.named(kind, which)
        async with under_way(forest) as (calls, streams):
            foreseen, running = await revocation.foresee(of, name), await revocation.running(of, name)
            assert await revocation.foresee(of, name) == foreseen and not calls  # looking changes nothing
            assert await revocation.revoke(of, name, reason="x", by=OPERATOR) == foreseen
            expected, gone = {node.call for node in forest.nodes if (of, name) in node.stands_on}, await refused(forest)
            await settled(calls, streams, expected, gone)
            assert calls == expected and streams == gone
            assert {it.call for it in running} == expected
            cancelled = {it.id for it in await h.store.holds(states=[HoldState.CANCELLED])}
            assert cancelled == set(foreseen.holds)
            if kind in {"session", "grant", "agent", "client", "person"} and name not in forest.approvers:
                assert cancelled == {node.waits for node in forest.nodes if node.call in expected}

    in_an_office(test)


@BOUNDED
@given(steps=STEPS, subject=st.sampled_from(SUBJECTS), seconds=st.integers(0, 12))
def test_what_a_subject_has_from_before_a_time_ends_as_foreseen_and_nothing_later(
    steps: list[Step], subject: str, seconds: int
) -> None:
    async def test(h: House) -> None:
        forest, stopping, began = Forest(h), Stopping(h.store, h.clock), h.clock()
        await forest.plant(steps)
        before = min(began + seconds * SECOND, h.clock())
        async with under_way(forest) as (calls, streams):
            foreseen = await stopping.foresee_sweep(subject, before)
            every = await running_calls(h.store)
            running = {it.call for it in every if any(it.grounds.meet(*ended) for ended in foreseen.ids.items())}
            assert await stopping.sweep(subject, before, reason="x", by=OPERATOR) == foreseen
            gone = await refused(forest)
            await settled(calls, streams, running, gone)
            assert calls == running and streams == gone
            assert {it.id for it in await h.store.holds(states=[HoldState.CANCELLED])} == set(foreseen.holds)
            assert (await stopping.foresee_sweep(subject, before)).is_nothing
            later = {grant.id for grant in await h.store.grants() if grant.granted_at >= before}
            assert all(it.status == "active" for it in await h.store.grants() if it.id in later)

    in_an_office(test)


async def test_a_call_by_a_childs_replaced_key_ends_whatever_the_record_of_it_is_called(tmp_path: Path) -> None:
    async with house(tmp_path) as h, anyio.create_task_group() as group:
        planner, *_ = await h.family()
        root, ended = await h.root(planner), list[str]()
        underway = Underway(h.store, h.keys.live, h.sessions.identify, Forest(h).approvals.stands, h.clock)

        async def told() -> None:
            pass

        async def run(token: str, name: str) -> None:
            with underway.while_standing(await h.caller(token)):
                await anyio.sleep_forever()
            ended.append(name)

        async def child(name: str) -> str:
            actor = Actor(AgentName(f"planner/{name}"), PrivateKey.generate())
            answer = await h.redeem(actor, h.derive(root, planner, actor.key, child=name))
            return str(answer["access_token"])

        group.start_soon(underway.run, told)
        group.start_soon(run, await child("one"), "one")
        group.start_soon(run, await child("two"), "two")
        await anyio.sleep(0.05)
        h.clock.advance(seconds=1)
        await child("one")  # with another key
        with anyio.fail_after(5):
            while not ended:  # noqa: ASYNC110 - whoever runs has no event for this
                await anyio.sleep(0.005)
        await anyio.sleep(0.05)
        assert ended == ["one"] and await h.events("revocation") == []
        group.cancel_scope.cancel()
