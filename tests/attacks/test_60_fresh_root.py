"""Row 60: no exchange makes a fresh root: depth, constraints, life and budget are those of the lineage."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mcp_authz.model import AgentName
from mcp_authz.rules.constraint import parse_tools, to_json
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.store.ports import Lost
from tests.oauth.house import JWT, Actor, House, claims_of, house, refused

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
