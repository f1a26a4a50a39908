"""What an agent may have can be changed, and counts at the next use."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mcp_authz.agents import Agents
from mcp_authz.changing import Changes, bound_client_agents, change_agent
from mcp_authz.enrolment import Codes
from mcp_authz.errors import AuthzError, Conflict, DelegationError, InputError, NotFound
from mcp_authz.evaluation import effective
from mcp_authz.principals import Agent, AgentName
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.scope import Scope, covered, parse_scopes
from tests.oauth.house import JWT, OPERATOR, Actor, House, claims_of, house, office, refused

ROLES = {"reader": parse_scopes("pr:read git:read"), "writer": parse_scopes("pr:write git:read")}


async def change(h: House, name: str = "coder", **changes: Any) -> Agent:
    if "ceiling" in changes:
        changes["ceiling"] = parse_scopes(changes["ceiling"])
    return await change_agent(h.store, h.clock, name, Changes(**changes), roles=ROLES, by=OPERATOR)


async def test_what_is_not_named_stays_and_every_change_is_recorded(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        await h.agent("coder", "pr", depth=1, labels={"team": "web"})
        before = await h.store.agent(AgentName("coder"))
        after = await change(h, depth=3, delegates_to=frozenset({"helper"}))
        assert before is not None and await h.store.agent(AgentName("coder")) == after
        assert (after.ceiling, after.labels, after.owner) == (before.ceiling, before.labels, before.owner)
        assert (after.depth, after.delegates_to) == (3, {"helper"})
        fields = (await h.events("administration"))[-1]
        assert (fields["agent"], fields["by"], fields["depth"]) == ("agent:coder", OPERATOR, 3)


async def test_a_lower_ceiling_counts_for_sessions_that_are_open(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder", "pr")
        await h.start(coder)
        await change(h, ceiling="pr:read")
        caller = await h.caller(await h.token(coder))
        assert caller.agent.ceiling == parse_scopes("pr:read")
        assert "pr:read" in claims_of(await h.token(coder))["scope"]


async def test_a_list_of_delegates_that_lost_one_lets_no_further_step_be_made(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        _, coder, session, root = await h.family()
        await change(h, "planner", delegates_to=frozenset())
        with pytest.raises(DelegationError, match="may not delegate"):
            await h.link(root, session, coder.name)


async def test_the_scopes_of_roles_come_and_go_with_them(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        await h.agent("coder", "deploy")
        with_role = await change(h, roles=frozenset({"reader"}))
        assert with_role.ceiling == parse_scopes("deploy pr:read git:read") and with_role.roles == {"reader"}
        other = await change(h, roles=frozenset({"writer"}))
        assert other.ceiling == parse_scopes("deploy pr:write git:read")
        assert (await change(h, ceiling="time")).ceiling == parse_scopes("time pr:write git:read")
        assert (await change(h, roles=frozenset())).ceiling == parse_scopes("time")


@pytest.mark.parametrize(
    ("name", "changes", "error"),
    [
        ("nobody", {"depth": 1}, NotFound),
        ("coder", {"depth": -1}, InputError),
        ("coder", {"depth": 99}, InputError),
        ("coder", {"roles": frozenset({"king"})}, InputError),
        ("coder", {"delegates_to": frozenset({"No One"})}, InputError),
    ],
)
async def test_what_cannot_be_is_refused_and_changes_nothing(
    tmp_path: Path, name: str, changes: Any, error: type[AuthzError]
) -> None:
    async with office(tmp_path) as h:
        coder: Actor = await h.agent("coder", "pr")
        before = await h.store.agent(coder.name)
        with pytest.raises(error):
            await change(h, name, **changes)
        assert await h.store.agent(coder.name) == before


async def test_a_revoked_agent_is_not_changed(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        await h.agent("coder", "pr")
        await h.revoke("agent", "coder")
        with pytest.raises(Conflict, match="revoked"):
            await change(h, depth=1)


async def test_what_was_delegated_shrinks_with_the_ceiling_of_whoever_delegated_it(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, *_ = await h.family()
        token, chain = await h.delegated(planner, coder), await h.root(planner)
        held = parse_scopes("pr:read")
        await change_agent(h.store, h.clock, "planner", Changes(ceiling=held), roles={}, by=OPERATOR)

        caller = await h.caller(token)
        assert covered(Scope("pr:write"), caller.chain.leaf.scope)  # type: ignore[union-attr]  # the link itself stays
        assert effective(caller) == held
        refused(await h.exchange(coder, h.derive(chain, planner, coder, scope="pr:write"), JWT), "access_denied")
        assert set(claims_of(await h.delegated(planner, coder))["scope"].split()) == {"mcp:connect", "pr:read"}


async def test_a_clients_agent_is_bounded_by_the_configuration_and_by_no_change_that_a_consent_would_undo(
    tmp_path: Path,
) -> None:
    async with office(tmp_path) as h:
        await h.agreed(await h.client(), scope="pr")
        name = "cursor@alice"
        for changes in ({"ceiling": "pr:read"}, {"depth": 3}, {"roles": frozenset({"reader"})}):
            with pytest.raises(Conflict, match="ceiling"):
                await change(h, name, **changes)
        with pytest.raises(Conflict, match="no key"):
            await Agents(h.store, h.clock).rotate(name, PrivateKey.generate().public, timedelta(), by=OPERATOR)
        with pytest.raises(Conflict, match="no key"):
            await Codes(h.store, h.clock).make(AgentName(name), by=OPERATOR)


async def test_what_clients_may_have_shrinks_with_the_configuration_and_does_not_grow_by_it(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder, app = await h.agent("coder", "pr deploy"), await h.client()
        said = await h.signed_in(app, scope="pr deploy")
        await bound_client_agents(h.store, h.clock, None)
        await bound_client_agents(h.store, h.clock, parse_scopes("pr:read git"))
        caller = await h.caller(said["access_token"])
        assert caller.agent.ceiling == effective(caller) == parse_scopes("pr:read")
        recorded = await h.events("administration")
        assert (recorded[-1]["agent"], recorded[-1]["by"]) == ("agent:cursor@alice", "configuration")
        await bound_client_agents(h.store, h.clock, parse_scopes("pr"))
        assert (await h.caller(said["access_token"])).agent.ceiling == parse_scopes("pr:read")
        assert await h.events("administration") == recorded
        kept = await h.store.agent(coder.name)
        assert kept is not None and kept.ceiling == parse_scopes("pr deploy")
