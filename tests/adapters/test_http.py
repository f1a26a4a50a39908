"""A tool server behind Streamable HTTP, in both eras."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

import anyio
import pytest

from mcp_authz.errors import DownstreamError, DownstreamRefusal
from tests.servers.start import SOON, Caller, Changes, admitted, web
from tool_adapters.http import HttpDownstream

ERAS = pytest.mark.parametrize("era", ["modern", "legacy"])
BARE = admitted("received", meta={"dev.mcp-authz/context": "forged"})


@pytest.fixture(scope="module")
def urls() -> Iterator[dict[str, str]]:
    """One server of each era for all tests that do not stop it."""
    with web("modern") as (modern, _), web("legacy") as (legacy, _):
        yield {"modern": f"{modern}/mcp", "legacy": f"{legacy}/mcp", "faulty": f"{modern}/faulty"}


@asynccontextmanager
async def reach(url: str, **settings: Any) -> AsyncIterator[HttpDownstream]:
    server = HttpDownstream("tools", url, **settings)
    with anyio.fail_after(3 * SOON):
        async with server.run():
            yield server


@ERAS
async def test_a_result_arrives_with_every_member_and_value_that_the_server_sent(
    era: str, urls: dict[str, str]
) -> None:
    result = {
        "content": [{"type": "hologram", "frames": [1, 2.5, None]}, {"type": "text", "text": "ü", "x": {}}],
        "structuredContent": {"n": 12345678901234567890, "deep": [[[]]], "none": None},
        "unknown": {"kept": True},
        "resultType": "complete",
        "_meta": {"example.com/x": 1, "dev.mcp-authz/decision": "ours, so a lie"},
    }
    async with reach(urls[era]) as server:
        got = dict(await server.forward(admitted("say", {"result": result}), Caller()))
    got["_meta"] = {key: value for key, value in got["_meta"].items() if key != "io.modelcontextprotocol/serverInfo"}
    assert got == {**result, "_meta": {"example.com/x": 1}}


@ERAS
async def test_an_error_arrives_with_its_code_message_and_data(era: str, urls: dict[str, str]) -> None:
    error = {"code": -32000, "message": "Connection refused by upstream", "data": {"deep": [1, None]}}
    async with reach(urls[era]) as server:
        with pytest.raises(DownstreamRefusal) as refused:
            await server.forward(admitted("fail", {"error": error}), Caller())
    assert (refused.value.rpc_code, refused.value.message, refused.value.data) == tuple(error.values())


@ERAS
async def test_every_definition_is_listed_as_the_server_wrote_it(era: str, urls: dict[str, str]) -> None:
    async with reach(urls[era]) as server:
        listed = await server.list_tools()
    assert len(listed) == 8 and all(tool["x-unknown"] == {"kept": True} for tool in listed)


@ERAS
async def test_the_context_token_of_a_call_is_in_its_meta_and_in_a_header(era: str, urls: dict[str, str]) -> None:
    async with reach(urls[era]) as server:
        call = replace(admitted("received", meta={"dev.mcp-authz/context": "forged"}), context="the token")
        told, untold = [(await server.forward(one, Caller()))["structuredContent"]["value"] for one in (call, BARE)]
    assert told["params"]["_meta"]["dev.mcp-authz/context"] == told["headers"]["mcp-authz-context"] == "the token"
    assert "dev.mcp-authz/context" not in untold["params"]["_meta"] and "mcp-authz-context" not in untold["headers"]


async def test_a_newer_server_gets_the_headers_that_its_definition_asks_for(urls: dict[str, str]) -> None:
    schema = {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": "Region"}}}
    async with reach(urls["modern"]) as server:
        call = admitted("received", {"region": "eu west ü"}, schema=schema)
        result = await server.forward(call, Caller())
    headers = result["structuredContent"]["value"]["headers"]
    assert headers["mcp-name"] == "received" and headers["mcp-param-region"].startswith("=?base64?")


async def test_a_call_whose_headers_a_newer_server_refuses_makes_its_tools_be_listed_again(
    urls: dict[str, str],
) -> None:
    changes = Changes()
    async with reach(urls["modern"]) as server:
        server.on_tools_changed(changes)
        with pytest.raises(DownstreamError, match="its definition of the tool is no longer the known one") as refused:
            await server.forward(admitted("received", {"region": "eu"}), Caller())
    assert not refused.value.sent and changes.count == 1


@ERAS
async def test_only_the_operators_headers_reach_the_server(era: str, urls: dict[str, str]) -> None:
    async with reach(urls[era], headers={"Authorization": "Bearer downstream"}) as server:
        result = await server.forward(admitted("received"), Caller())
    headers = result["structuredContent"]["value"]["headers"]
    assert headers["authorization"] == "Bearer downstream"
    assert {name for name in headers if not re.match("mcp-", name)} - {"connection"} == {
        "host",
        "accept",
        "accept-encoding",
        "authorization",
        "content-length",
        "content-type",
        "user-agent",
    }


@ERAS
async def test_progress_and_log_messages_reach_the_caller_of_their_own_call(era: str, urls: dict[str, str]) -> None:
    callers = {f"call {number}": Caller() for number in range(10)}
    meta = {"io.modelcontextprotocol/logLevel": "debug"}
    async with reach(urls[era]) as server, anyio.create_task_group() as tasks:
        for tag, caller in callers.items():
            tasks.start_soon(server.forward, admitted("talk", {"tag": tag}, meta=meta), caller)
    for tag, caller in callers.items():
        assert caller.heard == [
            ("notifications/progress", {"progress": 1, "total": 2, "message": tag}),
            ("notifications/message", {"level": "warning", "data": tag}),
        ]


@ERAS
async def test_cancelling_a_call_cancels_it_at_the_server(era: str, urls: dict[str, str]) -> None:
    caller = Caller()
    async with reach(urls[era]) as server:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(server.forward, admitted("wait", {"tag": "mine"}), caller)
            await caller.something.wait()
            tasks.cancel_scope.cancel()
        result = await server.forward(admitted("cancelled", {"tag": "mine"}), Caller())
    assert result["structuredContent"]["value"] == "mine"


@ERAS
async def test_a_call_without_an_answer_ends_after_its_time_and_is_cancelled_at_the_server(
    era: str, urls: dict[str, str]
) -> None:
    async with reach(urls[era], call_timeout=timedelta(seconds=0.5)) as server:
        with pytest.raises(DownstreamError, match=r"no answer within 0\.5 s") as late:
            await server.forward(admitted("wait", {"tag": "late"}), Caller())
        result = await server.forward(admitted("cancelled", {"tag": "late"}), Caller())
    assert late.value.sent
    assert result["structuredContent"]["value"] == "late"


@ERAS
async def test_a_list_change_is_told(era: str, urls: dict[str, str]) -> None:
    changes = Changes()
    server = HttpDownstream("tools", urls[era])
    server.on_tools_changed(changes)
    async with server.run():
        before = changes.count
        deadline = anyio.current_time() + SOON
        while changes.count == before and anyio.current_time() < deadline:  # the subscription may still be on its way
            with anyio.move_on_after(0.2):
                await server.forward(admitted("change"), Caller())
                await changes.beyond(before)
        assert changes.count > before
    assert before == 1


async def test_a_question_of_an_older_server_is_answered_by_the_caller_in_whose_call_it_was_asked(
    urls: dict[str, str],
) -> None:
    callers = {
        f"sure {number}?": Caller(answer={"action": "accept", "content": {"n": str(number)}}) for number in range(5)
    }
    answers: dict[str, Any] = {}

    async def one(server: HttpDownstream, message: str, caller: Caller) -> None:
        answers[message] = await server.forward(admitted("ask", {"message": message}), caller)

    async with reach(urls["legacy"]) as server, anyio.create_task_group() as tasks:
        for message, caller in callers.items():
            tasks.start_soon(one, server, message, caller)
    for number, (message, caller) in enumerate(callers.items()):
        assert [params["message"] for _, params in caller.questions] == [message]
        said = {"action": "accept", "content": {"n": str(number)}}
        assert answers[message]["structuredContent"]["value"] == said


async def test_a_newer_server_gets_the_answers_to_what_it_asked_in_the_next_call(urls: dict[str, str]) -> None:
    asks = {
        "resultType": "input_required",
        "requestState": "s1",
        "inputRequests": {"k": {"method": "elicitation/create"}},
    }
    extra = {"inputResponses": {"k": {"action": "accept"}}, "requestState": "s1"}
    async with reach(urls["modern"]) as server:
        result = await server.forward(admitted("say", {"result": asks}), Caller())
        assert {key: value for key, value in result.items() if key != "_meta"} == asks
        result = await server.forward(admitted("received", extra=extra), Caller())
    params = result["structuredContent"]["value"]["params"]
    assert params["inputResponses"] == {"k": {"action": "accept"}} and params["requestState"] == "s1"


@ERAS
async def test_a_server_that_comes_back_is_found_again(era: str) -> None:
    changes = Changes()
    said = admitted("say", {"result": {"content": []}})
    with web(era) as (url, kill):
        server = HttpDownstream("tools", f"{url}/mcp")
        server.on_tools_changed(changes)
        async with server.run():
            await server.forward(said, Caller())
            kill()
            for _ in range(2):  # the loop sees that the connection ended, as it does while a decision is written
                await anyio.lowlevel.checkpoint()
            with pytest.raises(DownstreamError, match="cannot be reached") as down:
                await server.forward(said, Caller())
            assert not down.value.sent and not server.reachable
            with web(era, url.rpartition(":")[2]), anyio.fail_after(SOON):
                before, answered = changes.count, False
                while not answered:
                    try:
                        answered = bool(await server.forward(said, Caller()))
                    except DownstreamError as error:
                        assert not error.sent
                        await changes.beyond(before)
                assert server.reachable and changes.count > before


async def test_a_server_that_is_not_there_is_found_when_it_comes() -> None:
    changes = Changes()
    with web() as (url, kill):
        kill()
        server = HttpDownstream("tools", f"{url}/mcp")
        server.on_tools_changed(changes)
        async with server.run():
            with pytest.raises(DownstreamError, match="not running; it is being restarted"):
                await server.list_tools()
            with web(url.rpartition(":")[2]):
                await changes.beyond(0)
                assert len(await server.list_tools()) == 8


FAULTS = {
    "garbage": "its answer is no JSON-RPC message",
    "html": "neither JSON nor an event stream",
    "http-500": "it answered HTTP 500",
    "http-401": "it refuses the gateway's credential",
    "accepted": "without answering it",
    "elsewhere": "a redirect to another place",
    "huge": "larger than 16777216 bytes",
    "huge event": "larger than 16777216 bytes",
    "zipped": "compressed",
    "cut": "the connection broke",
    "cut event": "without an answer",
}


@pytest.mark.parametrize(("fault", "sentence"), FAULTS.items())
async def test_a_wrong_answer_ends_only_its_own_call(fault: str, sentence: str, urls: dict[str, str]) -> None:
    async with reach(urls["faulty"]) as server, anyio.create_task_group() as tasks:
        tasks.start_soon(server.forward, admitted("silence"), Caller())
        await _expect(server, fault, sentence)
        assert (await server.forward(admitted("fine"), Caller()))["content"] == []
        tasks.cancel_scope.cancel()


async def _expect(server: HttpDownstream, fault: str, sentence: str) -> None:
    with pytest.raises(DownstreamError, match=sentence) as failed:
        await server.forward(admitted(fault), Caller())
    assert failed.value.sent is (fault != "http-401")
    assert "SECRET" not in str(failed.value)


@ERAS
async def test_a_hundred_calls_at_once_each_get_their_own_answer(era: str, urls: dict[str, str]) -> None:
    answers: dict[int, Any] = {}

    async def one(server: HttpDownstream, number: int) -> None:
        answers[number] = (await server.forward(admitted("say", {"result": {"n": number}}), Caller()))["n"]

    async with reach(urls[era]) as server, anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(one, server, number)
    assert answers == {number: number for number in range(100)}
