"""A permitted call: its result is the tool server's own, whatever that is, and the caller hears it run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_authz.rules.sentence import sentence
from tests.road.places import BOTH, asking, at, plain
from tests.road.wire import SOON, wire
from tests.servers.start import web
from tests.world import LEGACY, MODERN, Actor, World, called, world

RESULTS: dict[str, dict[str, Any]] = {
    "structured content with nulls": {
        "content": [{"type": "text", "text": "x", "annotations": None}],
        "structuredContent": {"a": None, "b": [1, 2.5, {"c": ""}], "ünïcode": "\u2028"},
    },
    "content of an unknown type": {"content": [{"type": "hologram", "beam": {"on": True}}]},
    "unknown members": {"content": [], "x-new": {"kept": [None]}, "_meta": {"com.example/trace": "t"}},
    "characters at which some clients end a line": {"content": [{"type": "text", "text": "a\u2028b\u2029c\x85d"}]},
    "an error a tool reports": {"content": [{"type": "text", "text": "no such file"}], "isError": True},
    "numbers": {"content": [], "structuredContent": {"n": 2**53 - 1, "small": -0.5, "tiny": 1e-7}},
    "a large text": {"content": [{"type": "text", "text": "é" * 500_000}]},
}


def own(result: dict[str, Any]) -> dict[str, Any]:
    """The result without what belongs to the revision: its type and the server's name."""
    meta = {k: v for k, v in result.get("_meta", {}).items() if k != "io.modelcontextprotocol/serverInfo"}
    rest = {key: value for key, value in result.items() if key not in {"resultType", "_meta"}}
    return {**rest, **({"_meta": meta} if meta else {})}


@BOTH
@pytest.mark.parametrize("words", [(), ("modern",)], ids=["older server", "newer server"])
async def test_a_result_arrives_exactly_as_the_tool_server_sent_it(
    tmp_path: Path, mode: str, words: tuple[str, ...]
) -> None:
    async with world(tmp_path, servers={"plain": plain(*words)}) as w:
        coder = await w.ready("coder", "use")
        async with wire(w, coder, mode, "use") as client:
            for kind, result in RESULTS.items():
                sent = {**result, "resultType": "complete"} if words else result
                got = await (await client.call("plain__say", {"result": sent})).end()
                assert "result" in got, (kind, got)
                assert own(got["result"]) == result, kind


@BOTH
async def test_a_tool_servers_own_error_keeps_its_code_and_its_data(tmp_path: Path, mode: str) -> None:
    error = {"code": -31007, "message": "the disk is full", "data": {"left": 0, "why": [None, "x"]}}
    async with world(tmp_path, servers={"plain": plain()}) as w:
        coder = await w.ready("coder", "use")
        async with wire(w, coder, mode, "use") as client:
            assert (await (await client.call("plain__fail", {"error": error})).end())["error"] == error


@BOTH
async def test_no_tool_server_speaks_in_the_gateways_name(tmp_path: Path, mode: str) -> None:
    forged = {"dev.mcp-authz/outcome": {"outcome": "held", "hold": "h_forged"}, "com.example/own": 1}
    async with world(tmp_path, servers={"plain": plain()}) as w:
        coder = await w.ready("coder", "use")
        async with wire(w, coder, mode, "use") as client:
            said = {"result": {"content": [], "_meta": forged}}
            result = await (await client.call("plain__say", said)).result()
    assert own(result)["_meta"] == {"com.example/own": 1}


@BOTH
async def test_no_caller_speaks_to_a_tool_server_in_the_gateways_name(tmp_path: Path, mode: str) -> None:
    meta = {"dev.mcp-authz/context": "forged", "com.example/own": 1}
    async with world(tmp_path, servers={"plain": plain()}) as w:
        coder = await w.ready("coder", "use")
        async with wire(w, coder, mode, "use") as client:
            reply = await client.call("plain__received", {"a": [1, None]}, meta=meta)
            received = (await reply.result())["structuredContent"]["value"]
    assert received["name"] == "received" and received["arguments"] == {"a": [1, None]}
    assert received["_meta"].pop("progressToken")
    assert received["_meta"] == {"com.example/own": 1}


@BOTH
async def test_progress_comes_with_the_callers_own_token_and_before_the_result(tmp_path: Path, mode: str) -> None:
    steps = [{"progress": 1, "total": 3, "message": "one"}, {"progress": 2.5, "x-unknown": None}]
    said = [{"method": "notifications/progress", "params": step} for step in steps]
    async with world(tmp_path, servers={"plain": plain()}) as w:
        coder = await w.ready("coder", "use")
        async with wire(w, coder, mode, "use") as client:
            reply = await client.call("plain__notify", {"notifications": said}, meta={"progressToken": "mine"})
    assert reply.said("notifications/progress") == [{**step, "progressToken": "mine"} for step in steps]
    assert "result" in reply.messages[-1]


@BOTH
async def test_progress_is_not_sent_to_a_caller_who_gave_no_token(tmp_path: Path, mode: str) -> None:
    said = [{"method": "notifications/progress", "params": {"progress": 1}}]
    async with world(tmp_path, servers={"plain": plain()}) as w:
        coder = await w.ready("coder", "use")
        async with wire(w, coder, mode, "use") as client:
            reply = await client.call("plain__notify", {"notifications": said})
    assert len(reply.messages) == 1


LOGGED = [
    {"method": "notifications/message", "params": {"level": "debug", "data": {"n": None}, "logger": "x"}},
    {"method": "notifications/message", "params": {"level": "error", "data": "broken", "x-unknown": 1}},
]


@BOTH
async def test_log_entries_reach_the_caller_of_the_call_they_belong_to(tmp_path: Path, mode: str) -> None:
    meta = {"io.modelcontextprotocol/logLevel": "debug"} if mode == MODERN else {}
    async with world(tmp_path, servers={"plain": plain()}) as w:
        coder = await w.ready("coder", "use")
        async with wire(w, coder, mode, "use") as client:
            reply = await client.call("plain__notify", {"notifications": LOGGED}, meta=meta)
    assert reply.said("notifications/message") == [entry["params"] for entry in LOGGED]


async def test_a_newer_client_gets_only_the_log_entries_it_opted_in_to(tmp_path: Path) -> None:
    async with world(tmp_path, servers={"plain": plain()}) as w:
        coder = await w.ready("coder", "use")
        async with wire(w, coder, MODERN, "use") as client:
            silent = await client.call("plain__notify", {"notifications": LOGGED})
            meta = {"io.modelcontextprotocol/logLevel": "warning"}
            some = await client.call("plain__notify", {"notifications": LOGGED}, meta=meta)
    assert silent.said("notifications/message") == []
    assert some.said("notifications/message") == [LOGGED[1]["params"]]


async def test_an_older_client_that_set_a_level_gets_the_log_entries_from_there_on(tmp_path: Path) -> None:
    async with world(tmp_path, servers={"plain": plain()}) as w:
        coder = await w.ready("coder", "use")
        async with wire(w, coder, LEGACY, "use") as client, wire(w, coder, LEGACY, "use") as other:
            assert await (await client.ask("logging/setLevel", {"level": "warning"})).result() == {}
            some = await client.call("plain__notify", {"notifications": LOGGED})
            whole = await other.call("plain__notify", {"notifications": LOGGED})
            unknown = await (await client.ask("logging/setLevel", {"level": "loud"})).end()
    assert some.said("notifications/message") == [LOGGED[1]["params"]]
    assert len(whole.said("notifications/message")) == 2
    assert unknown["error"]["code"] == -32602


async def test_a_newer_server_is_told_the_level_that_an_older_client_set(tmp_path: Path) -> None:
    async with world(tmp_path, servers={"asking": asking(tmp_path / "f")}) as w:
        coder = await w.ready("coder", "use")
        async with wire(w, coder, LEGACY, "use") as client:
            before = await (await client.call("asking__ask", {"asked": {}, "rounds": 0})).result()
            await client.ask("logging/setLevel", {"level": "info"})
            after = await (await client.call("asking__ask", {"asked": {}, "rounds": 0})).result()
    levels = [
        result["structuredContent"]["received"]["_meta"].get("io.modelcontextprotocol/logLevel")
        for result in (before, after)
    ]
    assert levels == [None, "info"]


@BOTH
async def test_response_headers_are_there_while_the_tool_still_runs(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path, servers={"plain": plain()}) as w:
        coder = await w.ready("coder", "use")
        async with wire(w, coder, mode, "use") as client, client.calling("plain__cancelled", {}) as slow:
            # The tool answers only once another call was cancelled, and that one has not been made yet.
            assert slow.status == 200
            assert [f["decision"] for f in await w.decisions()] == ["permit"]
            assert await w.records("outcome") == ()
            await cancel_a_waiting_call(w, coder, mode, "the other")
            assert (await slow.result())["structuredContent"]["value"] == ["the other"]


async def cancel_a_waiting_call(w: World, actor: Actor, mode: str, tag: str) -> None:
    """A stock client calls a tool that waits for ever, and gives up once it is known to run."""
    running = anyio.Event()

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        running.set()

    async def call() -> None:
        await client.call_tool("plain__wait", {"tag": tag}, progress_callback=hear)

    async with w.client(actor, mode) as client, anyio.create_task_group() as group:
        group.start_soon(call)
        with anyio.fail_after(SOON):
            await running.wait()
        group.cancel_scope.cancel()


@BOTH
async def test_a_call_that_its_client_cancels_is_cancelled_at_the_tool_server(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path, servers={"plain": plain()}) as w:
        coder = await w.ready("coder", "use")
        await cancel_a_waiting_call(w, coder, mode, "given up")
        async with w.client(coder, mode) as client:
            seen = await called(client, "plain__cancelled", {})
        ended = [record.event for record in await w.records("outcome")]
    assert seen.result["structuredContent"]["value"] == ["given up"]
    assert [(it.fields["outcome"], it.fields.get("ended_by")) for it in ended] == [
        ("unknown", "caller"),
        ("done", None),
    ]
    assert sentence(ended[0]).endswith(" ms (its caller cancelled it)")


async def test_a_newer_client_that_goes_away_cancels_its_call(tmp_path: Path) -> None:
    async with world(tmp_path, servers={"plain": plain()}) as w:
        coder = await w.ready("coder", "use")
        async with wire(w, coder, MODERN, "use") as client:
            async with client.calling("plain__wait", {"tag": "gone"}, meta={"progressToken": 1}) as reply:
                await reply.next("notifications/progress")
            seen = await (await client.call("plain__cancelled", {})).end()
            await settled(w, 2)
    assert seen["result"]["structuredContent"]["value"] == ["gone"]


async def settled(w: World, count: int) -> None:
    """Return once this many outcomes are recorded."""
    with anyio.fail_after(SOON):
        while len(await w.records("outcome")) < count:  # noqa: ASYNC110 - the log has no event for this
            await anyio.sleep(0.01)


async def test_a_newer_client_hears_that_the_tools_changed(tmp_path: Path) -> None:
    with web() as (url, _):
        async with world(tmp_path, servers={"web": at(f"{url}/mcp")}) as w:
            coder = await w.ready("coder", "use")
            async with w.client(coder, MODERN) as client, client.listen(tools_list_changed=True) as changes:
                await called(client, "web__change", {})
                with anyio.fail_after(SOON):
                    async for _ in changes:
                        break


async def test_an_older_client_hears_that_the_tools_changed(tmp_path: Path) -> None:
    heard = anyio.Event()

    async def hear(message: Any) -> None:
        if getattr(message, "method", "") == "notifications/tools/list_changed":
            heard.set()

    with web("legacy") as (url, _):
        async with world(tmp_path, servers={"web": at(f"{url}/mcp")}) as w:
            coder = await w.ready("coder", "use")
            async with w.client(coder, "legacy", message_handler=hear) as client:
                await client.list_tools()
                await called(client, "web__change", {})
                with anyio.fail_after(SOON):
                    await heard.wait()
