"""Row 59: an agent with sessions for two people acts for the one that its signed assertion names, or for nobody."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from mcp_authz import limits
from mcp_authz.errors import Conflict
from mcp_authz.principals import Agent, AgentName, Grant, GrantId, PersonName, Session
from mcp_authz.revocation import Revocation
from mcp_authz.rules import jose
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.rules.token import ACCESS_TOKEN
from mcp_authz.store.ports import Event
from tests.attacks.attacker import answer_in
from tests.oauth.house import OPERATOR, Actor, House, claims_of, house
from tests.road.wire import wire
from tests.world import LEGACY, ClientActor, World, world

PULL = {"owner": "acme", "repo": "api"}
TOOL = "acme__list_pull_requests"
DEPLOY = {**PULL, "environment": "staging", "version": "1.4.0"}


async def _two(h: House) -> tuple[Actor, Session, Session]:
    coder = await h.agent("coder")
    await h.person("bob")
    alices, _ = await h.start(coder, subject="alice")
    bobs, _ = await h.start(coder, subject="bob")
    return coder, alices, bobs


async def test_without_a_named_session_the_agent_acts_for_nobody(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder, _, _ = await _two(h)
        assert claims_of(await h.token(coder))["sub"] == "agent:coder"


async def test_the_named_session_decides_for_whom(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder, alices, bobs = await _two(h)
        for session, person in ((alices, "user:alice"), (bobs, "user:bob")):
            said = claims_of(await h.token(coder, claims={"session": session.id}))
            assert (said["sub"], said["sid"]) == (person, session.id)


async def test_only_the_signed_assertion_names_a_session_or_a_person(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder, alices, _ = await _two(h)
        form = {"session": alices.id, "sid": alices.id, "subject": "user:alice", "on_behalf_of": "alice"}
        assert claims_of(await h.token(coder, **form))["sub"] == "agent:coder"
        for claims in ({"sid": alices.id}, {"act": {"sub": "user:alice"}}, {"subject": "user:carol"}):
            assert claims_of(await h.token(coder, claims=claims))["sub"] == "agent:coder"
        assert claims_of(await h.token(coder, claims={"subject": "user:alice"}))["sid"] == alices.id


async def test_a_claim_that_names_the_person_keeps_to_them_when_their_session_ends(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder, alices, _ = await _two(h)
        await h.revoke("session", alices.id)
        assert claims_of(await h.token(coder, claims={"subject": "user:alice"}))["sub"] == "agent:coder"


async def test_an_agent_that_named_a_session_is_not_moved_to_another_persons_when_it_ends(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder, alices, _ = await _two(h)
        await h.revoke("session", alices.id)
        assert claims_of(await h.token(coder, claims={"session": alices.id}))["sub"] == "agent:coder"


async def test_grants_of_two_people_open_no_session_by_themselves(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        await h.person("bob")
        await h.grant(coder, subject="alice")
        await h.grant(coder, subject="bob")
        assert claims_of(await h.token(coder))["sub"] == "agent:coder" and await h.store.sessions() == ()


async def test_a_token_stays_with_the_person_it_was_issued_for(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder, alices, _ = await _two(h)
        token = await h.token(coder, claims={"session": alices.id})
        await h.revoke("session", alices.id)
        caller = await h.caller(token)
        assert caller.session_over and caller.person is None


async def test_a_delegation_from_one_persons_session_and_a_session_of_another_are_not_mixed(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        _, coder, session, root = await h.family()
        await h.person("bob")
        bobs, _ = await h.start(coder, subject="bob")
        link = await h.link(root, session, coder.name)
        assert claims_of(await h.token(coder))["sub"] == "agent:coder"
        for claims in ({"session": bobs.id, "delegation": link.id}, {"session": session.id, "delegation": root.id}):
            assert claims_of(await h.token(coder, claims=claims))["sub"] == "agent:coder"
        assert claims_of(await h.token(coder, claims={"delegation": link.id}))["sub"] == "user:alice"


async def test_after_one_persons_session_ran_idle_the_name_of_the_other_is_still_asked_for(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder, alices, bobs = await _two(h)
        h.clock.ahead = limits.SESSION_IDLE
        for claims in ({"session": alices.id}, {"session": bobs.id}, None):
            assert claims_of(await h.token(coder, claims=claims))["sub"] == "agent:coder"


@pytest.mark.parametrize("ended", ["revoked", "idle", "expired"])
async def test_the_one_session_that_is_left_is_nobodys_guess(tmp_path: Path, ended: str) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        await h.person("bob")
        alices, _ = await h.start(coder, subject="alice", lifetime=timedelta(minutes=30))
        bobs = await h.start(coder, subject="bob")
        if ended == "revoked":
            await h.revoke("session", alices.id)
        if ended == "idle":
            h.clock.ahead = limits.SESSION_IDLE
            bobs = await h.start(coder, subject="bob")
        if ended == "expired":
            h.clock.ahead = timedelta(minutes=31)
        assert claims_of(await h.token(coder))["sub"] == "agent:coder"
        for claims in ({"subject": "user:bob"}, {"session": bobs[0].id}, {"delegation": bobs[1].id}):
            if ended != "idle" or "subject" not in claims:
                assert claims_of(await h.token(coder, claims=claims))["sub"] == "user:bob"


async def test_a_person_who_only_let_the_agent_act_is_asked_about_too(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        await h.person("bob")
        await h.start(coder, subject="alice")
        assert claims_of(await h.token(coder))["sub"] == "user:alice"
        await h.grant(coder, subject="bob")
        assert claims_of(await h.token(coder))["sub"] == "agent:coder"


async def test_who_was_delegated_to_by_two_people_is_asked_too(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        planner, coder, session, root = await h.family()
        await h.person("bob")
        await h.link(root, session, coder.name)
        bobs, bobs_root = await h.start(planner, subject="bob")
        await h.link(bobs_root, bobs, coder.name)
        await h.revoke("session", session.id)
        assert claims_of(await h.token(coder))["sub"] == "agent:coder"
        assert claims_of(await h.token(coder, claims={"subject": "user:bob"}))["sub"] == "user:bob"


async def test_an_agent_that_works_for_itself_and_for_a_person_is_asked_for_whom(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        mine, _ = await h.sessions.start_own(coder.name, purpose="own", scope=parse_scopes("pr"), by=OPERATOR)
        alices, _ = await h.start(coder)
        await h.revoke("session", alices.id)
        assert "sid" not in claims_of(await h.token(coder))
        assert claims_of(await h.token(coder, claims={"subject": "agent:coder"}))["sid"] == mine.id


async def test_a_day_later_an_agent_of_one_person_is_asked_nothing_again(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder, alices, bobs = await _two(h)
        for grant in (alices.grant, bobs.grant):
            await h.revoke("grant", grant)
        h.clock.ahead = timedelta(hours=23)
        session, _ = await h.start(coder, subject="bob")
        assert claims_of(await h.token(coder))["sub"] == "agent:coder"
        h.clock.ahead = limits.PEOPLE_REMEMBERED + timedelta(seconds=1)
        assert claims_of(await h.token(coder))["sid"] == session.id


async def test_an_agent_of_one_person_goes_on_from_session_to_session_unasked(tmp_path: Path) -> None:
    async with house(tmp_path) as h:
        coder = await h.agent("coder")
        first, _ = await h.start(coder)
        await h.revoke("session", first.id)
        second, _ = await h.start(coder)
        assert claims_of(await h.token(coder))["sid"] == second.id


# Two people who use the same client: each has an agent of their own, and the two never mix.


async def _both(w: World, *, alice: str = "pr deploy", bob: str = "pr deploy") -> tuple[ClientActor, ClientActor]:
    return await w.client_agent("cursor", "alice", scope=alice), await w.client_agent("cursor", "bob", scope=bob)


async def test_what_one_person_agreed_to_gives_the_other_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        alices, bobs = await _both(w, bob="deploy:read")
        answers = [(await w.raw_call(one.access_token, TOOL, PULL)).status_code for one in (alices, bobs)]
        said = [(f["actor"], f["subject"], f["decision"]) for f in await w.decisions()]
        asked = [w.running.step_ups.of(AgentName(one.name)) for one in (alices, bobs)]
    assert answers == [200, 403]
    assert said == [("agent:cursor@alice", "user:alice", "permit"), ("agent:cursor@bob", "user:bob", "deny")]
    assert asked[0] is None and asked[1] is not None


async def test_ending_one_persons_grant_leaves_the_others_alone(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        alices, bobs = await _both(w)
        await Revocation(w.store, w.clock).revoke("grant", alices.grant, reason="test", by=OPERATOR)
        answers = [(await w.raw_call(one.access_token, TOOL, PULL)).status_code for one in (alices, bobs)]
    assert answers == [401, 200]


async def test_the_same_call_of_both_is_two_calls_that_wait_and_each_is_for_its_own_person(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        for one in await _both(w):
            answer_in(await w.raw_call(one.access_token, "acme__deploy", DEPLOY))
        held = {hold.actor: hold for hold in await w.store.holds()}
        await w.answer(held[AgentName("cursor@alice")].id, by="alice")
        bobs = await w.client_agent("cursor", "bob", scope="pr deploy")
        answer = answer_in(await w.raw_call(bobs.access_token, "acme__deploy", DEPLOY))
        assert w.deployments() == []
    assert {(hold.actor, hold.subject) for hold in held.values()} == {("cursor@alice", "alice"), ("cursor@bob", "bob")}
    assert answer["result"]["_meta"]["dev.mcp-authz/outcome"]["outcome"] == "held"


@pytest.mark.parametrize("claims", [["sub"], ["act"], ["sid"], ["lnk"], ["sub", "act"], ["sid", "lnk"], ["client_id"]])
async def test_a_token_that_mixes_two_people_is_none_even_under_our_own_signature(
    tmp_path: Path, claims: list[str]
) -> None:
    async with world(tmp_path) as w:
        alices, bobs = await _both(w)
        theirs = claims_of(bobs.access_token)
        if claims == ["client_id"]:
            theirs = claims_of((await w.client_agent("rival", "alice", scope="pr")).access_token)
        mixed = claims_of(alices.access_token) | {name: theirs[name] for name in claims}
        keys = w.running.issuer_keys
        token = jose.sign(mixed, typ=ACCESS_TOKEN, key=keys.signing, kid=keys.kid)
        refused = await w.raw_call(token, TOOL, PULL)
        assert await w.decisions() == []
    assert refused.status_code == 401


async def test_a_connection_that_one_agent_opened_is_not_the_others(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        alices, bobs = await _both(w)
        async with wire(w, alices, LEGACY) as client:
            client.headers["authorization"] = f"Bearer {bobs.access_token}"
            refused = await client.call(TOOL, PULL)
            client.headers["authorization"] = f"Bearer {alices.access_token}"
            done = await client.call(TOOL, PULL)
        said = [f["actor"] for f in await w.decisions()]
    assert (refused.status, done.status) == (404, 200)
    assert said == ["agent:cursor@alice"]


async def test_an_agent_of_one_person_is_nobody_elses_whatever_they_are_called(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        alices, _ = await _both(w)
        await w.client_agent("rival", "bob", scope="pr")
        agent = await w.store.agent(AgentName(alices.name))
        (grant,) = await w.store.grants(agent=AgentName(alices.name))
        event = Event(kind="grant", at=w.clock(), fields={})
        for wrong in ({"owner": PersonName("bob")}, {"client": "https://rival.example/client.json"}):
            claimed = Agent(**{"name": agent.name, "owner": agent.owner, "client": agent.client, **wrong})
            with pytest.raises(Conflict):
                await w.store.authorize(claimed, _for(grant, claimed), None, event)


def _for(grant: Grant, agent: Agent) -> Grant:
    return replace(grant, id=GrantId("g_other"), subject=agent.owner, client=agent.client)


async def test_a_client_agent_acts_for_its_own_person_only_whoever_else_lets_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        alices, bobs = await _both(w)
        session, root = await w.start(await w.grant("bob", alices.name, "pr"))
        keys = w.running.issuer_keys
        mixed = claims_of(alices.access_token) | {"sub": "user:bob", "sid": session.id, "lnk": root.id}
        token = jose.sign(mixed, typ=ACCESS_TOKEN, key=keys.signing, kid=keys.kid)
        assert (await w.raw_call(token, TOOL, PULL)).status_code == 401
        assert (await w.raw_call(bobs.access_token, TOOL, PULL)).status_code == 200
