"""The three modes: for a person, for itself, in a person's place; at the token endpoint and on the whole road."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mcp_authz import limits
from mcp_authz.config import parse_config
from mcp_authz.delegating import Asked, Source
from mcp_authz.errors import ConfigError, DelegationError, InputError, NotFound, TokenRefused
from mcp_authz.model import HoldState
from mcp_authz.principals import AgentName, Chain, Link, Mode, PersonName, Session
from mcp_authz.rules.impersonation import Impersonation
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.sessions import Sessions
from mcp_authz.settings import impersonations
from mcp_authz.store.ports import Lost
from tests.oauth.house import JWT, OPERATOR, Actor, House, claims_of, house, office, refused
from tests.world import World, world

BOTH_POLICIES = ["builtin:scopes_and_hazard", "builtin:own_workflows"]
DEPLOY = {"owner": "acme", "repo": "api", "environment": "production", "version": "1.4.0"}
AS_ALICE = {"agent": "coder", "person": "alice", "scopes": ["pr"]}


async def own(h: House, agent: Actor, scope: str = "pr", **more: Any) -> tuple[Session, Link]:
    """A session in which the agent works for itself."""
    started = {"purpose": "nightly", "scope": parse_scopes(scope), "by": OPERATOR, **more}
    return await h.sessions.start_own(agent.name, **started)


def impersonating(h: House, *scopes: str, person: str = "alice") -> Sessions:
    """Sessions under a configuration that lets the coder impersonate a person."""
    entry = Impersonation(agent=AgentName("coder"), person=PersonName(person), scope=parse_scopes(scopes))
    return Sessions(h.store, h.clock, h.chains.signatures, impersonations=[entry])


async def impersonated(h: House) -> tuple[Actor, Session, Link]:
    """The coder works in alice's place, and everything knows that it may."""
    coder = await h.agent("coder", depth=2, delegates_to=frozenset({AgentName("helper")}))
    h.sessions._impersonations = impersonating(h, "pr")._impersonations
    grant = await h.grant(coder)
    return coder, *await h.sessions.start(grant, purpose="export", mode=Mode.IMPERSONATED, by=OPERATOR)


# For itself


async def test_an_agent_that_works_for_itself_is_the_subject_of_its_token(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner = await h.agent("planner")
        session, root = await own(h, planner)
        token = await h.token(planner)
        said, caller = claims_of(token), await h.caller(token)
    assert (said["sub"], said["sid"], said["lnk"], said["mode"]) == ("agent:planner", session.id, root.id, "own")
    assert said["act"]["sub"] == "agent:planner" and "act" not in said["act"]
    assert caller.person is None and caller.session == session and caller.chain is not None
    assert (session.mode, session.subject, session.principal) == (Mode.OWN, None, "agent:planner")


async def test_what_works_for_itself_is_delegated_on_in_its_name(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner = await h.agent("planner", depth=1, delegates_to=frozenset({AgentName("coder")}))
        coder = await h.agent("coder")
        await own(h, planner)
        token = await h.delegated(planner, coder)
        said, caller = claims_of(token), await h.caller(token)
        step = (await h.events("delegation"))[0]
    assert (said["sub"], said["mode"]) == ("agent:planner", "own")
    assert [said["act"]["sub"], said["act"]["act"]["sub"]] == ["agent:coder", "agent:planner"]
    assert caller.agent.name == "coder" and caller.person is None
    assert (step["subject"], step["mode"], step["from"]) == ("agent:planner", "own", "agent:planner")


async def test_a_signed_chain_of_what_works_for_itself_is_redeemed_too(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner = await h.agent("planner", depth=1, delegates_to=frozenset({AgentName("coder")}))
        coder = await h.agent("coder")
        await own(h, planner)
        chain = h.derive(await h.root(planner), planner, coder)
        answer = await h.exchange(coder, chain, JWT)
        caller = await h.caller(answer.json()["access_token"])
    assert caller.session is not None and caller.session.principal == "agent:planner"


@pytest.mark.parametrize("when", ["before", "after"])
async def test_an_agent_whose_owner_is_gone_works_for_nobody(tmp_path: Path, when: str) -> None:
    async with house(tmp_path) as h:
        planner, coder = await h.agent("planner"), await h.agent("coder", owner="bob")
        if when == "before":
            await h.revoke("person", "alice")
            with pytest.raises(NotFound, match="alice"):
                await own(h, planner)
            return
        await own(h, planner)
        await own(h, coder)
        token, others = await h.token(planner), await h.token(coder)
        caller = await h.caller(token)
        await h.revoke("person", "alice")
        with pytest.raises(TokenRefused, match="the owner of the agent, which works for itself"):
            await h.caller(token)
        assert await h.store.open_links(planner.name, h.clock()) == ()
        assert await h.spend(caller) == Lost(reason="revoked")
        assert isinstance(await h.spend(await h.caller(others)), int)


async def test_no_session_without_a_person_opens_by_itself(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner = await h.agent("planner")
        await own(h, planner, lifetime=timedelta(hours=1))
        h.clock.ahead = limits.SESSION_IDLE
        assert "sid" not in claims_of(await h.token(planner))
        assert len(await h.store.sessions()) == 1


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"scope": parse_scopes("deploy")}, DelegationError),
        ({"max_depth": 1}, DelegationError),
        ({"max_depth": -1}, InputError),
        ({"purpose": " "}, InputError),
    ],
)
async def test_an_agent_has_no_more_for_itself_than_it_may(tmp_path: Path, wrong: Any, error: type[Exception]) -> None:
    async with office(tmp_path) as h:
        planner = await h.agent("planner", "pr")
        with pytest.raises(error):
            await own(h, planner, **wrong)
        assert await h.store.grants() == () and await h.store.sessions() == ()


async def test_a_grant_of_a_person_opens_no_session_without_one_nor_the_other_way_round(tmp_path: Path) -> None:
    async with office(tmp_path) as h:
        coder = await h.agent("coder")
        theirs = await h.grant(coder)
        mine = await h.sessions.grant(None, coder.name, scope=parse_scopes("pr"), by=OPERATOR)
        with pytest.raises(InputError, match="for itself"):
            await h.sessions.start(theirs, purpose="x", mode=Mode.OWN, by=OPERATOR)
        for mode in (Mode.DELEGATED, Mode.IMPERSONATED):
            with pytest.raises(InputError, match="for nobody else without one"):
                await h.sessions.start(mine, purpose="x", mode=mode, by=OPERATOR)


# In a person's place


async def test_an_agent_impersonates_where_the_configuration_says_so_and_everybody_can_see_it(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder, session, root = await impersonated(h)
        said = claims_of(await h.token(coder))
        (fields,) = await h.events("session")
    assert (said["sub"], said["mode"], said["act"]["sub"]) == ("user:alice", "impersonated", "agent:coder")
    assert session.mode is Mode.IMPERSONATED and root.max_depth == 0
    assert fields["mode"] == "impersonated" and fields["summary"] == "coder works as alice: export"


@pytest.mark.parametrize(
    ("scopes", "person"), [((), "alice"), (("pr:read",), "alice"), (("secret",), "alice"), (("pr",), "bob")]
)
async def test_nobody_impersonates_beyond_the_configuration(
    tmp_path: Path, scopes: tuple[str, ...], person: str
) -> None:
    async with office(tmp_path) as h:
        grant = await h.grant(await h.agent("coder"))
        with pytest.raises(DelegationError, match="does not let `coder` impersonate `alice`"):
            await impersonating(h, *scopes, person=person).start(
                grant, purpose="x", mode=Mode.IMPERSONATED, by=OPERATOR
            )
        assert await h.store.sessions() == ()


async def test_an_entry_that_is_gone_ends_the_sessions_that_it_permitted(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder, session, _ = await impersonated(h)
        token = await h.token(coder)
        h.sessions._impersonations = ()
        with pytest.raises(TokenRefused, match="does not let the agent impersonate"):
            await h.caller(token)
        assert await h.sessions.which(coder.name, session=session.id) is None


async def test_what_is_impersonated_is_never_delegated_or_exchanged(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder, session, root = await impersonated(h)
        helper = await h.agent("helper")
        token = await h.token(coder)
        refused(await h.exchange(coder, token, requested_actor="agent:helper"), "invalid_request")
        refused(await h.exchange(coder, token, requested_token_type=JWT), "invalid_request")
        with pytest.raises(DelegationError, match="impersonates"):
            await h.link(root, session, helper.name)
        with pytest.raises(DelegationError, match="is never delegated"):
            grant = await h.store.grant(session.grant)
            assert grant is not None
            await h.sessions.start(grant, purpose="x", mode=Mode.IMPERSONATED, max_depth=1, by=OPERATOR)


def test_the_configuration_names_agent_person_and_scopes() -> None:
    (entry,) = impersonations(parse_config({"impersonation": [AS_ALICE]}))
    assert (entry.agent, entry.person, entry.scope) == ("coder", "alice", parse_scopes("pr"))
    for wrong in ({**AS_ALICE, "scopes": []}, {"agent": "coder", "person": "alice"}, {**AS_ALICE, "all": True}):
        with pytest.raises(ConfigError):
            parse_config({"impersonation": [wrong]})
    with pytest.raises(ConfigError, match=r"impersonation\.scopes"):
        impersonations(parse_config({"impersonation": [{**AS_ALICE, "scopes": ["pr::x"]}]}))


# On the road


async def _workflow(w: World, **more: Any) -> Any:
    """A planner of alice's that works for itself."""
    await w.person("alice")
    planner = await w.agent("planner", ceiling="pr deploy", **more)
    started = {"purpose": "nightly", "scope": parse_scopes("pr deploy"), "by": OPERATOR}
    await w.running.sessions.start_own("planner", **started)
    return planner


async def test_the_default_policy_is_for_people_only(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        planner = await _workflow(w)
        denied = await w.call(planner, "acme__list_pull_requests", owner="acme", repo="api")
        fields = (await w.decisions())[-1]
    assert denied.envelope["reason"] == "policy"
    assert (fields["subject"], fields["mode"], fields["actor"]) == ("agent:planner", "own", "agent:planner")


async def test_a_workflow_reads_by_itself_and_waits_for_its_owner_before_it_destroys(tmp_path: Path) -> None:
    async with world(tmp_path, policy=BOTH_POLICIES) as w:
        planner = await _workflow(w, interactive=True)
        assert not (await w.call(planner, "acme__list_pull_requests", owner="acme", repo="api")).is_error
        waits = await w.call(planner, "acme__deploy", **DEPLOY)
        held = await w.store.hold(waits.hold)
        await w.answer(waits.hold, by="alice")
        ran = await w.call(planner, "acme__deploy", **DEPLOY)
        assert [made["version"] for made in w.deployments()] == ["1.4.0"]
    assert waits.is_held and not ran.is_error
    assert (held.mode, held.subject, held.state) == (Mode.OWN, "alice", HoldState.PENDING)


async def test_an_agent_in_a_persons_place_asks_for_no_other_session_and_its_client_approves_nothing(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, impersonation=[{**AS_ALICE, "scopes": ["deploy"]}]) as w:
        await w.person("alice")
        coder = await w.agent("coder", ceiling="deploy", interactive=True)
        await w.start(await w.grant("alice", "coder", "deploy"), mode=Mode.IMPERSONATED)
        asked = await w.call(coder, "authz__request_session", purpose="more", tools=["acme__deploy"], minutes=5)
        waits = await w.call(coder, "acme__deploy", **DEPLOY)
        held = await w.store.hold(waits.hold)
    assert asked.envelope["reason"] == "impersonating" and waits.is_held
    assert held.mode is Mode.IMPERSONATED


async def test_a_step_of_a_workflow_is_put_to_policy_without_a_person(tmp_path: Path) -> None:
    async with world(tmp_path, policy=BOTH_POLICIES) as w:
        await _workflow(w, depth=1, delegates_to=["coder"])
        await w.agent("coder", ceiling="pr")
        link = await _delegate(w)
        assert link.holder == "coder"
    async with world(tmp_path / "other") as w:
        await _workflow(w, depth=1, delegates_to=["coder"])
        await w.agent("coder", ceiling="pr")
        with pytest.raises(DelegationError, match="no policy permits the action `delegate`"):
            await _delegate(w)


async def _delegate(w: World) -> Link:
    ((session, root),) = await w.store.open_links(AgentName("planner"), w.clock())
    source = Source(chain=Chain(links=(root,)), session=session, person=None)
    return await w.running.delegations.delegate(source, Asked(to=AgentName("coder")))
