"""Grants, sessions and links: each step gives no more than the one before."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mcp_authz import limits
from mcp_authz.delegating import Asked, Source
from mcp_authz.errors import AuthzError, Conflict, DelegationError, InputError, NotFound
from mcp_authz.principals import (
    AccessToken,
    AgentName,
    Caller,
    Chain,
    GrantId,
    Link,
    PersonName,
    Proof,
    Session,
    Thumbprint,
)
from mcp_authz.rules.constraint import parse_tools
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.store.ports import Lost
from tests.oauth.house import OPERATOR, Actor, House, office

MERGE_API = parse_tools({"acme__merge": {"repo": {"constraint_type": "exact", "value": "api"}}})
MERGE_ANY = parse_tools({"acme__merge": {}})


async def test_a_grant_stays_within_the_agents_ceiling(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        coder = await h.agent("coder", "pr:write")
        with pytest.raises(DelegationError):
            await h.grant(coder, "pr")
        with pytest.raises(DelegationError):
            await h.grant(coder, "pr:*")
        assert (await h.grant(coder, "pr:write:acme")).scope == parse_scopes("pr:write:acme")


async def test_a_grant_is_between_an_active_person_and_an_active_agent(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        coder = await h.agent("coder")
        await h.person("bob")
        await h.revoke("person", "bob")
        with pytest.raises(NotFound):
            await h.grant(coder, subject="bob")
        with pytest.raises(NotFound):
            await h.grant(coder, subject="nobody")
        await h.revoke("agent", "coder")
        with pytest.raises(NotFound):
            await h.grant(coder)


@pytest.mark.parametrize("lifetime", [timedelta(0), timedelta(seconds=-1), limits.GRANT_LIFETIME + timedelta(1)])
async def test_a_grant_has_an_end(tmp_path: Path, lifetime: timedelta) -> None:
    async with office(tmp_path) as h:
        with pytest.raises(InputError):
            await h.grant(await h.agent("coder"), lifetime=lifetime)


async def test_a_session_has_all_of_its_grant_unless_less_is_asked(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        coder = await h.agent("coder", depth=2)
        grant = await h.grant(coder, "pr", tools=MERGE_ANY)
        session, root = await h.sessions.start(grant, purpose="all", by=OPERATOR)
        assert (root.scope, root.tools, root.max_depth, root.depth) == (grant.scope, grant.tools, 2, 0)
        assert (root.holder, root.session, root.parent) == (coder.name, session.id, None)
        _, less = await h.sessions.start(
            grant, purpose="less", scope=parse_scopes("pr:read"), tools=MERGE_API, max_calls=3, by=OPERATOR
        )
        assert (less.scope, less.tools, less.max_calls) == (parse_scopes("pr:read"), MERGE_API, 3)


@pytest.mark.parametrize(
    "more", [{"scope": parse_scopes("secret:read")}, {"tools": MERGE_ANY}, {"tools": parse_tools({"acme__deploy": {}})}]
)
async def test_a_session_never_has_more_than_its_grant(tmp_path: Path, more: Any) -> None:
    async with office(tmp_path) as h:
        grant = await h.grant(await h.agent("coder"), "pr", tools=MERGE_API)
        with pytest.raises(DelegationError):
            await h.sessions.start(grant, purpose="more", by=OPERATOR, **more)


async def test_a_session_ends_with_its_grant_at_the_latest(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        grant = await h.grant(await h.agent("coder"), lifetime=timedelta(hours=1))
        session, root = await h.sessions.start(grant, purpose="long", lifetime=timedelta(hours=3), by=OPERATOR)
        assert session.expires_at == root.expires_at == grant.expires_at


@pytest.mark.parametrize(
    "wrong",
    [
        {"purpose": ""},
        {"purpose": "  "},
        {"purpose": "x" * 257},
        {"lifetime": timedelta(hours=13)},
        {"lifetime": timedelta(0)},
        {"max_calls": 0},
        {"max_calls": -1},
    ],
)
async def test_a_session_has_a_purpose_an_end_and_a_possible_budget(tmp_path: Path, wrong: Any) -> None:
    async with office(tmp_path) as h:
        grant = await h.grant(await h.agent("coder"))
        with pytest.raises(InputError):
            await h.sessions.start(grant, **{"purpose": "test", "by": OPERATOR, **wrong})


async def test_a_revoked_grant_opens_no_session(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        grant = await h.grant(await h.agent("coder"))
        await h.revoke("grant", grant.id)
        with pytest.raises(Conflict):
            await h.sessions.start(grant, purpose="test", by=OPERATOR)


async def test_the_only_grant_between_two_is_found_by_their_names(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        coder = await h.agent("coder")
        with pytest.raises(NotFound):
            await h.sessions.only_grant("alice", "coder")
        grant = await h.grant(coder)
        assert await h.sessions.only_grant("alice", "coder") == grant
        await h.grant(coder)
        with pytest.raises(NotFound, match="2 active grants"):
            await h.sessions.only_grant("alice", "coder")


async def test_a_delegation_inherits_what_it_does_not_narrow(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        _, coder, session, root = await h.family(scope="pr", tools=MERGE_API, max_calls=5)
        link = await h.link(root, session, coder.name)
        assert (link.holder, link.parent, link.session) == (coder.name, root.id, session.id)
        assert (link.scope, link.tools, link.max_calls, link.depth) == (root.scope, root.tools, 5, 1)
        assert link.max_depth == 1  # as deep as it stands: the coder's own depth is 0


async def test_a_delegation_ends_with_its_parent_at_the_latest(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        _, coder, session, root = await h.family(lifetime=timedelta(minutes=30))
        link = await h.link(root, session, coder.name)
        assert link.expires_at == root.expires_at


async def test_an_inherited_scope_is_cut_to_the_delegates_ceiling(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        planner = await h.agent("planner", "pr secret", depth=1, delegates_to=frozenset({AgentName("coder")}))
        await h.agent("coder", "pr:write deploy")
        session, root = await h.start(planner, "pr secret")
        link = await h.link(root, session, "coder")
        assert link.scope == parse_scopes("pr:write")


@pytest.mark.parametrize(
    "more",
    [
        {"scope": parse_scopes("secret:read")},  # within the coder's ceiling, beyond the planner's link
        {"scope": parse_scopes("pr:read deploy")},
        {"tools": MERGE_ANY},
        {"tools": parse_tools({"acme__deploy": {}})},
        {"max_calls": 6},
        {"max_depth": 2},  # the coder's own depth is 0
        {"max_depth": 0},
        {"to": AgentName("stranger")},
        {"to": AgentName("nobody")},
        {"to": AgentName("planner")},
        {"lifetime": timedelta(0)},
        {"max_calls": 0},
        {"reason": "x" * 257},
    ],
    ids=lambda more: f"{next(iter(more))}",
)
async def test_a_delegation_that_asks_for_more_is_refused_and_recorded(tmp_path: Path, more: Any) -> None:
    async with office(tmp_path) as h:
        await h.agent("stranger")
        _, _, session, root = await h.family(scope="pr", tools=MERGE_API, max_calls=5)
        with pytest.raises((DelegationError, InputError)):
            await h.link(root, session, **{"to": "coder", **more})
        assert await h.store.links(session.id) == (root,)
        (fields,) = await h.events("delegation")
        assert (fields["decision"], fields["from"]) == ("deny", "agent:planner")


@pytest.mark.parametrize("kind", ["link", "session", "grant", "person", "agent"])
async def test_nothing_descends_from_what_was_revoked(tmp_path: Path, kind: str) -> None:
    async with office(tmp_path) as h:
        _, coder, session, root = await h.family()
        names = {"link": root.id, "session": session.id, "grant": session.grant, "person": "alice", "agent": "planner"}
        await h.revoke(kind, names[kind])
        with pytest.raises((Conflict, DelegationError)):
            await h.link(root, session, coder.name)
        assert await h.store.links(session.id) in [(root,), (await h.store.link(root.id),)]


async def test_nobody_delegates_to_an_agent_that_is_revoked_or_has_no_key(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        _, coder, session, root = await h.family()
        await h.revoke("key", coder.key.public.thumbprint)
        with pytest.raises(DelegationError, match="no key"):
            await h.link(root, session, coder.name)
        await h.revoke("agent", "coder")
        with pytest.raises(DelegationError, match="not active"):
            await h.link(root, session, coder.name)


async def test_a_delegation_is_recorded_with_who_gave_what_to_whom(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        _, coder, session, root = await h.family()
        link = await h.link(root, session, coder.name, reason="fix issue 41")
        (fields,) = await h.events("delegation")
        assert (fields["from"], fields["holder"], fields["subject"]) == ("agent:planner", "agent:coder", "user:alice")
        assert (fields["link"], fields["reason"], fields["decision"]) == (link.id, "fix issue 41", "permit")


async def test_an_unknown_grant_opens_nothing(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        grant = await h.grant(await h.agent("coder"))
        with pytest.raises(AuthzError):
            await h.sessions.start(replace(grant, id=GrantId("g_other")), purpose="test", by=OPERATOR)


async def test_a_session_is_delegated_no_deeper_than_its_agent_may(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        grant = await h.grant(await h.agent("planner", depth=2))
        for asked, given in ((None, 2), (0, 0), (1, 1), (2, 2)):
            _, root = await h.sessions.start(grant, purpose="x", max_depth=asked, by=OPERATOR)
            assert root.max_depth == given
        with pytest.raises(DelegationError, match="2 steps at most"):
            await h.sessions.start(grant, purpose="x", max_depth=3, by=OPERATOR)
        with pytest.raises(InputError):
            await h.sessions.start(grant, purpose="x", max_depth=-1, by=OPERATOR)


async def test_a_session_of_depth_zero_is_not_delegated(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        _, coder, session, root = await h.family(max_depth=0)
        with pytest.raises(DelegationError, match="at most 0 was given"):
            await h.link(root, session, coder.name)


async def _three_hops(h: House, **budgets: int) -> tuple[Session, list[Link], Caller]:
    """A session delegated on three times, each step with a budget of its own, and the last holder."""
    names = ["planner", "lead", "coder", "tester"]
    agents = [
        await h.agent(name, depth=3 - number, delegates_to=frozenset(AgentName(n) for n in names[number + 1 :][:1]))
        for number, name in enumerate(names)
    ]
    session, root = await h.start(agents[0], max_calls=budgets.get("session"))
    alice = await h.store.person(PersonName("alice"))
    links = [root]
    for name in names[1:]:
        source = Source(chain=Chain(links=tuple(links)), session=session, person=alice)
        links.append(await h.delegations.delegate(source, Asked(to=AgentName(name), max_calls=budgets.get(name))))
    caller = await h.sessions.identify(_token(h, agents[-1], links[-1]), Proof.BEARER)
    return session, links, caller


def _token(h: House, actor: Actor, link: Link) -> AccessToken:
    return AccessToken(
        id="t",
        client_id=actor.name,
        actor=actor.name,
        key=Thumbprint(actor.key.public.thumbprint),
        subject="user:alice",
        session=link.session,
        link=link.id,
        scope=frozenset(),
        issued_at=h.clock(),
        expires_at=h.clock() + limits.ACCESS_TOKEN_LIFETIME,
    )


@pytest.mark.parametrize("bound", ["session", "lead", "coder", "tester"])
async def test_a_call_three_hops_down_counts_at_every_link_above_it_and_ends_at_the_least(
    tmp_path: Path, bound: str
) -> None:
    async with office(tmp_path) as h:
        budgets = {"session": 9, bound: 2}
        session, links, caller = await _three_hops(h, **budgets)
        assert [isinstance(await h.spend(caller), int) for _ in range(2)] == [True, True]
        assert await h.spend(caller) == Lost(reason="budget")
        assert [link.calls_made for link in await h.store.links(session.id)] == [2, 2, 2, 2]
        (stored,) = await h.store.sessions()
        assert stored.calls_made == 2 and len(links) == 4
