"""Row 11: no dimension is wider at any hop than it was above, in what is signed and in what the store has."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mcp_authz.changing import Changes, change_agent
from mcp_authz.principals import AgentName
from mcp_authz.rules import jose
from mcp_authz.rules.constraint import parse_tools
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.rules.signed_link import TYP, parse_chain, write_chain
from tests.oauth.house import JWT, Actor, House, claims_of, expect, house, refused
from tests.world import OPERATOR, world

ONE_OF = {"constraint_type": "one_of", "values": ["api", "web"]}
OTHER = {"constraint_type": "one_of", "values": ["api", "ops"]}
TOOLS = {"acme__merge": {"repo": ONE_OF}}
DETAIL = "attenuating_agent_token"


def details(tools: Any) -> list[dict[str, Any]]:
    return [{"type": DETAIL, "tools": tools}]


def longer(claims: dict[str, Any]) -> dict[str, Any]:
    return {"exp": claims["exp"] + 1}


WIDER: dict[str, Any] = {
    "a scope": {"scope": "pr"},
    "another scope": {"scope": "pr:write secret:read"},
    "a wildcard": {"scope": "pr:*"},
    "every tool": {"authorization_details": None},
    "another tool": {"authorization_details": details({**TOOLS, "acme__deploy": {}})},
    "any argument": {"authorization_details": details({"acme__merge": {}})},
    "another value": {"authorization_details": details({"acme__merge": {"repo": OTHER}})},
    "any value": {"authorization_details": details({"acme__merge": {"repo": {"constraint_type": "wildcard"}}})},
    "another argument": {"authorization_details": details({"acme__merge": {"repo": ONE_OF, "force": ONE_OF}})},
    "depth": {"del_max_depth": 4},
    "no depth": {"del_depth": 0},
    "a skipped depth": {"del_depth": 3},
    "a longer life": longer,
    "an earlier beginning": lambda claims: {"iat": claims["iat"] - 60},
    "calls": {"max_calls": 6},
    "any number of calls": {"max_calls": None},
}


async def _line(h: House) -> tuple[Actor, Actor, Actor, str]:
    planner = await h.agent("planner", depth=3, delegates_to=frozenset({AgentName("coder")}))
    coder = await h.agent("coder", depth=7, delegates_to=frozenset({AgentName("tester")}))
    tester = await h.agent("tester", depth=7)
    lifetime = timedelta(hours=2)
    await h.start(planner, "pr:write", tools=parse_tools(TOOLS), max_calls=5, lifetime=lifetime)
    return planner, coder, tester, await h.root(planner)


@pytest.mark.parametrize("hop", [1, 2])
@pytest.mark.parametrize("what", WIDER)
async def test_a_step_that_gives_more_than_the_one_above_gives_nothing(tmp_path: Path, what: str, hop: int) -> None:
    async with house(tmp_path) as h:
        planner, coder, tester, chain = await _line(h)
        holders, lifetime = [planner, coder, tester], timedelta(hours=12)
        for step in range(hop):
            chain = h.derive(chain, holders[step], holders[step + 1], depth=2 - step, lifetime=lifetime)
        *above, link = parse_chain(chain)
        said = claims_of(link)
        more = WIDER[what](said) if callable(WIDER[what]) else WIDER[what]
        claims = {name: value for name, value in {**said, **more}.items() if value is not None}
        wider = write_chain([*above, jose.sign(claims, typ=TYP, key=holders[hop - 1].key)])
        refused(await h.exchange(holders[hop], wider, JWT), "invalid_request")
        assert [len(await h.store.links(session.id)) for session in await h.store.sessions()] == [1]
        expect(await h.exchange(holders[hop], chain, JWT))


async def test_a_root_that_says_more_than_the_store_gives_no_more(tmp_path: Path) -> None:
    """Also a root of our own key counts only as far as its link goes: an old rendering is no way around the store."""
    async with house(tmp_path) as h:
        planner, coder, _, root = await _line(h)
        said = claims_of(parse_chain(root)[0])
        wide: dict[str, Any] = {
            "authorization_details": None,
            "max_calls": None,
            "scope": "pr secret",
            "del_max_depth": 7,
        }
        claims = {name: value for name, value in {**said, **wide, **longer(said)}.items() if value is not None}
        forged = jose.sign(claims, typ=TYP, key=h.keys.signing, kid=h.keys.kid)
        for given in (
            {},
            {"scope": "secret:read"},
            {"scope": "pr:write"},
            {"scope": "pr:write", "tools": parse_tools(TOOLS)},
            {"scope": "pr:write", "max_calls": 5},
            {"scope": "pr:write", "tools": parse_tools(TOOLS), "max_calls": 5, "lifetime": timedelta(hours=12)},
        ):
            chain = h.derive(forged, planner, coder, **given)
            refused(await h.exchange(coder, chain, JWT), "access_denied")
        given = {"scope": "pr:write", "tools": parse_tools(TOOLS), "max_calls": 5}
        link = (await h.redeem(coder, h.derive(forged, planner, coder, **given)))["link"]
        found = await h.store.link(link)
        assert found is not None and found.scope == parse_scopes("pr:write")


async def test_who_may_not_do_it_any_more_has_given_it_to_nobody(tmp_path: Path) -> None:
    pull = {"owner": "acme", "repo": "api"}
    async with world(tmp_path) as w:
        planner = await w.ready("planner", "pr", depth=1, delegates_to=["coder"])
        coder = await w.agent("coder", ceiling="pr")
        await w.delegate(planner, "coder", "pr")
        assert not (await w.call(coder, "acme__list_pull_requests", **pull)).is_error
        changes = Changes(ceiling=parse_scopes("pr:read:acme:web"))
        await change_agent(w.store, w.clock, "planner", changes, roles={}, by=OPERATOR)
        denied = await w.call(coder, "acme__list_pull_requests", **pull)
        assert denied.envelope["reason"] == "insufficient_scope"
        assert (await w.decisions())[-1]["because"] == ["ceiling:planner"]
        async with w.client(coder) as client:  # nor is it shown what it could never use
            assert "acme__open_pull_request" not in {tool.name for tool in (await client.list_tools()).tools}
