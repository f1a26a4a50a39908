"""An agent asks for a session, a person agrees to so much of it, and the agent has exactly that."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from mcp_authz.client import AgentIdentity
from mcp_authz.errors import InputError
from mcp_authz.model import HeldCall, HoldState
from mcp_authz.principals import AgentName, PersonName
from mcp_authz.revocation import Revocation
from mcp_authz.rules import session_request
from mcp_authz.rules.display import displayed
from tests.world import OPERATOR, Actor, Called, World, called, world

TOOL = session_request.NAME
PURPOSE = "fix issue 41 in acme/api"
EVERYTHING = "pr deploy secret:read"


async def agent_without_session(w: World, scope: str = EVERYTHING, **more: Any) -> Actor:
    """An agent that may do all this for alice, and whose session somebody has ended."""
    await w.person("alice")
    coder = await w.agent("coder", ceiling=scope, **more)
    session, _ = await w.start(await w.grant("alice", "coder", scope))
    await Revocation(w.store, w.clock).revoke("session", session.id, reason="test", by=OPERATOR)
    return coder


async def ask(w: World, coder: Actor, mode: str = "auto", /, **arguments: Any) -> Called:
    async with w.client(coder, mode) as client:
        return await called(client, TOOL, {"purpose": PURPOSE, **arguments})


async def held_request(w: World, coder: Actor, **arguments: Any) -> HeldCall:
    asked = await ask(w, coder, **arguments)
    assert asked.is_held, asked.text
    held = await w.store.hold(asked.hold)
    assert held is not None
    return held


async def sessions(w: World) -> list[Any]:
    return [session for session in await w.store.sessions() if session.status == "active"]


async def test_an_agent_without_a_session_gets_one_by_asking_for_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await agent_without_session(w)
        denied = await w.call(coder, "acme__list_pull_requests", owner="acme", repo="api")
        assert denied.envelope["reason"] == "no_session" and TOOL in denied.text

        held = await held_request(w, coder, minutes=30)
        assert await sessions(w) == []
        await w.answer(held.id, by="alice")
        opened = await ask(w, coder, minutes=30)

        assert not opened.is_error and opened.envelope["outcome"] == "session"
        (session,) = await sessions(w)
        assert session.subject == "alice" and session.purpose == PURPOSE
        assert session.expires_at - session.started_at == timedelta(minutes=30)
        listed = await w.call(coder, "acme__list_pull_requests", owner="acme", repo="api")
        assert not listed.is_error, listed.text


async def test_a_person_sees_the_request_as_one_sentence_with_every_tool_by_what_it_does(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await agent_without_session(w)
        held = await held_request(w, coder, minutes=30, tools=["acme__list_p*", "acme__open_*", "acme__deploy"])
        assert displayed(held).splitlines()[0] == (
            "coder asks: for 30 minutes, to fix issue 41 in acme/api: read with acme (list_pull_requests); "
            "write with acme (open_pull_request); acme (deploy) still held each time"
        )


async def test_what_destroys_is_still_held_in_a_session_that_was_asked_for(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await agent_without_session(w)
        await w.answer((await held_request(w, coder)).id, by="alice")
        assert not (await ask(w, coder)).is_error
        deploy = await w.call(coder, "acme__deploy", owner="acme", repo="api", environment="production", version="1")
        assert deploy.is_held and w.deployments() == []


async def test_the_session_has_the_tools_that_were_asked_for_and_no_other(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await agent_without_session(w)
        asked = {"tools": ["acme__list_pull_requests"]}
        await w.answer((await held_request(w, coder, **asked)).id, by="alice")
        await ask(w, coder, **asked)
        async with w.client(coder) as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
        assert names == {"acme__list_pull_requests", TOOL}


async def test_where_limits_the_arguments_of_every_tool_of_the_session(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await agent_without_session(w)
        asked = {"where": {"repo": "api"}}
        await w.answer((await held_request(w, coder, **asked)).id, by="alice")
        await ask(w, coder, **asked)
        here = await w.call(coder, "acme__list_pull_requests", owner="acme", repo="api")
        elsewhere = await w.call(coder, "acme__list_pull_requests", owner="acme", repo="web")
        assert not here.is_error and elsewhere.envelope["reason"] == "constraint"
        async with w.client(coder) as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
        assert "acme__read_secret" not in names  # it has no such argument, so it is not part of the session


async def test_a_person_gives_fewer_minutes_and_tools_than_were_asked_for(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await agent_without_session(w)
        held = await held_request(w, coder, minutes=60)
        terms = {"minutes": 5, "tools": ["acme__list_pull_requests"]}
        await w.answer(held.id, by="alice", terms=terms)
        opened = await ask(w, coder, minutes=60)
        assert "for 5 minutes" in opened.text
        (session,) = await sessions(w)
        (root,) = await w.store.links(session.id)
        assert session.expires_at - session.started_at == timedelta(minutes=5)
        assert list(root.tools) == ["acme__list_pull_requests"]


@pytest.mark.parametrize(
    "terms",
    [{"minutes": 61}, {"minutes": 0}, {"minutes": True}, {"tools": []}, {"tools": ["acme__other"]}, {"scope": "*"}],
    ids=["longer", "none", "no-number", "no-tool", "another-tool", "something-else"],
)
async def test_terms_that_do_not_narrow_the_request_are_no_answer(tmp_path: Path, terms: Any) -> None:
    async with world(tmp_path) as w:
        held = await held_request(w, await agent_without_session(w), minutes=60)
        with pytest.raises(InputError):
            await w.answer(held.id, by="alice", terms=terms)
        assert (await w.store.hold(held.id)).state is HoldState.PENDING


async def test_a_denied_request_opens_nothing_and_says_so(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await agent_without_session(w)
        held = await held_request(w, coder)
        await w.answer(held.id, by="alice", approve=False)
        again = await ask(w, coder)
        assert again.envelope["reason"] == "approval_denied" and await sessions(w) == []


async def test_an_agent_that_nobody_has_a_grant_for_asks_its_owner(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.person("alice")
        coder = await w.agent("coder", ceiling="pr", owner="alice")
        held = await held_request(w, coder, minutes=10, tools=["acme__list_pull*"])
        assert held.subject == "alice"
        await w.answer(held.id, by="alice")
        assert not (await ask(w, coder, minutes=10, tools=["acme__list_pull*"])).is_error
        (grant,) = await w.store.grants(agent=AgentName("coder"))
        assert grant.expires_at - grant.granted_at == timedelta(minutes=10)
        assert list(grant.tools) == ["acme__list_pull_requests"]
        assert not (await w.call(coder, "acme__list_pull_requests", owner="acme", repo="api")).is_error


async def test_an_agent_of_several_people_is_told_to_name_one_when_it_signs_in(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await agent_without_session(w)
        await w.person("bob")
        await w.grant("bob", "coder", "pr")
        asked = await ask(w, coder)
        assert asked.envelope["reason"] == "whose_session" and "subject" in asked.text
        async with w.client(coder, claims={"subject": "user:bob"}) as client:  # bob's only grant gives a session
            listed = await called(client, "acme__list_pull_requests", {"owner": "acme", "repo": "api"})
        assert not listed.is_error
        assert {session.subject for session in await sessions(w)} == {"bob"}


async def test_the_session_that_asks_for_another_is_replaced_by_it(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", EVERYTHING)
        (before,) = await sessions(w)
        await w.answer((await held_request(w, coder)).id, by="alice")
        assert not (await ask(w, coder)).is_error
        (after,) = await sessions(w)
        assert after.id != before.id and after.purpose == PURPOSE


async def test_a_waiting_request_is_refused_once_the_agent_is_revoked(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await agent_without_session(w)
        held = await held_request(w, coder)
        await Revocation(w.store, w.clock).revoke("agent", "coder", reason="test", by=OPERATOR)
        assert (await w.store.hold(held.id)).state is HoldState.CANCELLED and await sessions(w) == []


async def test_a_request_is_answered_in_the_prompt_of_an_interactive_agent_and_narrowed_there(tmp_path: Path) -> None:
    asked: list[str] = []

    async def answer(_: Any, params: Any) -> Any:
        from mcp_types import ElicitResult

        asked.append(params.message)
        return ElicitResult(action="accept", content={"approve": True, "minutes": 7, "only_reading": True})

    async with world(tmp_path) as w:
        coder = await agent_without_session(w, interactive=True)
        for mode in ("auto", "legacy"):
            async with w.client(coder, mode, elicitation_callback=answer) as client:
                opened = await called(client, TOOL, {"purpose": f"{PURPOSE}, {mode}", "minutes": 60})
            assert opened.envelope.get("outcome") == "session", opened.text
            (session,) = await sessions(w)
            (root,) = await w.store.links(session.id)
            assert session.expires_at - session.started_at == timedelta(minutes=7)
            assert "acme__open_pull_request" not in root.tools and "acme__list_pull_requests" in root.tools
            assert "coder asks: for 60 minutes" in asked[-1]


async def test_the_whole_story_of_a_request_is_on_record(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await agent_without_session(w)
        held = await held_request(w, coder)
        await w.answer(held.id, by="alice")
        await ask(w, coder)
        story = [d["decision"] for d in await w.decisions() if d.get("tool") == TOOL]
        assert story == ["hold", "permit"]
        (outcome,) = [r.event.fields for r in await w.records("outcome") if r.event.fields["tool"] == TOOL]
        assert outcome["outcome"] == "done"
        begun = (await w.records("session"))[-1].event.fields
        assert begun["by"] == "user:alice" and begun["purpose"] == PURPOSE


async def test_a_token_from_before_the_session_is_sent_back_for_a_new_one(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await agent_without_session(w)
        token = await w.token(coder)
        grant = await w.running.sessions.only_grant("alice", "coder")
        assert (await w.raw_call(token, "acme__list_pull_requests", {"owner": "a", "repo": "b"})).status_code == 200
        w.clock.advance(timedelta(seconds=2))
        await w.start(grant)
        refused = await w.raw_call(token, "acme__list_pull_requests", {"owner": "acme", "repo": "api"})
        assert refused.status_code == 401 and "a session has begun" in refused.headers["www-authenticate"]


async def test_a_token_of_one_person_is_not_sent_back_for_a_session_of_another(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr")
        (alices,) = await sessions(w)
        token = await w.token(coder)
        await Revocation(w.store, w.clock).revoke("session", alices.id, reason="test", by=OPERATOR)
        w.clock.advance(timedelta(seconds=2))
        await w.person("bob")
        await w.start(await w.grant("bob", "coder", "pr"))
        said = await w.raw_call(token, "acme__list_pull_requests", {"owner": "acme", "repo": "api"})
        assert said.status_code == 200 and "session_over" in said.text


async def test_an_agent_cannot_fill_the_list_of_what_waits_for_others(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await agent_without_session(w)
        other = await w.agent("other", ceiling="pr", owner="alice")
        texts = [(await ask(w, coder, minutes=1 + number)).envelope for number in range(21)]
        assert texts[19]["outcome"] == "held" and texts[20]["reason"] == "too_many_holds"
        assert (await ask(w, other)).is_held


async def test_the_token_answer_names_session_and_subject(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr")
        (session,) = await sessions(w)
        answer = (await w.token_answer(coder)).json()
        assert (answer["session"], answer["subject"]) == (session.id, "user:alice")
        await w.person("bob")
        await w.start(await w.grant("bob", "coder", "pr"))
        assert (await w.token_answer(coder)).json()["subject"] == "agent:coder"
        for person in (PersonName("alice"), PersonName("bob")):
            assertion = w.assertion(coder, subject=f"user:{person}")
            named = (await w.token_answer(coder, client_assertion=assertion)).json()
            assert named["subject"] == f"user:{person}"


async def test_an_agent_whose_owner_is_gone_is_told_that_there_is_nobody_to_ask(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.person("alice")
        coder = await w.agent("coder", ceiling="pr", owner="alice")
        await Revocation(w.store, w.clock).revoke("person", "alice", reason="test", by=OPERATOR)
        assert (await ask(w, coder)).envelope["reason"] == "nobody_to_ask"


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_a_stock_client_goes_on_in_its_new_session_without_starting_again(tmp_path: Path, mode: str) -> None:
    async def answer(_: Any, params: Any) -> Any:
        from mcp_types import ElicitResult

        return ElicitResult(action="accept", content={"approve": True})

    async with world(tmp_path) as w:
        coder = await agent_without_session(w, interactive=True)
        async with w.client(coder, mode, elicitation_callback=answer) as client:
            here = {"owner": "acme", "repo": "api"}
            assert (await called(client, "acme__list_pull_requests", here)).envelope["reason"] == "no_session"
            w.clock.advance(timedelta(seconds=2))
            assert not (await called(client, TOOL, {"purpose": PURPOSE})).is_error
            assert not (await called(client, "acme__list_pull_requests", here)).is_error


async def test_an_approval_from_when_there_was_a_grant_is_no_consent_to_a_new_one(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await agent_without_session(w)
        before = await held_request(w, coder)
        await w.answer(before.id, by="alice")
        (grant,) = await w.store.grants(agent=AgentName("coder"))
        await Revocation(w.store, w.clock).revoke("grant", grant.id, reason="test", by=OPERATOR)
        again = await ask(w, coder)
        assert again.is_held and again.hold != before.id and await sessions(w) == []
        assert (await w.store.hold(before.id)).state is HoldState.CANCELLED
        assert [g.status for g in await w.store.grants(agent=AgentName("coder"))] == ["revoked"]


async def test_the_record_names_who_agreed_and_not_only_for_whom_it_is(tmp_path: Path) -> None:
    async with world(tmp_path, approval={"session": {"by": ["group:ops"], "assurance": "signed-in"}}) as w:
        coder = await agent_without_session(w)
        await w.person("bob", "ops")
        await w.answer((await held_request(w, coder)).id, by="bob")
        assert not (await ask(w, coder)).is_error
        begun = (await w.records("session"))[-1].event.fields
        assert (begun["by"], begun["subject"]) == ("user:bob", "user:alice")


async def test_a_child_can_ask_nobody_for_more_and_is_not_shown_how(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        planner = AgentIdentity(name="planner", key=(await w.ready("planner", "pr", depth=1)).key)
        worker, chain = planner.child("worker-7", await planner.chain(w.url), scope="pr:read")
        auth = worker.auth(w.url, chain=chain)
        async with (
            httpx2.AsyncClient(auth=auth) as http,
            Client(streamable_http_client(w.url, http_client=http)) as client,
        ):
            listed = [tool.name for tool in (await client.list_tools()).tools]
            asked = await called(client, "authz__request_session", {"purpose": "more", "minutes": 5})
    assert listed == ["acme__list_pull_requests"]
    assert asked.is_error and asked.envelope["reason"] == "child"
