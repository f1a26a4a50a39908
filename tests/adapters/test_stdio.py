"""A tool server that is a child process."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tracemalloc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_authz.errors import DownstreamError, DownstreamRefusal
from tests.servers.start import PLAIN, SOON, Caller, Changes, admitted
from tool_adapters.child import Child
from tool_adapters.stdio import StdioDownstream

VENV = Path(sys.executable).parent


@asynccontextmanager
async def plain(*words: str, **settings: Any) -> AsyncIterator[StdioDownstream]:
    server = StdioDownstream("tools", (*PLAIN, *words), **settings)
    with anyio.fail_after(3 * SOON):
        async with server.run():
            yield server


async def test_a_result_arrives_with_every_member_and_value_that_the_server_sent() -> None:
    result = {
        "content": [{"type": "hologram", "frames": [1, 2.5, None]}, {"type": "text", "text": "ü\u0000\u2028", "x": {}}],
        "structuredContent": {"n": 12345678901234567890, "deep": [[[]]], "none": None, "": 1e300},
        "isError": False,
        "unknown": {"kept": True},
        "_meta": {"example.com/x": 1, "dev.mcp-authz/decision": "ours, so a lie"},
    }
    async with plain() as server:
        assert await server.forward(admitted("say", {"result": result}), Caller()) == {
            **result,
            "_meta": {"example.com/x": 1},
        }


async def test_an_error_arrives_with_its_code_message_and_data() -> None:
    error = {"code": -32000, "message": "Connection refused by upstream", "data": {"deep": [1, None]}}
    async with plain() as server:
        with pytest.raises(DownstreamRefusal) as refused:
            await server.forward(admitted("fail", {"error": error}), Caller())
    assert (refused.value.rpc_code, refused.value.message, refused.value.data) == tuple(error.values())


async def test_every_page_of_definitions_is_listed_as_the_server_wrote_it() -> None:
    async with plain() as server:
        listed = await server.list_tools()
    assert [tool["name"] for tool in listed][:6] == ["say", "fail", "received", "notify", "wait", "cancelled"]
    assert all(tool["x-unknown"] == {"kept": True} for tool in listed)


async def test_meta_goes_on_without_our_prefix_and_without_the_envelope() -> None:
    meta = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "dev.mcp-authz/invocation": "secret",
        "io.modelcontextprotocol/clientInfo": {"name": "somebody else"},
        "progressToken": "the caller's",
    }
    async with plain() as server:
        result = await server.forward(admitted("received", {"a": 1}, meta=meta), Caller())
    received = result["structuredContent"]["value"]
    assert received["arguments"] == {"a": 1}
    assert received["_meta"].keys() == {"traceparent", "progressToken"}
    assert received["_meta"]["progressToken"] != "the caller's"


async def test_progress_and_log_messages_reach_the_caller_in_order_before_the_result() -> None:
    said = [
        {"method": "notifications/progress", "params": {"progress": 1, "total": 3, "x-unknown": [1]}},
        {"method": "notifications/message", "params": {"level": "info", "data": {"a": 1}, "x": 2}},
        {"method": "notifications/somebody/else", "params": {"any": "thing", "_meta": {"dev.mcp-authz/x": 1}}},
    ]
    caller = Caller()
    async with plain() as server:
        await server.forward(admitted("notify", {"notifications": said}), caller)
    assert caller.heard == [
        ("notifications/progress", {"progress": 1, "total": 3, "x-unknown": [1]}),
        ("notifications/message", {"level": "info", "data": {"a": 1}, "x": 2}),
        ("notifications/somebody/else", {"any": "thing", "_meta": {}}),
    ]


async def test_a_log_message_that_could_belong_to_two_callers_reaches_neither() -> None:
    waiting, speaking = Caller(), Caller()
    said = [{"method": "notifications/message", "params": {"level": "info", "data": "for whom?"}}]
    async with plain() as server, anyio.create_task_group() as tasks:
        tasks.start_soon(server.forward, admitted("wait"), waiting)
        await waiting.something.wait()
        await server.forward(admitted("notify", {"notifications": said}), speaking)
        tasks.cancel_scope.cancel()
    assert speaking.heard == []
    assert waiting.heard == [("notifications/progress", {"progress": 1})]


async def test_cancelling_a_call_cancels_it_at_the_server() -> None:
    caller = Caller()
    async with plain() as server:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.forward, admitted("wait", {"tag": "mine"}), caller)
            await caller.something.wait()
            tasks.cancel_scope.cancel()
        result = await server.forward(admitted("cancelled"), Caller())
    assert result["structuredContent"]["value"] == ["mine"]


async def test_a_call_without_an_answer_ends_after_its_time_and_is_cancelled_at_the_server() -> None:
    async with plain(call_timeout=timedelta(seconds=0.5)) as server:
        with pytest.raises(DownstreamError, match=r"no answer within 0\.5 s") as late:
            await server.forward(admitted("wait", {"tag": "late"}), Caller())
        result = await server.forward(admitted("cancelled"), Caller())
    assert late.value.sent
    assert result["structuredContent"]["value"] == ["late"]


async def test_a_list_change_is_told() -> None:
    changes = Changes()
    said = [{"method": "notifications/tools/list_changed", "params": {}}]
    server = StdioDownstream("tools", PLAIN)
    server.on_tools_changed(changes)
    async with server.run():
        before = changes.count
        await server.forward(admitted("notify", {"notifications": said}), Caller())
        await changes.beyond(before)
    assert before == 1  # the connection itself


QUESTION = {"mode": "form", "message": "sure?", "requestedSchema": {"type": "object"}, "x-unknown": 1}


async def test_a_question_of_an_older_server_is_answered_by_the_caller_of_the_only_call_in_flight() -> None:
    caller = Caller(answer={"action": "accept", "content": {"a": 1}, "x-unknown": 2})
    async with plain() as server:
        asked = admitted("ask", {"method": "elicitation/create", "params": QUESTION})
        result = await server.forward(asked, caller)
    assert caller.questions == [("elicitation/create", QUESTION)]
    assert result["structuredContent"]["value"] == {"action": "accept", "content": {"a": 1}, "x-unknown": 2}


async def test_a_question_that_could_be_meant_for_two_callers_is_declined() -> None:
    waiting, asking = Caller(answer={"action": "accept"}), Caller(answer={"action": "accept"})
    async with plain() as server, anyio.create_task_group() as tasks:
        tasks.start_soon(server.forward, admitted("wait"), waiting)
        await waiting.something.wait()
        asked = admitted("ask", {"method": "elicitation/create", "params": QUESTION})
        result = await server.forward(asked, asking)
        tasks.cancel_scope.cancel()
    assert result["structuredContent"]["value"] == {"action": "decline"}
    assert waiting.questions == asking.questions == []


async def test_what_the_caller_refuses_to_answer_is_an_error_for_the_server() -> None:
    async with plain() as server:
        asked = admitted("ask", {"method": "sampling/createMessage", "params": {"messages": [], "maxTokens": 1}})
        result = await server.forward(asked, Caller())
    refused = {"code": -32601, "message": "not allowed here", "data": {"why": "test"}}
    assert result["structuredContent"]["value"] == refused


async def test_a_question_nobody_here_knows_is_an_error_for_the_server() -> None:
    async with plain() as server:
        asked = admitted("ask", {"method": "tasks/steal", "params": {}})
        result = await server.forward(asked, Caller(answer={}))
    assert result["structuredContent"]["value"]["code"] == -32601


async def test_a_newer_server_gets_the_answers_to_what_it_asked_in_the_next_call() -> None:
    asks = {
        "resultType": "input_required",
        "requestState": "s1",
        "inputRequests": {"k": {"method": "elicitation/create"}},
    }
    extra = {"inputResponses": {"k": {"action": "accept"}}, "requestState": "s1", "name": "exit"}
    async with plain("modern") as server:
        assert await server.forward(admitted("say", {"result": asks}), Caller()) == asks
        result = await server.forward(admitted("received", {"a": 1}, extra=extra), Caller())
    received = result["structuredContent"]["value"]
    assert received["inputResponses"] == {"k": {"action": "accept"}} and received["requestState"] == "s1"
    assert received["name"] == "received"
    assert received["_meta"]["io.modelcontextprotocol/protocolVersion"] == "2026-07-28"


async def test_killing_the_child_fails_the_calls_in_flight_and_no_later_one() -> None:
    changes, waiting = Changes(), Caller()
    server = StdioDownstream("tools", PLAIN)
    server.on_tools_changed(changes)
    failures: list[DownstreamError] = []

    async def wait_for_nothing() -> None:
        try:
            await server.forward(admitted("wait"), waiting)
        except DownstreamError as error:
            failures.append(error)

    async with server.run():
        who = await server.forward(admitted("who"), Caller())
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(wait_for_nothing)
            await waiting.something.wait()
            os.kill(who["structuredContent"]["value"]["pid"], signal.SIGKILL)
        assert [failure.sent for failure in failures] == [True]
        await changes.beyond(1)
        assert await server.forward(admitted("say", {"result": {"content": []}}), Caller()) == {"content": []}


async def test_a_call_made_while_the_server_is_down_fails_at_once_and_says_so() -> None:
    server = StdioDownstream("git", (sys.executable, "-c", "raise SystemExit(3)"))
    async with server.run():
        with pytest.raises(DownstreamError, match=r"tool server `git` is not running; it is being restarted") as failed:
            await server.forward(admitted("say"), Caller())
        assert not failed.value.sent and not server.reachable
        assert "exited with code 3" in str(failed.value)


async def test_a_program_that_never_answers_is_given_up_in_time_and_says_so() -> None:
    mute = (sys.executable, "-c", "import sys; sys.stdin.read()")
    server = StdioDownstream("git", mute, start_timeout=timedelta(seconds=0.5))
    async with server.run():
        with pytest.raises(DownstreamError, match="it did not finish the handshake in time"):
            await server.list_tools()


async def test_a_program_that_does_not_exist_is_named() -> None:
    server = StdioDownstream("git", ("no-such-program",))
    async with server.run():
        with pytest.raises(DownstreamError, match="there is no program `no-such-program` on the gateway's PATH"):
            await server.list_tools()


async def test_a_script_whose_interpreter_is_not_found_is_told_about_its_empty_environment(tmp_path: Path) -> None:
    script = tmp_path / "tool"
    script.write_text("#!/usr/bin/env no-such-interpreter\n")
    script.chmod(0o755)
    server = StdioDownstream("git", (str(script),), {"HOME": "/"})
    async with server.run():
        with pytest.raises(
            DownstreamError, match="a program it needs was not found; its environment has HOME, set PATH"
        ):
            await server.list_tools()


async def test_noise_between_the_messages_disturbs_nothing(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tool_adapters.stdio")
    async with plain() as server:
        for noise in ("debug: hello", "{}", "[1]", '{"jsonrpc": "2.0"}', ""):
            await server.forward(admitted("print", {"to": "stdout", "text": noise}), Caller())
        await server.forward(admitted("print", {"to": "stderr", "text": "one\x1b[31m\nother" + "y" * 9000}), Caller())
        assert await server.forward(admitted("say", {"result": {"content": []}}), Caller()) == {"content": []}
    lines = [record.getMessage() for record in caplog.records if record.levelname == "INFO"]
    assert "tools: one\N{REPLACEMENT CHARACTER}[31m" in lines
    assert max(map(len, lines)) < 5000


async def test_an_answer_that_is_no_json_rpc_ends_only_its_own_call() -> None:
    waiting = Caller()
    async with plain() as server, anyio.create_task_group() as tasks:
        tasks.start_soon(server.forward, admitted("wait"), waiting)
        await waiting.something.wait()
        with pytest.raises(DownstreamError, match="its answer is no JSON-RPC message") as broken:
            await server.forward(admitted("say", {"result": ["no object"]}), Caller())
        assert broken.value.sent
        assert await server.forward(admitted("say", {"result": {"content": []}}), Caller()) == {"content": []}
        tasks.cancel_scope.cancel()


async def test_an_answer_that_is_too_large_ends_only_its_own_call() -> None:
    async with plain() as server:
        with pytest.raises(DownstreamError, match="larger than 16777216 bytes") as broken:
            await server.forward(admitted("huge", {"bytes": 17 * 1024 * 1024}), Caller())
        assert broken.value.sent
        large = await server.forward(admitted("huge", {"bytes": 5 * 1024 * 1024}), Caller())
    assert len(large["structuredContent"]["value"]) == 5 * 1024 * 1024


async def test_a_line_without_an_end_takes_no_more_memory_than_a_line_may() -> None:
    endless = (sys.executable, "-c", "import sys; [sys.stdout.write('x' * 2**16) for _ in range(256)]; print()")
    child = Child(endless, {}, None)
    tracemalloc.start()
    try:
        line = await child.stdout(2**18).receive()
        assert line is not None and line.too_long
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()
        await child.end()


async def test_a_hundred_calls_at_once_each_get_their_own_answer() -> None:
    answers: dict[int, Any] = {}

    async def one(server: StdioDownstream, number: int) -> None:
        answers[number] = await server.forward(admitted("say", {"result": {"n": number}}), Caller())

    async with plain() as server, anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(one, server, number)
    assert answers == {number: {"n": number} for number in range(100)}


async def test_the_published_time_server_is_reached() -> None:
    server = StdioDownstream("time", (str(VENV / "mcp-server-time"), "--local-timezone", "UTC"))
    async with server.run():
        assert {tool["name"] for tool in await server.list_tools()} == {"get_current_time", "convert_time"}
        result = await server.forward(admitted("get_current_time", {"timezone": "UTC"}), Caller())
    assert not result.get("isError") and "UTC" in result["content"][0]["text"]


async def test_the_published_git_server_is_reached(tmp_path: Path) -> None:
    await anyio.run_process(["git", "init", "-q", str(tmp_path)])
    command = (str(VENV / "mcp-server-git"), "--repository", str(tmp_path))
    server = StdioDownstream("git", command, {"PATH": os.environ["PATH"]}, tmp_path)
    async with server.run():
        result = await server.forward(admitted("git_status", {"repo_path": str(tmp_path)}), Caller())
    assert "No commits yet" in result["content"][0]["text"]


@pytest.mark.skipif(shutil.which("mcp-server-everything") is None, reason="npm server-everything is not on PATH")
async def test_the_published_everything_server_reports_progress_and_asks() -> None:
    program = shutil.which("mcp-server-everything")
    assert program is not None
    server = StdioDownstream("everything", (program, "stdio"), {"PATH": os.environ["PATH"]})
    caller = Caller(answer={"action": "decline"})
    async with server.run():
        slow = admitted("trigger-long-running-operation", {"duration": 1, "steps": 2})
        await server.forward(slow, caller)
        await server.forward(admitted("trigger-elicitation-request"), caller)
    assert [params["progress"] for method, params in caller.heard if method == "notifications/progress"] == [1, 2]
    assert [method for method, _ in caller.questions] == ["elicitation/create"]
