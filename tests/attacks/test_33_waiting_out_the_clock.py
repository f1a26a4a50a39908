"""Row 33: time runs out somewhere between question and run. What has expired was never approved."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mcp_authz import limits
from mcp_authz.delegating import Asked, Source
from mcp_authz.errors import AuthzError
from mcp_authz.model import Assurance, HoldId, HoldState
from mcp_authz.principals import AgentName, Chain, PersonName
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.rules.verdict import make_statement
from mcp_authz.store.ports import Event
from tests.attacks.attacker import Spy, answer_in, reason, spy, tool
from tests.world import ENVELOPE, OPERATOR, Actor, World, world

FORM = {"capabilities": {"elicitation": {"form": {}}}}
MINUTES = timedelta(minutes=1)


def servers(directory: Path) -> tuple[Spy, dict[str, Any]]:
    server = spy(directory / "spy", tool("drop"))
    return server, {"spy": server.config(tools={"drop": {"scopes": ["spy:drop"]}})}


async def told(w: World, token: str, **more: Any) -> dict[str, Any]:
    """The result of the one call of these tests, or the error."""
    message = answer_in(await w.raw_call(token, "spy__drop", {"n": 1}, **more))
    result: dict[str, Any] = message.get("result", message)
    return result


async def held(w: World, token: str) -> HoldId:
    return HoldId((await told(w, token))["_meta"][ENVELOPE]["hold"])


async def by_rule(w: World) -> tuple[Actor, dict[str, str]]:
    return await w.ready("coder", "spy:drop"), {}


async def by_session(w: World) -> tuple[Actor, dict[str, str]]:
    await w.person("alice")
    coder = await w.agent("coder", ceiling="spy:drop")
    await w.start(await w.grant("alice", "coder", "spy:drop"), lifetime=2 * MINUTES)
    return coder, {}


async def by_grant(w: World) -> tuple[Actor, dict[str, str]]:
    await w.person("alice")
    coder, scope = await w.agent("coder", ceiling="spy:drop"), parse_scopes("spy:drop")
    await w.start(await w.running.sessions.grant("alice", "coder", scope=scope, lifetime=2 * MINUTES, by=OPERATOR))
    return coder, {}


async def by_link(w: World) -> tuple[Actor, dict[str, str]]:
    await w.person("alice")
    coder = await w.agent("coder", ceiling="spy:drop")
    await w.agent("planner", ceiling="spy:drop", depth=1, delegates_to=["coder"])
    session, root = await w.start(await w.grant("alice", "planner", "spy:drop"))
    alice = await w.store.person(PersonName("alice"))
    source = Source(chain=Chain(links=(root,)), session=session, person=alice)
    link = await w.running.delegations.delegate(source, Asked(to=AgentName("coder"), lifetime=2 * MINUTES))
    return coder, {"delegation": link.id}


Begin = Callable[[World], Awaitable[tuple[Actor, dict[str, str]]]]
ENDS: dict[str, tuple[Begin, timedelta]] = {
    "rule": (by_rule, 15 * MINUTES),
    "session": (by_session, 2 * MINUTES),
    "grant": (by_grant, 2 * MINUTES),
    "link": (by_link, 2 * MINUTES),
}


@pytest.mark.parametrize("what", ENDS)
@pytest.mark.parametrize("approved", [True, False])
async def test_what_ends_first_ends_the_hold_approved_or_not(tmp_path: Path, what: str, approved: bool) -> None:
    begin, lasts = ENDS[what]
    server, config = servers(tmp_path)
    async with world(tmp_path, servers=config) as w:
        coder, claims = await begin(w)
        token = await w.token(coder, client_assertion=w.assertion(coder, **claims))
        hold = await held(w, token)
        waiting = await w.store.hold(hold)
        assert waiting.expires_at - waiting.asked_at <= lasts
        w.clock.advance(lasts - timedelta(seconds=5))
        if approved:
            await w.answer(hold, by="alice")  # in time, and collected too late
            assert (await w.store.hold(hold)).state is HoldState.APPROVED
        w.clock.advance(timedelta(seconds=10))
        with pytest.raises(AuthzError):
            await w.answer(hold, by="alice")
        assert (await w.store.hold(hold)).state is HoldState.EXPIRED
        await w.raw_call(token, "spy__drop", {"n": 1})
        again = await w.token_answer(coder)  # and with a fresh token
        if again.status_code == 200:
            await w.raw_call(again.json()["access_token"], "spy__drop", {"n": 1})
        assert server.ran == []
        # What was called after the end waits anew or was refused; the old approval stands behind none of it.
        assert "permit" not in [fields["decision"] for fields in await w.decisions()]


async def test_an_expired_hold_is_followed_by_a_new_question_never_by_a_run(tmp_path: Path) -> None:
    server, config = servers(tmp_path)
    async with world(tmp_path, servers=config) as w:
        coder = await w.ready("coder", "spy:drop")
        first = await held(w, await w.token(coder))
        for _ in range(3):
            w.clock.advance(16 * MINUTES)
            following = await held(w, await w.token(coder))
            assert following != first
            first = following
        assert server.ran == []


@pytest.mark.parametrize("asked_ago", [timedelta(minutes=16), limits.REQUEST_STATE_LIFETIME + timedelta(seconds=1)])
async def test_a_prompt_that_was_left_open_too_long_answers_nothing(tmp_path: Path, asked_ago: timedelta) -> None:
    server, config = servers(tmp_path)
    async with world(tmp_path, servers=config) as w:
        coder = await w.ready("coder", "spy:drop", interactive=True)
        question = await told(w, await w.token(coder), **FORM)
        w.clock.advance(asked_ago)
        yes = {"approval": {"action": "accept", "content": {"approve": True}}}
        state = {"requestState": question["requestState"], "inputResponses": yes}
        said = answer_in(await w.raw_call(await w.token(coder), "spy__drop", {"n": 1}, **FORM, **state))
        assert reason(said) == "request_state"
        assert server.ran == []


async def test_a_verdict_signed_earlier_is_not_heard_later(tmp_path: Path) -> None:
    server, config = servers(tmp_path)
    async with world(tmp_path, servers=config) as w:
        coder = await w.ready("coder", "spy:drop")
        hold = await held(w, await w.token(coder))
        statement = make_statement(
            await w.store.hold(hold),
            person=PersonName("alice"),
            approve=True,
            assurance=Assurance.SIGNED_IN,
            reason="",
            at=w.clock(),
            key=w.approvers["alice"],
        )
        w.clock.advance(limits.CLOCK_SKEW + timedelta(seconds=1))
        with pytest.raises(AuthzError):
            await w.running.approvals.hear_signed(hold, PersonName("alice"), statement)
        assert server.ran == []


async def test_an_idle_session_takes_its_approvals_with_it(tmp_path: Path) -> None:
    server, config = servers(tmp_path)
    async with world(tmp_path, servers=config, approval={"destructive": {"expires_minutes": 180}}) as w:
        coder = await w.ready("coder", "spy:drop")
        hold = await held(w, await w.token(coder))
        w.clock.advance(limits.SESSION_IDLE - timedelta(seconds=20))
        token = await w.token(coder)
        await w.answer(hold, by="alice")
        w.clock.advance(timedelta(seconds=21))
        said = await told(w, token)
        assert said["_meta"][ENVELOPE]["reason"] == "session_over"
        assert server.ran == []


async def test_a_revoked_agent_does_not_finish_what_was_held(tmp_path: Path) -> None:  # row 34
    server, config = servers(tmp_path)
    for kind, name in (("agent", "coder"), ("session", ""), ("grant", ""), ("person", "alice"), ("key", "")):
        async with world(tmp_path / kind, servers=config) as w:
            coder = await w.ready("coder", "spy:drop")
            token = await w.token(coder)
            hold = await held(w, token)
            await w.answer(hold, by="alice")
            (session,) = await w.store.sessions()
            found = {"session": session.id, "grant": session.grant, "key": coder.key.public.thumbprint}
            event = Event(kind="revocation", at=w.clock(), fields={"by": OPERATOR})
            await w.store.revoke(kind, found.get(kind, name), event)
            await w.raw_call(token, "spy__drop", {"n": 1})
            assert server.ran == [], kind
