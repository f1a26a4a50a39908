"""What passes through `connect`: everything, in both eras, in front of a gateway that it started itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp.shared.inbound import NAME_BEARING_METHODS, decode_header_value, encode_header_value

from mcp_authz.client.messages import NAMED_BY, header_value, made, modern_headers
from tests.connect.desktop import (
    LEGACY,
    MODERN,
    SOON,
    desktop,
    envelope_of,
    modern,
    tools,
)
from tests.road.places import BOTH
from tests.road.test_prompt import Person
from tests.servers.start import PLAIN


@BOTH
async def test_a_client_lists_and_calls_without_knowing_of_the_gateway(tmp_path: Path, mode: str) -> None:
    with desktop(tmp_path) as d:
        await d.settle()
        async with d.client(mode) as client:
            listed = await client.list_tools()
            done = await client.call_tool("plain__say", {"result": {"content": [], "structuredContent": {"v": [1]}}})
    assert "plain__say" in {tool.name for tool in listed.tools}
    assert done.structured_content == {"v": [1]} and not done.is_error


@BOTH
async def test_progress_reaches_the_client_in_its_order(tmp_path: Path, mode: str) -> None:
    heard, all_of_them = list[float](), anyio.Event()

    async def progress(done: float, total: float | None, message: str | None) -> None:
        heard.append(done)
        if len(heard) == 8:
            all_of_them.set()

    with desktop(tmp_path) as d:
        await d.settle()
        steps = [{"method": "notifications/progress", "params": {"progress": n}} for n in range(1, 9)]
        async with d.client(mode) as client:
            await client.call_tool("plain__notify", {"notifications": steps}, progress_callback=progress)
            with anyio.fail_after(SOON):
                await all_of_them.wait()
    assert heard == list(range(1, 9))


async def test_a_tool_servers_own_question_is_put_to_the_client_and_answered(tmp_path: Path) -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}}}
    asked = {"method": "elicitation/create", "params": {"message": "who?", "requestedSchema": schema}}
    person = Person("accept", {"name": "alice"})
    with desktop(tmp_path) as d:
        await d.settle()
        async with d.client(LEGACY, elicitation_callback=person) as client:
            done = await client.call_tool("plain__ask", asked)
    assert len(person.asked) == 1 and "who?" in person.asked[0]
    assert done.structured_content == {"value": {"action": "accept", "content": {"name": "alice"}}}


@BOTH
async def test_a_person_approves_in_the_prompt_of_their_own_client(tmp_path: Path, mode: str) -> None:
    held = {"plain": tools(tools={"say": {"hazard": "destructive", "scopes": ["tools:use"]}})}
    yes, no = Person("accept", {"approve": True}), Person("decline")
    say = {"result": {"content": [], "structuredContent": {"ran": True}}}
    with desktop(tmp_path, held) as d:
        await d.settle(interactive=True)
        async with d.client(mode, elicitation_callback=yes) as client:
            done = await client.call_tool("plain__say", say)
        async with d.client(mode, elicitation_callback=no) as client:
            denied = await client.call_tool("plain__say", {**say, "other": 1})
    assert done.structured_content == {"ran": True} and "coder asks to run plain__say" in yes.asked[0]
    assert denied.is_error and envelope_of(denied)["reason"] == "approval_denied"


@BOTH
async def test_a_call_that_the_client_gives_up_is_cancelled_at_the_tool_server(tmp_path: Path, mode: str) -> None:
    begun = anyio.Event()

    async def progress(*_: Any) -> None:
        begun.set()

    with desktop(tmp_path) as d:
        await d.settle()
        async with d.client(mode) as client:
            async with anyio.create_task_group() as group:

                async def wait() -> None:
                    await client.call_tool("plain__wait", {"tag": "gone"}, progress_callback=progress)

                group.start_soon(wait)
                with anyio.fail_after(SOON):
                    await begun.wait()
                group.cancel_scope.cancel()
            with anyio.fail_after(SOON):
                cancelled = await client.call_tool("plain__cancelled", {})
    assert cancelled.structured_content == {"value": ["gone"]}


async def test_changes_of_the_tools_are_told_to_older_clients(tmp_path: Path) -> None:
    changing = [*PLAIN[:1], str(Path(__file__).parent.parent / "road" / "asking.py"), str(tmp_path / "said")]
    with desktop(tmp_path, {"asking": tools(*changing)}) as d:
        await d.settle()
        async with d.wire() as wire:
            await wire.introduce()
            await wire.ask(1, "tools/list")
            (tmp_path / "said.tools").write_text('[{"name": "change", "inputSchema": {"type": "object"}}]')
            await wire.send(
                {
                    "jsonrpc": "2.0",
                    "id": 2,
                    "method": "tools/call",
                    "params": {"name": "asking__change", "arguments": {}},
                }
            )
            await wire.until(method="notifications/tools/list_changed")
            listed = await wire.ask(3, "tools/list")
    assert [t["name"] for t in listed["result"]["tools"] if t["name"].startswith("asking")] == ["asking__change"]


async def test_changes_of_the_tools_are_told_to_newer_clients_that_listen(tmp_path: Path) -> None:
    changing = [*PLAIN[:1], str(Path(__file__).parent.parent / "road" / "asking.py"), str(tmp_path / "said")]
    with desktop(tmp_path, {"asking": tools(*changing)}) as d:
        await d.settle()
        async with d.client(MODERN) as client, client.listen(tools_list_changed=True) as changes:
            await client.call_tool("asking__change", {})
            with anyio.fail_after(SOON):
                await anext(aiter(changes))


async def test_every_member_of_every_message_passes_as_it_was_written(tmp_path: Path) -> None:
    odd = {
        "content": [{"type": "hologram", "x-light": {"größe": 1.50}}],
        "structuredContent": {"a": "\u2028\U0001f600"},
    }
    with desktop(tmp_path) as d:
        await d.settle()
        async with d.wire() as wire:
            await wire.introduce()
            said = await wire.call("ü-1", "plain__say", {"result": odd})
            received = await wire.call(7, "plain__received", {"deep": [{"n": 1.0}]}, _meta={"x.example/kept": [None]})
            newer = await wire.call("n", "plain__say", {"result": odd}, _meta=modern())
            listed = await wire.ask(8, "tools/list")
    assert said == odd
    seen = received["structuredContent"]["value"]
    assert seen["arguments"] == {"deep": [{"n": 1.0}]} and seen["_meta"]["x.example/kept"] == [None]
    assert newer["content"] == odd["content"] and newer["resultType"] == "complete"
    assert listed["result"]["tools"][0]["x-unknown"] == {"kept": True}


async def test_an_error_of_the_tool_server_passes_with_its_data(tmp_path: Path) -> None:
    error = {"code": -32050, "message": "no", "data": {"why": ["because"]}}
    with desktop(tmp_path) as d:
        await d.settle()
        async with d.wire() as wire:
            await wire.introduce()
            params = {"name": "plain__fail", "arguments": {"error": error}}
            older = await wire.ask(1, "tools/call", params)
            newer = await wire.ask(2, "tools/call", {**params, "_meta": modern()})
    assert older["error"] == error and newer["error"] == error


async def test_what_is_no_message_is_answered_and_the_next_one_is_served(tmp_path: Path) -> None:
    with desktop(tmp_path) as d:
        await d.settle()
        async with d.wire() as wire:
            await wire.send(b"{not json")
            assert (await wire.hear())["error"]["code"] == -32700
            await wire.send(b"[1, 2]")
            assert (await wire.hear())["error"]["code"] == -32600
            await wire.send(b"\r\n   \r\n")
            await wire.introduce()
            # What the gateway refuses to read is its to refuse, and the request has an answer.
            await wire.send(b'{"jsonrpc":"2.0","id":5,"method":"tools/list","params":{"a":1,"a":2}}')
            twice = await wire.until(id=5)
            assert twice["error"]["code"] == -32700
            assert await wire.closed() == 0
    assert wire.process.returncode == 0


async def test_requests_run_side_by_side(tmp_path: Path) -> None:
    with desktop(tmp_path) as d:
        await d.settle()
        async with d.client(MODERN) as client:
            results = dict[int, Any]()

            async def one(number: int) -> None:
                done = await client.call_tool("plain__received", {"n": number})
                results[number] = done.structured_content["value"]["arguments"]["n"]  # type: ignore[index]

            async with anyio.create_task_group() as group:
                for number in range(40):
                    group.start_soon(one, number)
    assert results == {n: n for n in range(40)}


async def test_arguments_that_a_schema_wants_in_headers_are_there_also_for_a_list_of_the_last_start(
    tmp_path: Path,
) -> None:
    asking = [*PLAIN[:1], str(Path(__file__).parent.parent / "road" / "asking.py"), str(tmp_path / "said")]
    where = {"type": "string", "x-mcp-header": "Region"}
    ask = {"name": "ask", "inputSchema": {"type": "object", "properties": {"region": where}}}
    (tmp_path / "said.tools").write_text(json.dumps([ask]))
    arguments = {"region": "größe \u2028", "rounds": 0}
    with desktop(tmp_path, {"asking": tools(*asking)}) as d:
        await d.settle()
        async with d.wire() as wire:
            await wire.ask(1, "tools/list", {"_meta": modern()})
            listed = await wire.call(2, "asking__ask", arguments, _meta=modern())
        async with d.wire() as wire:
            known = await wire.call(2, "asking__ask", arguments, _meta=modern())
    for result in (listed, known):
        assert result["structuredContent"]["received"]["arguments"] == arguments


@pytest.mark.parametrize("text", ["plain", " edge", "größe", "", "=?base64?eA==?=", "a\tb", "\U0001f600"])
def test_a_header_carries_a_text_as_the_sdk_reads_it(text: str) -> None:
    assert header_value(text) == encode_header_value(text)
    assert decode_header_value(header_value(text)) == text
    message = made({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": text, "_meta": modern()}})
    assert dict(NAME_BEARING_METHODS) == NAMED_BY
    assert modern_headers(message)["mcp-name"] == encode_header_value(text)
