"""Random trees of delegations, signed and by the gateway's hand: what a leaf may, all above it may; ends go down."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mcp_authz.delegating import Asked, Source
from mcp_authz.errors import AuthzError
from mcp_authz.model import HeldCall
from mcp_authz.principals import AgentName, Caller, Chain, Link, LinkId, Session, Thumbprint
from mcp_authz.rules.constraint import parse_tools, permits_call
from mcp_authz.rules.scope import Scope, covered, parse_scopes
from mcp_authz.rules.signed_link import parse_chain, write_chain
from mcp_authz.underway import Underway
from tests.oauth.house import Actor, House, office

REPOS, SCOPES = ("api", "web", "ops"), ("pr:read", "pr:write", "secret:read")
AGENTS = tuple(f"agent-{number}" for number in range(6))


@dataclass(frozen=True)
class Step:
    """One delegation of a random tree; `under` picks a node made before, `to` an agent."""

    under: int
    to: int
    signed: bool
    scope: frozenset[str]
    repos: frozenset[str]
    max_calls: int


STEPS = st.lists(
    st.builds(
        Step,
        under=st.integers(0, 99),
        to=st.integers(1, len(AGENTS) - 1),
        signed=st.booleans(),
        scope=st.frozensets(st.sampled_from(SCOPES), min_size=1),
        repos=st.frozensets(st.sampled_from(REPOS), min_size=1),
        max_calls=st.integers(1, 20),
    ),
    min_size=3,
    max_size=10,
)


def tools(repos: frozenset[str]) -> Any:
    return parse_tools({"acme__merge": {"repo": {"constraint_type": "one_of", "values": sorted(repos)}}})


class Tree:
    """A session's links as they were made; what was refused is not there."""

    def __init__(self, h: House, actors: dict[str, Actor], session: Session, root: Link) -> None:
        self.h, self.actors, self.session = h, actors, session
        self.links = [root]

    def chain_of(self, link: Link) -> Chain:
        known, links = {one.id: one for one in self.links}, [link]
        while links[0].parent is not None:
            links.insert(0, known[links[0].parent])
        return Chain(links=tuple(links))

    async def grow(self, step: Step) -> None:
        above = self.links[step.under % len(self.links)]
        to = self.actors[AGENTS[step.to]]
        try:
            made = await (self.sign(above, to, step) if step.signed else self.make(above, to, step))
        except AuthzError:
            return
        self.links.append(made)

    async def make(self, above: Link, to: Actor, step: Step) -> Link:
        scope = frozenset(Scope(one) for one in step.scope)
        source = Source(chain=self.chain_of(above), session=self.session, person=None)
        asked = Asked(to=to.name, scope=scope, tools=tools(step.repos), max_calls=step.max_calls)
        return await self.h.delegations.delegate(source, asked)

    async def sign(self, above: Link, to: Actor, step: Step) -> Link:
        holder = self.actors[above.holder]
        key = await self.h.store.key(Thumbprint(holder.key.public.thumbprint))
        assert key is not None
        root = write_chain(await self.h.chains.root(above, self.session, self.chain_of(above), key))
        given = {"scope": " ".join(sorted(step.scope)), "tools": tools(step.repos), "max_calls": step.max_calls}
        depth = max(0, above.max_depth - above.depth - 1)
        texts = parse_chain(self.h.derive(root, holder, to, depth=depth, **given))
        verified = self.h.chains.verify(texts, Thumbprint(to.key.public.thumbprint))
        _, leaf = await self.h.chains.redeem(verified, texts)
        return leaf

    async def caller(self, link: Link) -> Caller:
        """The link's holder with a fresh token for it.

        Raises:
            AuthzError: it has ended.
        """
        actor = self.actors[link.holder]
        agent = await self.h.store.agent(actor.name)
        assert agent is not None
        answer = await self.h.issuing.access_token(self.h.client_of(agent, actor), None, (self.session, link), "test")
        return await self.h.caller(answer["access_token"])

    async def works(self, link: Link) -> bool:
        """Whether the link's holder could use it now."""
        try:
            caller = await self.caller(link)
        except AuthzError:
            return False
        return caller.chain is not None and isinstance(await self.h.spend(caller), int)


async def planted(h: House, steps: list[Step]) -> Tree:
    actors = {name: await h.agent(name, depth=7, delegates_to=frozenset(map(AgentName, AGENTS))) for name in AGENTS}
    session, root = await h.start(actors[AGENTS[0]], "pr secret:read", tools=tools(frozenset(REPOS)))
    tree = Tree(h, actors, session, root)
    for step in steps:
        await tree.grow(step)
    return tree


async def nothing_is_approved(held: HeldCall, *, at: datetime | None = None) -> bool:
    raise AssertionError("no call of these trees rests on an approval")


@asynccontextmanager
async def running(tree: Tree) -> AsyncIterator[Callable[[set[LinkId]], Awaitable[None]]]:
    """Something runs on every link; what is yielded returns once exactly these were cancelled."""
    h, gone = tree.h, set[LinkId]()
    underway = Underway(h.store, h.keys.live, h.sessions.identify, nothing_is_approved, h.clock)

    async def run(caller: Caller, link: LinkId) -> None:
        with underway.while_standing(caller):
            await anyio.sleep_forever()
        gone.add(link)

    async def told() -> None:
        pass

    async def cancelled(links: set[LinkId]) -> None:
        with anyio.fail_after(10):
            while not gone >= links:  # noqa: ASYNC110 - whoever runs has no event for this
                await anyio.sleep(0.005)
        await anyio.sleep(0.03)
        assert gone == links

    async with anyio.create_task_group() as group:
        callers = {link.id: await tree.caller(link) for link in tree.links}
        group.start_soon(underway.run, told)
        for link, caller in callers.items():
            group.start_soon(run, caller, link)
        await anyio.sleep(0.03)
        yield cancelled
        group.cancel_scope.cancel()


def permits(link: Link, scope: str, repo: str) -> bool:
    call = link.tools is None or permits_call(link.tools, "acme__merge", {"repo": repo}) is None
    return call and covered(Scope(scope), link.scope)


ON_DISK = settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def in_an_office(test: Any) -> None:
    async def run() -> None:
        with tempfile.TemporaryDirectory() as directory:
            async with office(Path(directory)) as h:
                await test(h)

    anyio.run(run)


@ON_DISK
@given(steps=STEPS)
def test_what_a_link_permits_every_link_above_it_permits(steps: list[Step]) -> None:
    async def test(h: House) -> None:
        tree = await planted(h, steps)
        assert {link.id for link in await h.store.links(tree.session.id)} == {link.id for link in tree.links}
        for link in tree.links:
            chain = tree.chain_of(link)
            assert len(set(chain.agents)) == len(chain.agents) and link.depth == len(chain.links) - 1
            for above in chain.links:
                assert link.expires_at <= above.expires_at and link.max_depth <= above.max_depth
                assert above.max_calls is None or (link.max_calls or 99) <= above.max_calls
                for scope in SCOPES:
                    assert all(permits(above, scope, repo) for repo in REPOS if permits(link, scope, repo))

    in_an_office(test)


@ON_DISK
@given(steps=STEPS, which=st.integers(0, 99), later=st.booleans())
def test_revoking_a_link_stops_exactly_what_descends_from_it(steps: list[Step], which: int, later: bool) -> None:
    async def test(h: House) -> None:
        tree = await planted(h, [replace(step, max_calls=20) for step in steps])
        ended = tree.links[which % len(tree.links)]
        below: set[LinkId] = {link.id for link in tree.links if ended in tree.chain_of(link).links}
        async with running(tree) as cancelled:
            await h.revoke("link", ended.id)
            await cancelled(below)
        h.clock.ahead = timedelta(minutes=1 if later else 0)
        for link in tree.links:
            assert await tree.works(link) == (link.id not in below)
        tree_after = {link.id for agent in AGENTS for _, link in await h.store.open_links(AgentName(agent), h.clock())}
        assert tree_after == {link.id for link in tree.links} - below

    in_an_office(test)


def test_random_trees_are_deep_and_of_both_kinds() -> None:
    """What the properties above are tried on is worth trying."""
    steps = [Step(number, number + 1, bool(number % 2), frozenset(SCOPES), frozenset(REPOS), 20) for number in range(5)]

    async def test(h: House) -> None:
        tree = await planted(h, steps)
        assert [link.depth for link in tree.links] == [0, 1, 2, 3, 4, 5]
        assert [link.statement is None for link in tree.links] == [True, True, False, True, False, True]
        assert tree.links[-1].scope == parse_scopes(" ".join(SCOPES)) and await tree.works(tree.links[-1])

    in_an_office(test)
