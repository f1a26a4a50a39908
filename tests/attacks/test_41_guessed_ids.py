"""Row 41: ids of holds, calls and sessions are guessed, or taken from somebody else."""

from __future__ import annotations

from pathlib import Path

import anyio

from mcp_authz.ids import new_id
from mcp_authz.principals import AgentName
from tests.attacks.attacker import answer_in, reason, spy, tool
from tests.road.tasks import ask, begin, get
from tests.web.authenticator import visiting
from tests.web.team import team
from tests.web.test_consent import words
from tests.world import world

YES = {"approval": {"action": "accept", "content": {"approve": True}}}
FORM = {"capabilities": {"elicitation": {"form": {}}}}


def test_an_id_has_128_bits_and_none_comes_twice() -> None:
    ids = {new_id("h") for _ in range(10_000)}
    assert len(ids) == 10_000
    assert all(len(name.removeprefix("h_")) >= 22 for name in ids)  # 128 bits take 22 characters of base64url


async def test_the_hold_and_the_question_of_another_agent_are_of_no_use(tmp_path: Path) -> None:
    server = spy(tmp_path / "spy", tool("drop"))
    async with world(tmp_path, servers={"spy": server.config(tools={"drop": {"scopes": ["spy:drop"]}})}) as w:
        coder = await w.ready("coder", "spy:drop", interactive=True)
        rival = await w.token(await w.ready("rival", "spy:drop", interactive=True))
        token = await w.token(coder)
        asked = answer_in(await w.raw_call(token, "spy__drop", {}, **FORM))["result"]
        stolen = {"requestState": asked["requestState"], "inputResponses": YES}
        said = answer_in(await w.raw_call(rival, "spy__drop", {}, **FORM, **stolen))
        assert reason(said) == "request_state"
        (hold,) = await w.store.holds()
        for state in (hold.id, "h_" + "0" * 26, asked["requestState"][:-1] + "A", asked["requestState"] + "A"):
            retry = {"requestState": state, "inputResponses": YES}
            said = answer_in(await w.raw_call(token, "spy__drop", {"other": 1}, **FORM, **retry))
            assert reason(said) == "request_state", state
        assert server.ran == []


async def test_a_tool_out_of_reach_answers_like_one_that_is_not_there(tmp_path: Path) -> None:
    server = spy(tmp_path / "spy", tool("look"), tool("hidden"))
    async with world(tmp_path, servers={"spy": server.config()}) as w:
        token = await w.token(await w.ready("coder", "spy:look"))
        answers = []
        for name in ("spy__hidden", "spy__nothin"):
            answered = await w.raw_call(token, name, {"a": 1})
            headers = {key: value for key, value in answered.headers.items() if key != "date"}
            answers.append((answered.status_code, answered.text.replace(name, "NAME"), headers))
        assert answers[0] == answers[1]
        first, second = await w.decisions()
        assert {**first, "tool": ""} == {**second, "tool": ""}


async def test_the_task_of_another_agent_session_or_client_is_answered_like_one_that_never_was(tmp_path: Path) -> None:
    server = spy(tmp_path / "spy", tool("drop"))
    async with world(tmp_path, servers={"spy": server.config(tools={"drop": {"scopes": ["spy:drop"]}})}) as w:
        coder = await w.ready("coder", "spy:drop", interactive=True)
        mine = await w.token(coder)
        task = (await begin(w, mine, "spy__drop"))["taskId"]
        strangers = [await w.token(await w.ready("rival", "spy:drop", interactive=True))]
        (before,) = await w.store.grants(agent=AgentName("coder"))
        (old,) = [one for one in await w.store.sessions() if one.agent == "coder"]
        session, _ = await w.start(before)
        strangers.append(await w.token(coder, client_assertion=w.assertion(coder, session=session.id)))
        strangers.append((await w.client_agent("inspector", "alice", scope="spy:drop")).access_token)
        (held,) = await w.store.holds()
        await w.answer(held.id, by="alice")
        for token in strangers:
            for method in ("tasks/get", "tasks/update", "tasks/cancel"):
                answers = []
                for name in (task, "t_" + "0" * 26):
                    answered = await ask(w, token, method, name, inputResponses={"q1": YES["approval"]})
                    headers = {key: value for key, value in answered.headers.items() if key != "date"}
                    answers.append((answered.status_code, answered.text.replace(name, "TASK"), headers))
                assert answers[0] == answers[1] and answers[0][0] == 400, (method, answers)
        assert server.ran == [] and (await w.store.hold(held.id)).state == "approved"
        assert old.id != session.id
        mine = await w.token(coder, client_assertion=w.assertion(coder, session=old.id))
        assert (await get(w, mine, task))["status"] == "completed" and len(server.ran) == 1


async def test_the_session_link_or_agent_of_somebody_else_is_answered_like_one_that_never_was(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        made = await team(w)
        await w.person("mallory")
        link, key = made.links["coder"].id, made.actors["coder"].key.public.thumbprint
        paths = {
            "/sessions/NAME": made.session.id,
            "/sessions/NAME/picture.svg": made.session.id,
            "/events?session=NAME": made.session.id,
            "/agent/NAME": "coder",
            "/stop/session/NAME": made.session.id,
            "/stop/link/NAME": link,
            "/stop/agent/NAME": "coder",
            "/stop/key/NAME": key,
        }
        async with visiting(w, "mallory") as mallory:
            for path, name in paths.items():
                with anyio.fail_after(10):  # a stream that she got would have no end
                    told, missing = await mallory.get(path.replace("NAME", name)), await mallory.get(path)
                assert told.status_code == missing.status_code == 404, path
                assert words(told.text).replace(name, "NAME") == words(missing.text), path
                assert not [it for it in ("alice", "fix issue 41", "planner") if it in told.text], path
            for path in ("/sessions", "/agents"):
                assert "planner" not in (await mallory.get(path)).text
            older = await mallory.get(f"/sessions?over_before={made.session.id}")
            assert "planner" not in older.text
