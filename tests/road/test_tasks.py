"""Held calls as tasks: durable, run once by a poll of their owner, and read again until their time is up."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio

from mcp_authz.model import HoldState
from mcp_authz.revocation import Revocation
from mcp_authz.rules.session_request import NAME as REQUEST_SESSION
from tests.attacks.attacker import answer_in, spy, tool, until
from tests.road.places import DESTRUCTIVE, asking, plain
from tests.road.tasks import (
    EXTENSION,
    FORM,
    NO_SUCH_TASK,
    TASKS,
    URL,
    ask,
    begin,
    body,
    get,
    listening,
    refused,
    update,
)
from tests.road.test_questions import ASKED, RED, received
from tests.signing import signing
from tests.world import MODERN, OPERATOR, ROOT, World, modern_call, world

YES = {"action": "accept", "content": {"approve": True}}
NO = {"action": "accept", "content": {"approve": False}}
CLOSED = {"action": "cancel"}


async def only_hold(w: World, state: HoldState = HoldState.PENDING) -> Any:
    (held,) = await w.store.holds(states=[state])
    return held


async def test_a_held_call_is_a_task_that_twenty_polls_after_the_approval_run_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        token = await w.token(await w.ready("coder", "deploy"))
        made = await begin(w, token)
        task, held = made["taskId"], await only_hold(w)
        assert made["status"] == "working" and made["ttlMs"] > 0 and made["pollIntervalMs"] > 0
        assert held.id in made["statusMessage"] and made.keys().isdisjoint({"result", "error", "inputRequests"})
        assert (await begin(w, token))["taskId"] == task  # an identical call of the same owner is the same task
        assert (await get(w, token, task))["status"] == "working" and w.deployments() == []

        await w.answer(held.id, by="alice", reason="go")
        assert w.deployments() == []  # nothing runs detached from a request of its owner
        polls: list[dict[str, Any]] = []

        async def poll() -> None:
            polls.append(await get(w, token, task))

        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(poll)
        assert [one["version"] for one in w.deployments()] == ["1.4.0"]
        assert {one["status"] for one in polls} <= {"working", "completed"}
        first = next(one for one in polls if one["status"] == "completed")
        again = await get(w, token, task)
        assert again["status"] == "completed" and again["result"] == first["result"]
        assert not again["result"].get("isError") and len(w.deployments()) == 1

        (permit,) = [fields for fields in await w.decisions() if fields["decision"] == "permit"]
        assert permit["approval"]["hold"] == held.id
        assert [one.event.fields["outcome"] for one in await w.records("outcome")] == ["done"]
        assert all("alice" not in one["statusMessage"] for one in (made, *polls, again))


async def test_each_end_without_a_run_is_told_as_what_it_is(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy")
        token = await w.token(coder)
        denied, called_off, revoked, expired = [(await begin(w, token, version=v))["taskId"] for v in "1234"]
        first, second, third, _ = await w.store.holds(states=[HoldState.PENDING])
        await w.answer(first.id, by="alice", approve=False, reason="not on a Friday")
        said = await get(w, token, denied)
        assert said["status"] == "completed" and said["result"]["isError"]
        assert "not on a Friday" in said["result"]["content"][0]["text"]

        answered = answer_in(await ask(w, token, "tasks/cancel", called_off))["result"]
        assert answered.keys() == {"resultType", "_meta"}
        assert (await get(w, token, called_off))["status"] == "cancelled"
        assert (await w.store.hold(second.id)).state is HoldState.CANCELLED
        (record,) = [one for one in await w.records("approval") if one.event.fields.get("hold") == second.id]
        assert record.event.fields["summary"] == "its caller called it off"

        await Revocation(w.store, w.clock).revoke("hold", third.id, reason="test", by=OPERATOR)
        assert (await get(w, token, revoked))["status"] == "cancelled"

        w.clock.advance(timedelta(minutes=15, seconds=1))
        token = await w.token(coder)
        said = await get(w, token, expired)
        assert said["status"] == "completed" and "in time" in said["result"]["content"][0]["text"]
        w.clock.advance(timedelta(minutes=2))
        gone, never = [await refused(w, token, "tasks/get", one) for one in (expired, "t_" + "a" * 26)]
        assert gone == never and gone["code"] == NO_SUCH_TASK
        assert w.deployments() == []
        await begin(w, token)  # any write forgets what is over
        assert len([one for one in (denied, called_off, revoked, expired) if one in await stored(w)]) == 0


async def stored(w: World) -> set[str]:
    rows: Any = w.store._ask(lambda tx: tx.db.execute("SELECT id FROM tasks").fetchall())  # type: ignore[attr-defined]
    return {task for (task,) in rows}


def at_rest(folder: Path) -> bytes:
    """Everything that the gateway keeps."""
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file())


async def test_a_task_outlives_the_gateway_and_says_nothing_of_itself_at_rest(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy")
        task = (await begin(w, await w.token(coder), version="of-nobodys-business"))["taskId"]
        held, approvers = await only_hold(w), w.approvers
        database = w.config.data_dir
    kept = at_rest(Path(database))
    assert task.encode() in kept and b"of-nobodys-business" not in kept
    async with world(tmp_path) as w:
        w.approvers |= approvers
        token = await w.token(coder)
        assert (await get(w, token, task))["status"] == "working"
        await w.answer(held.id, by="alice")
        assert (await get(w, token, task))["status"] == "completed"
        assert [one["version"] for one in w.deployments()] == ["of-nobodys-business"]


async def test_the_own_prompt_of_the_caller_answers_through_the_task(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        token = await w.token(await w.ready("coder", "deploy", interactive=True))
        task = (await begin(w, token))["taskId"]
        assert (await get(w, token, task))["status"] == "working"  # this request did not declare that it can be asked
        asks = await get(w, token, task, capabilities=FORM)
        ((key, request),) = asks["inputRequests"].items()
        assert asks["status"] == "input_required" and request["params"]["mode"] == "form"
        assert "Approve this call?" in request["params"]["message"]
        assert (await get(w, token, task, capabilities=FORM))["inputRequests"].keys() == {key}
        await update(w, token, task, other=YES, **{f"{key}0": YES})  # keys that were never given out
        assert (await only_hold(w)).verdicts == ()
        await update(w, token, task, **{key: YES})
        await update(w, token, task, **{key: NO})  # answered already
        assert (await get(w, token, task))["status"] == "completed" and len(w.deployments()) == 1

        second = (await begin(w, token, version="2"))["taskId"]
        ((key, _),) = (await get(w, token, second, capabilities=FORM))["inputRequests"].items()
        await w.answer((await only_hold(w)).id, by="alice")
        await update(w, token, second, **{key: NO})  # no beats yes
        said = await get(w, token, second)
        assert said["status"] == "cancelled" or said["result"]["isError"]

        third = (await begin(w, token, version="3"))["taskId"]
        ((key, _),) = (await get(w, token, third, capabilities=FORM))["inputRequests"].items()
        await update(w, token, third, **{key: CLOSED})
        assert (await get(w, token, third, capabilities=FORM))["status"] == "working"  # and is not asked again
        assert len(w.deployments()) == 1


async def test_a_prompt_closed_before_there_is_a_task_makes_the_call_one(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        token = await w.token(await w.ready("coder", "deploy", interactive=True))
        call = {"owner": "acme", "repo": "api", "environment": "staging", "version": "1"}
        asked = answer_in(await w.raw_call(token, "acme__deploy", call, capabilities=FORM))["result"]
        assert asked["resultType"] == "input_required"
        retry = {"requestState": asked["requestState"], "inputResponses": {"approval": CLOSED}}
        made = answer_in(await w.raw_call(token, "acme__deploy", call, capabilities=FORM, **retry))["result"]
        assert (made["resultType"], made["status"]) == ("task", "working")
        assert (await get(w, token, made["taskId"], capabilities=FORM))["status"] == "working"


async def test_the_person_is_sent_to_the_page_and_that_it_was_opened_is_no_verdict(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        token = await w.token(await w.ready("coder", "deploy"))
        made = await begin(w, token, capabilities=URL)
        assert made["status"] == "input_required" and "inputRequests" not in made
        asks = await get(w, token, made["taskId"], capabilities=URL)
        ((key, request),) = asks["inputRequests"].items()
        held = await only_hold(w)
        assert request["params"]["url"] == f"{w.config.public_url}/holds/{held.id}/asked"
        await update(w, token, made["taskId"], **{key: {"action": "accept"}})
        waits = await get(w, token, made["taskId"], capabilities=URL)
        assert waits["status"] == "working" and (await only_hold(w)).verdicts == ()


async def test_the_tool_servers_questions_are_the_tasks_and_the_call_goes_on_with_the_answers(tmp_path: Path) -> None:
    async with world(tmp_path, servers={"asking": asking(tmp_path / "f", tools=DESTRUCTIVE)}) as w:
        coder = await w.ready("coder", "use")
        token = await w.token(coder)
        task = (await begin(w, token, "asking__ask", asked=ASKED, rounds=2))["taskId"]
        await w.answer((await only_hold(w)).id, by="alice")
        keys = []
        for _ in range(2):
            asks = await get(w, token, task, capabilities=FORM)
            assert asks["status"] == "input_required", asks
            ((key, request),) = asks["inputRequests"].items()
            assert request["params"]["message"] == "[tool server `asking`] Which colour?"
            assert (await get(w, token, task, capabilities=FORM))["inputRequests"].keys() == {key}
            keys.append(key)
            await update(w, token, task, **{key: RED})
        ended = await get(w, token, task, capabilities=FORM)
        assert ended["status"] == "completed" and received(ended["result"])["inputResponses"] == {"q": RED}
        assert len(set(keys)) == 2
        assert (await only_hold(w, HoldState.DONE)).result is not None

        task = (await begin(w, token, "asking__ask", asked=ASKED, rounds=1, again=1))["taskId"]
        await w.answer((await only_hold(w)).id, by="alice")
        assert (await get(w, token, task, capabilities=FORM))["status"] == "input_required"
        w.clock.advance(timedelta(minutes=15, seconds=1))
        token = await w.token(coder)
        given_up = await get(w, token, task, capabilities=FORM)
        assert given_up["status"] == "completed" and given_up["result"]["isError"]
        assert "nobody can say whether it ran" in given_up["result"]["content"][0]["text"]


async def test_an_error_of_the_tool_server_fails_the_task_with_that_error(tmp_path: Path) -> None:
    server = spy(tmp_path / "spy", tool("refuse"))
    async with world(tmp_path, servers={"spy": server.config(tools={"refuse": {"scopes": ["use"]}})}) as w:
        token = await w.token(await w.ready("coder", "use"))
        task = (await begin(w, token, "spy__refuse"))["taskId"]
        await w.answer((await only_hold(w)).id, by="alice")
        failed, again = await get(w, token, task), await get(w, token, task)
    assert (failed["status"], again["status"]) == ("failed", "failed")
    assert failed["error"] == again["error"] == {"code": -32050, "message": "refused", "data": {"why": "test"}}


async def test_a_tool_that_takes_signed_calls_takes_signed_polls(tmp_path: Path) -> None:
    tools = {"*": {"hazard": "destructive", "scopes": ["use"], "proof": "signed"}}
    said = {"result": {"content": [], "structuredContent": {"ran": True}}}
    async with world(tmp_path, servers={"plain": plain(tools=tools)}) as w:
        coder = await w.ready("coder", "use")
        token, sign = await w.token(coder), await signing(w, coder)
        meta = sign.meta("plain__say", said, at=w.clock())
        task = (await begin(w, token, "plain__say", meta=meta, **said))["taskId"]
        await w.answer((await only_hold(w)).id, by="alice")
        unsigned = await refused(w, token, "tasks/get", task)
        assert unsigned["data"]["reason"] == "proof_required" and unsigned["data"]["sign"]["tool"] == "tasks/get"
        other = sign.meta("tasks/get", {"taskId": "t_other"}, at=w.clock())
        assert (await refused(w, token, "tasks/get", task, meta=other))["data"]["reason"] == "proof_invalid"
        assert (await only_hold(w, HoldState.APPROVED)).result is None
        meta = sign.meta("tasks/get", {"taskId": task}, at=w.clock())
        assert (await get(w, token, task, meta=meta))["result"]["structuredContent"] == {"ran": True}
        assert (await refused(w, token, "tasks/get", task, meta=meta))["data"]["reason"] == "replayed"


async def test_a_request_for_a_session_is_a_task_too(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        await w.person("alice")
        coder = await w.agent("coder", ceiling="pr deploy")
        await w.grant("alice", "coder", "pr deploy")
        token = await w.token(coder)
        task = (await begin(w, token, REQUEST_SESSION, purpose="look around", minutes=30))["taskId"]
        await w.answer((await only_hold(w)).id, by="alice")
        opened = await get(w, token, task)
        assert opened["status"] == "completed" and "is open for 30 minutes" in opened["result"]["content"][0]["text"]
        assert len([one for one in await w.store.sessions() if one.status == "active"]) == 1
        again = await get(w, await w.token(coder), task)  # the agent is in its session by now
        assert again["result"]["structuredContent"] == opened["result"]["structuredContent"]


async def test_what_is_read_again_is_what_policy_lets_be_seen_by_now(tmp_path: Path) -> None:
    policy = tmp_path / "live.cedar"
    policy.write_text('@id("all") permit (principal, action, resource) when { context has session };')
    async with world(tmp_path, policy=str(policy)) as w:
        token = await w.token(await w.ready("coder", "deploy"))
        task = (await begin(w, token))["taskId"]
        await w.answer((await only_hold(w)).id, by="alice")
        assert not (await get(w, token, task))["result"].get("isError")
        policy.write_text('@id("none") forbid (principal, action, resource);')

        async def is_withheld() -> bool:
            return bool((await get(w, token, task))["result"].get("isError"))

        await until(is_withheld)
        now = await get(w, token, task)
        assert "Policy does not permit" in now["result"]["content"][0]["text"] and len(w.deployments()) == 1


async def test_only_a_client_that_declares_the_extension_has_tasks(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy")
        token = await w.token(coder)
        task = (await begin(w, token))["taskId"]
        for method in ("tasks/get", "tasks/update", "tasks/cancel"):
            missing = await ask(w, token, method, task, capabilities={})
            assert missing.status_code == 400 and answer_in(missing)["error"]["code"] == -32021
            assert answer_in(missing)["error"]["data"] == {"requiredCapabilities": TASKS}
            for name in ("t_other", ""):
                mismatch = await ask(w, token, method, task, name=name)
                assert mismatch.status_code == 400 and answer_in(mismatch)["error"]["code"] == -32020
        held = answer_in(await w.raw_call(token, "acme__deploy", {**modern_deploy("9")}))["result"]
        assert held["_meta"]["dev.mcp-authz/outcome"]["outcome"] == "held"
        headers = {"mcp_protocol_version": MODERN, "mcp_method": "server/discover"}
        about = answer_in(await w.post(body("server/discover", {}), token, **headers))["result"]
        assert about["capabilities"]["extensions"] == {EXTENSION: {}}
        assert (await get(w, token, task))["status"] == "working"


def modern_deploy(version: str) -> dict[str, Any]:
    return {"owner": "acme", "repo": "api", "environment": "staging", "version": version}


async def test_a_stream_tells_how_the_callers_own_tasks_stand_and_runs_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy")
        token = await w.token(coder)
        task = (await begin(w, token))["taskId"]
        async with listening(w, token, capabilities={}, taskIds=[task]) as messages:
            assert (await anext(messages))["error"]["code"] == -32021
        async with listening(w, token, taskIds=[task, "t_stranger"], toolsListChanged=True) as messages:
            ack = await anext(messages)
            assert ack["method"] == "notifications/subscriptions/acknowledged"
            assert ack["params"]["notifications"] == {"taskIds": [task], "toolsListChanged": True}
            now = await anext(messages)
            assert now["method"] == "notifications/tasks" and now["params"]["status"] == "working"
            assert now["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"] == 1
            await w.answer((await only_hold(w)).id, by="alice")
            ready = (await anext(messages))["params"]
            assert ready["status"] == "working" and "next tasks/get" in ready["statusMessage"]
            await w.app.front.tools_changed()
            assert (await anext(messages))["method"] == "notifications/tools/list_changed"
            assert w.deployments() == []
            polled = await get(w, token, task)
            told = (await anext(messages))["params"]
            while told["status"] == "working":  # it says that the call runs, where it is quick enough to see that
                told = (await anext(messages))["params"]
            assert {key: told[key] for key in ("taskId", "status", "result")} == {
                key: polled[key] for key in ("taskId", "status", "result")
            }


async def test_a_stream_about_tasks_ends_with_what_its_caller_stands_on(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        token = await w.token(await w.ready("coder", "deploy"))
        task = (await begin(w, token))["taskId"]
        (session,) = await w.store.sessions()
        async with listening(w, token, taskIds=[task]) as messages:
            await anext(messages)
            await anext(messages)
            await Revocation(w.store, w.clock).revoke("session", session.id, reason="test", by=OPERATOR)
            last = await anext(messages)
        assert last["result"]["resultType"] == "complete"
        assert (await refused(w, token, "tasks/get", task))["code"] == NO_SUCH_TASK


def test_the_envelope_of_a_request_is_no_part_of_the_captured_call() -> None:
    from mcp_authz.rules.message import Message
    from mcp_authz.tasks import _captured

    params = modern_call("x", {"a": 1}, meta={"progressToken": 1, "dev.mcp-authz/x": 1, "traceparent": "00"})["params"]
    call = _captured(Message(id=1, method="tools/call", params={**params, "requestState": "s"}, body={}))
    assert call == {"name": "x", "arguments": {"a": 1}, "_meta": {"traceparent": "00"}}


async def test_the_documented_task_has_the_members_that_one_has(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "tasks.md").read_text()
    documented = json.loads(page.partition("```json\n")[2].partition("```")[0])
    async with world(tmp_path) as w:
        made = await begin(w, await w.token(await w.ready("coder", "deploy")))
        (held,) = await w.store.holds()
    del made["_meta"]
    assert made.keys() == documented.keys()
    for member in ("resultType", "status", "pollIntervalMs"):
        assert made[member] == documented[member]
    assert abs(made["ttlMs"] - documented["ttlMs"]) < 1000
    own = made["statusMessage"].replace(f"{w.config.public_url}/holds/{held.id}", "PLACE")
    assert own == documented["statusMessage"].replace(
        "https://gateway.example/holds/h_4tqzfdcpkzb3lf5xqkcqa3wwoy", "PLACE"
    )
