"""Row 60: no exchange makes a fresh root: depth, constraints, life and budget are those of the lineage."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mcp_authz.errors import DelegationError
from mcp_authz.principals import AgentName
from mcp_authz.rules import link_id
from mcp_authz.rules.constraint import parse_tools, to_json
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.store.ports import Lost
from tests.oauth.house import JWT, Actor, House, claims_of, expect, house, refused

API = parse_tools({"acme__merge": {"repo": {"constraint_type": "one_of", "values": ["api", "web"]}}})
ROOT = {"scope": "pr:write", "tools": API, "max_calls": 3, "lifetime": timedelta(minutes=30)}


def details(tools: Any) -> str:
    return json.dumps([{"type": "attenuating_agent_token", "tools": tools}])


async def _line(h: House, **root: Any) -> tuple[Actor, Actor, Actor]:
    """planner -> coder -> tester; each could go deeper by itself, the planner's authority goes two steps."""
    planner = await h.agent("planner", depth=2, delegates_to=frozenset({AgentName("coder")}))
    coder = await h.agent("coder", depth=7, delegates_to=frozenset({AgentName("tester"), AgentName("planner")}))
    tester = await h.agent("tester", depth=7, delegates_to=frozenset({AgentName("coder"), AgentName("helper")}))
    await h.agent("helper", depth=7)
    await h.start(planner, **{**ROOT, **root})
    return planner, coder, tester


async def test_what_comes_back_is_always_under_the_same_root(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, tester = await _line(h)
        await h.delegate(planner, coder)
        await h.delegate(coder, tester)
        caller = await h.caller(await h.token(tester))
        assert caller.chain is not None and caller.chain.agents == ("planner", "coder", "tester")
        assert len(await h.store.sessions()) == 1
        act = claims_of(await h.token(tester))["act"]
        assert act["act"]["act"]["sub"] == "agent:planner"


async def test_depth_runs_out_however_deep_the_delegates_could_go_by_themselves(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, tester = await _line(h)
        await h.delegate(planner, coder)
        await h.delegate(coder, tester)
        answer = await h.exchange(tester, await h.token(tester), requested_actor="helper")
        refused(answer, "access_denied")


async def test_a_delegation_does_not_go_back_to_who_is_in_the_chain(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _ = await _line(h)
        await h.delegate(planner, coder)
        refused(await h.exchange(coder, await h.token(coder), requested_actor="planner"), "access_denied")


@pytest.mark.parametrize(
    "form",
    [
        {"max_depth": "3"},
        {"max_calls": "4"},
        {"authorization_details": details({"acme__merge": {}})},
        {"authorization_details": details({**to_json(API), "acme__deploy": {}})},
        {"authorization_details": details({"acme__merge": {"repo": {"constraint_type": "wildcard"}}})},
        {"authorization_details": details({"acme__merge": {"repo": {"constraint_type": "exact", "value": "ops"}}})},
    ],
    ids=str,
)
async def test_no_dimension_is_regained_at_a_later_hop(tmp_path: Path, form: dict[str, str]) -> None:
    async with house(tmp_path) as h:
        planner, coder, _ = await _line(h)
        await h.delegate(planner, coder)
        token = await h.token(coder)
        refused(await h.exchange(coder, token, requested_actor="tester", **form), "access_denied")


@pytest.mark.parametrize("scope", ["pr", "pr:*", "pr:write secret:read"])
async def test_no_scope_is_regained_at_a_later_hop(tmp_path: Path, scope: str) -> None:
    async with house(tmp_path) as h:
        planner, coder, _ = await _line(h)
        await h.delegate(planner, coder)
        token = await h.token(coder)
        refused(await h.exchange(coder, token, requested_actor="tester", scope=scope), "invalid_scope")
        refused(await h.exchange(coder, token, requested_token_type=JWT, scope=scope), "invalid_scope")


async def test_constraints_and_budget_are_inherited_when_nothing_is_said_of_them(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, tester = await _line(h)
        await h.delegate(planner, coder, max_calls="2")
        await h.delegate(coder, tester)
        caller = await h.caller(await h.token(tester))
        assert caller.chain is not None
        leaf = caller.chain.leaf
        assert (leaf.scope, leaf.tools, leaf.max_calls) == (parse_scopes("pr:write"), API, 2)


async def test_no_exchange_lives_longer_than_what_it_descends_from(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, tester = await _line(h)
        await h.delegate(planner, coder, expires_in="300")
        end = h.clock() + timedelta(seconds=300)
        h.clock.advance(minutes=4)
        await h.delegate(coder, tester, expires_in="3600")
        token = h.read(await h.token(tester))
        assert token.expires_at <= end
        again = h.read(await h.token(coder))
        assert again.expires_at <= end


async def test_a_link_that_ended_is_not_renewed_by_signing_in_again(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _ = await _line(h)
        link = (await h.delegate(planner, coder, expires_in="60"))["link"]
        h.clock.advance(seconds=60)
        assert claims_of(await h.token(coder, claims={"delegation": link}))["sub"] == "agent:coder"


async def test_calls_of_a_descendant_are_taken_from_every_budget_above_it(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, tester = await _line(h)
        await h.delegate(planner, coder)
        await h.delegate(coder, tester)
        for actor in (tester, coder, planner):
            assert isinstance(await h.spend(await h.caller(await h.token(actor))), int)
        root_caller = await h.caller(await h.token(planner))
        assert await h.spend(root_caller) == Lost(reason="budget")


async def test_another_delegation_is_no_new_budget(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _ = await _line(h)
        spent = 0
        for _ in range(2):
            token = await h.delegated(planner, coder)
            for _ in range(2):
                spent += isinstance(await h.spend(await h.caller(token)), int)
        assert spent == 3


async def _rendered(h: House, actors: tuple[Actor, Actor, Actor], depth: int) -> tuple[Actor, str]:
    """The holder of the link at this depth, with its own token turned into a signed root."""
    planner, coder, tester = actors
    steps = ((planner, coder), (coder, tester))
    for delegator, delegate in steps[:depth]:
        await h.delegate(delegator, delegate)
    holder = actors[depth]
    return holder, await h.root(holder)


@pytest.mark.parametrize("depth", [0, 1, 2])
async def test_a_token_made_into_a_root_goes_on_where_its_link_stands(tmp_path: Path, depth: int) -> None:
    async with house(tmp_path) as h:
        actors = await _line(h)
        holder, root = await _rendered(h, actors, depth)
        caller = await h.caller(await h.token(holder))
        assert caller.chain is not None
        leaf, said = caller.chain.leaf, claims_of(root.strip())
        assert (said["jti"], said["sid"]) == (link_id.jti(leaf.id), leaf.session)
        assert (said["del_depth"], said["del_max_depth"]) == (0, leaf.max_depth - depth) == (0, 2 - depth)
        assert said["exp"] == int(leaf.expires_at.timestamp()) and said["iat"] == int(leaf.issued_at.timestamp())
        assert said["scope"] == "pr:write" and said["max_calls"] == 3
        assert said["authorization_details"] == json.loads(details(to_json(API)))
        act, agents = said["act"], []
        while act:
            agents.append(act["sub"])
            act = act.get("act")
        assert agents == [f"agent:{actor.name}" for actor in reversed(actors[: depth + 1])]


@pytest.mark.parametrize("depth", [0, 1])
async def test_what_is_derived_from_such_a_root_has_the_depth_and_budget_that_were_left(
    tmp_path: Path, depth: int
) -> None:
    async with house(tmp_path) as h:
        actors = await _line(h)
        holder, root = await _rendered(h, actors, depth)
        await h.spend(await h.caller(await h.token(actors[0])))
        below = actors[depth + 1]
        with pytest.raises(DelegationError):
            h.derive(root, holder, below, depth=2 - depth)
        with pytest.raises(DelegationError):
            h.derive(root, holder, below, max_calls=4)
        chain = h.derive(root, holder, below, depth=1 - depth)
        answer = await h.redeem(below, chain)
        caller = await h.caller(answer["access_token"])
        assert caller.chain is not None and caller.chain.agents == tuple(actor.name for actor in actors[: depth + 2])
        assert (caller.chain.leaf.depth, caller.chain.leaf.max_depth, caller.chain.leaf.tools) == (depth + 1, 2, API)
        assert [isinstance(await h.spend(caller), int) for _ in range(3)] == [True, True, False]


async def test_no_root_leads_deeper_than_the_session_may_go(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        actors = await _line(h)
        holder, root = await _rendered(h, actors, 2)
        helper = Actor(AgentName("helper"), PrivateKey.generate())
        with pytest.raises(DelegationError):
            h.derive(root, holder, helper)
        again = await h.redeem(holder, root)
        refused(await h.exchange(holder, again["access_token"], requested_actor="helper"), "access_denied")


@pytest.mark.parametrize("depth", [0, 1, 2])
async def test_token_root_token_root_gains_nothing(tmp_path: Path, depth: int) -> None:
    async with house(tmp_path) as h:
        holder, root = await _rendered(h, await _line(h), depth)
        links, end = await h.store.links((await h.store.sessions())[0].id), claims_of(root.strip())["exp"]
        for _ in range(3):
            h.clock.advance(minutes=3)
            answer = await h.redeem(holder, root)
            assert answer["link"] == links[-1].id and claims_of(answer["access_token"])["exp"] <= end
            root = await h.root(holder, answer["access_token"])
            assert claims_of(root.strip())["exp"] == end
        assert await h.store.links(links[0].session) == links and len(await h.store.sessions()) == 1


async def test_a_root_of_a_narrow_token_gives_no_more_than_the_token(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _ = await _line(h, scope="pr", tools=None)
        narrow = await h.token(planner, scope="pr:read")
        root = await h.root(planner, narrow)
        assert claims_of(root.strip())["scope"] == "pr:read"
        with pytest.raises(DelegationError):
            h.derive(root, planner, coder, scope="pr:write")
        assert (await h.redeem(coder, h.derive(root, planner, coder)))["scope"] == "mcp:connect pr:read"
        assert claims_of((await h.root(planner, scope="pr:read:acme")).strip())["scope"] == "pr:read:acme"


async def test_a_signed_link_is_given_back_as_it_is_or_not_at_all(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, _ = await _line(h, scope="pr", tools=None)
        chain = h.derive(await h.root(planner), planner, coder, depth=1)
        token = (await h.redeem(coder, chain))["access_token"]
        for scope in ("pr:read", "pr:read:acme"):
            answer = await h.exchange(coder, token, requested_token_type=JWT, scope=scope)
            refused(answer, "invalid_scope")
            assert "given back as it is" in answer.json()["error_description"]
        assert await h.root(coder, token) == await h.root(coder, token, scope="pr") == chain


@pytest.mark.parametrize("name", ["authorization_details", "expires_in", "max_calls", "max_depth", "reason"])
async def test_nobody_is_let_believe_that_an_exchange_narrowed_what_it_did_not(tmp_path: Path, name: str) -> None:
    async with house(tmp_path) as h:
        planner, coder, _ = await _line(h)
        form = {name: details(to_json(API)) if name == "authorization_details" else "1"}
        refused(await h.exchange(planner, await h.token(planner), requested_token_type=JWT, **form), "invalid_request")
        chain = h.derive(await h.root(planner), planner, coder)
        refused(await h.exchange(coder, chain, JWT, **form), "invalid_request")


async def test_the_answer_says_what_the_root_gives_and_the_log_that_it_was_given(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, _, _ = await _line(h)
        answer = expect(await h.exchange(planner, await h.token(planner), requested_token_type=JWT))
        assert (answer["issued_token_type"], answer["token_type"], answer["scope"]) == (JWT, "N_A", "pr:write")
        assert (answer["subject"], answer["link"]) == ("user:alice", (await h.store.links(answer["session"]))[0].id)
        assert answer["authorization_details"] == json.loads(details(to_json(API)))
        assert 0 < answer["expires_in"] <= 1800
        (taken,) = await h.events("delegation")
        assert (taken["by"], taken["link"], taken["key"]) == (
            "agent:planner",
            answer["link"],
            planner.key.public.thumbprint,
        )
