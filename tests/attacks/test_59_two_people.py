"""Row 59: an agent with sessions for two people acts for the one that its signed assertion names, or for nobody."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from mcp_authz import limits
from mcp_authz.principals import Session
from mcp_authz.rules.scope import parse_scopes
from tests.oauth.house import OPERATOR, Actor, House, claims_of, house


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
