"""The gateway goes and comes back while a client runs: the client is always answered, and nothing is restarted."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import anyio
import pytest

from mcp_authz.installation import open_installation
from mcp_authz.revocation import Revocation
from tests.connect.desktop import (
    LEGACY,
    MODERN,
    OPERATOR,
    SOON,
    Desktop,
    desktop,
    envelope_of,
    modern,
    text_of,
    tools,
)
from tests.road.places import BOTH

SAY = {"result": {"content": [], "structuredContent": {"v": 1}}}


def break_configuration(d: Desktop) -> str:
    """The gateway cannot start with what is written now; returns what was written before."""
    before = d.path.read_text()
    d.path.write_text(before.replace("data_dir", "unknown_key = 1\ndata_dir"))
    return before


@BOTH
async def test_a_gateway_that_was_killed_is_back_at_the_next_call(tmp_path: Path, mode: str) -> None:
    with desktop(tmp_path) as d:
        await d.settle()
        async with d.client(mode) as client:
            await client.list_tools()
            first = d.gateway()
            d.kill_gateway()
            done = await client.call_tool("plain__say", SAY)
            assert done.structured_content == {"v": 1}
            assert first != d.gateway() is not None
            d.stop_gateway()  # and once more, as a person would
            assert (await client.call_tool("plain__say", SAY)).structured_content == {"v": 1}


@BOTH
async def test_a_call_during_which_the_gateway_dies_may_have_run_and_is_not_made_again(
    tmp_path: Path, mode: str
) -> None:
    meta = {"_meta": {**(modern() if mode == MODERN else {}), "progressToken": 1}}
    with desktop(tmp_path) as d:
        await d.settle()
        async with d.wire() as wire:
            await wire.introduce()
            await wire.send(
                {
                    "jsonrpc": "2.0",
                    "id": 1,
                    "method": "tools/call",
                    "params": {"name": "plain__wait", "arguments": {}, **meta},
                }
            )
            await wire.until(method="notifications/progress")
            d.kill_gateway()
            told = (await wire.until(id=1))["result"]
            assert told["isError"] and "It may have run: look before you call again." in text_of(told)
            assert envelope_of(told) == {"outcome": "unreachable", "reason": "broken", "may_have_run": True}
            after = await wire.call(2, "plain__say", SAY, **({"_meta": modern()} if mode == MODERN else {}))
    assert after["structuredContent"] == {"v": 1}


async def test_a_new_gateway_tells_older_clients_what_changed_and_asks_under_new_numbers(tmp_path: Path) -> None:
    question = {"method": "elicitation/create", "params": {"message": "who?", "requestedSchema": {"type": "object"}}}
    with desktop(tmp_path) as d:
        await d.settle()
        async with d.wire() as wire:
            await wire.introduce(elicitation={})
            await wire.ask(1, "tools/list")
            call = {"name": "plain__ask", "arguments": question}
            await wire.send({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call})
            old = await wire.until(method="elicitation/create")
            d.kill_gateway()
            assert "may have run" in text_of((await wire.until(id=2))["result"])
            d.configure({"plain": tools(), "more": tools()})
            await wire.send({"jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": call})
            new = await wire.until(method="elicitation/create")
            assert new["id"] != old["id"]
            # The answer to the question of the gateway that died is nobody's any more.
            no, yes = {"action": "decline"}, {"action": "accept", "content": {}}
            await wire.send({"jsonrpc": "2.0", "id": old["id"], "result": no})
            await wire.send({"jsonrpc": "2.0", "id": new["id"], "result": yes})
            done = await wire.until(id=3)
            if not any(m.get("method") == "notifications/tools/list_changed" for m in wire.heard):
                await wire.until(method="notifications/tools/list_changed")
            listed = await wire.ask(4, "tools/list")
    assert done["result"]["structuredContent"] == {"value": yes}
    assert any(t["name"].startswith("more__") for t in listed["result"]["tools"])
    assert any(
        m.get("method") == "notifications/cancelled" and m["params"]["requestId"] == old["id"] for m in wire.heard
    )


async def test_a_client_that_listens_goes_on_listening_to_the_next_gateway(tmp_path: Path) -> None:
    with desktop(tmp_path) as d:
        await d.settle()
        async with d.client(MODERN) as client:
            await client.list_tools()
            async with client.listen(tools_list_changed=True) as changes:
                d.kill_gateway()
                d.configure({"plain": tools(), "more": tools()})
                assert not (await client.call_tool("plain__say", SAY)).is_error
                with anyio.fail_after(SOON):
                    await anext(aiter(changes))
            listed = await client.list_tools()
    assert any(tool.name.startswith("more__") for tool in listed.tools)


@BOTH
async def test_without_a_gateway_lists_are_as_they_were_and_a_call_says_what_is_wrong(
    tmp_path: Path, mode: str
) -> None:
    meta = {"_meta": modern()} if mode == MODERN else {}
    with desktop(tmp_path) as d:
        await d.settle()
        async with d.client(mode) as client:
            before = {tool.name for tool in (await client.list_tools()).tools}
        d.stop_gateway()
        working = break_configuration(d)
        async with d.wire() as wire:
            if mode == LEGACY:
                told = await wire.introduce()
            else:
                told = (await wire.ask("d", "server/discover", meta))["result"]
                await wire.send(
                    {
                        "jsonrpc": "2.0",
                        "id": "s",
                        "method": "subscriptions/listen",
                        "params": {**meta, "notifications": {"toolsListChanged": True}},
                    }
                )
                await wire.until(method="notifications/subscriptions/acknowledged")
            assert "unknown key `unknown_key`" in told["instructions"] and told["serverInfo"]["name"] == "mcp-authz"
            listed = (await wire.ask(1, "tools/list", meta))["result"]
            assert {tool["name"] for tool in listed["tools"]} == before
            assert (await wire.ask(2, "ping"))["result"] == {}
            refused = await wire.call(3, "plain__say", SAY, **meta)
            assert refused["isError"] and envelope_of(refused)["outcome"] == "unreachable"
            assert "unknown key `unknown_key`" in text_of(refused) and "Nothing was run." in text_of(refused)
            other = await wire.ask(4, "prompts/get", {"name": "x", **meta})
            assert other["error"]["code"] == -32603 and "unknown_key" in other["error"]["message"]

            d.path.write_text(working)
            changed = await wire.until(method="notifications/tools/list_changed")
            if mode == MODERN:
                assert changed["params"]["_meta"] == {"io.modelcontextprotocol/subscriptionId": "s"}
            done = await wire.call(5, "plain__say", SAY, **meta)
            assert done["structuredContent"] == {"v": 1}
            acknowledged = [m for m in wire.heard if m.get("method") == "notifications/subscriptions/acknowledged"]
            assert len(acknowledged) == (mode == MODERN)


@BOTH
async def test_a_client_that_never_saw_the_gateway_gets_an_empty_list_and_the_reason(tmp_path: Path, mode: str) -> None:
    with desktop(tmp_path) as d:
        await d.settle()
        working = break_configuration(d)
        async with d.client(mode, read_timeout_seconds=SOON) as client:
            assert "unknown_key" in (client.instructions or "")
            assert (await client.list_tools()).tools == []
            d.path.write_text(working)
            with anyio.fail_after(SOON):
                while not (await client.list_tools()).tools:  # noqa: ASYNC110 - nothing tells it
                    await anyio.sleep(0.05)


async def test_an_older_client_that_hears_of_the_change_can_use_everything(tmp_path: Path) -> None:
    question = {"method": "elicitation/create", "params": {"message": "who?", "requestedSchema": {"type": "object"}}}
    with desktop(tmp_path) as d:
        await d.settle()
        working = break_configuration(d)
        async with d.wire() as wire:
            await wire.introduce(elicitation={})
            assert (await wire.ask(1, "tools/list"))["result"]["tools"] == []
            d.path.write_text(working)
            await wire.until(method="notifications/tools/list_changed")
            call = {"name": "plain__ask", "arguments": question}
            await wire.send({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call})
            asked = await wire.until(method="elicitation/create")
            await wire.send({"jsonrpc": "2.0", "id": asked["id"], "result": {"action": "decline"}})
            done = await wire.until(id=2)
    assert done["result"]["structuredContent"] == {"value": {"action": "decline"}}


async def test_what_is_remembered_lies_in_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    with desktop(tmp_path) as d:
        await d.settle()
        async with d.client(LEGACY) as client:
            await client.list_tools()
        (cache,) = d.caches
        assert stat.S_IMODE(cache.stat().st_mode) == 0o600 and stat.S_IMODE(cache.parent.stat().st_mode) == 0o700
        assert "plain__say" in {tool["name"] for tool in json.loads(cache.read_text())["tools/list"]["tools"]}
        cache.write_text('{"tools/list": 5')  # half a file is none
        async with d.client(LEGACY) as client:
            await client.list_tools()
        assert json.loads(cache.read_text())["tools/list"]["tools"]


async def test_a_key_that_comes_later_is_used(tmp_path: Path) -> None:
    with desktop(tmp_path) as d:
        await d.settle()
        path = d.config.agent_key("coder")
        path.unlink()
        async with d.wire() as wire:
            await wire.introduce()
            assert (await wire.ask(1, "tools/list"))["result"]["tools"] == []
            refused = await wire.call(2, "plain__say", SAY)
            assert str(path) in text_of(refused) and envelope_of(refused)["reason"] == "sign_in"
            other = await wire.ask(3, "resources/read", {"uri": "x:y"})
            assert other["error"]["code"] == 40100
            d.write_key(mode=0o644)
            refused = await wire.call(4, "plain__say", SAY)
            assert f"chmod 600 {path}" in text_of(refused) and refused["isError"]
            d.write_key()
            assert (await wire.call(5, "plain__say", SAY))["structuredContent"] == {"v": 1}


@pytest.mark.parametrize("agent", ["nobody", "coder"])
async def test_an_agent_that_is_unknown_or_revoked_is_told_so_on_the_call_and_served_once_it_is_there(
    tmp_path: Path, agent: str
) -> None:
    with desktop(tmp_path) as d:
        await d.settle()
        if agent == "nobody":
            d.keys["nobody"] = d.keys["coder"]
            d.write_key("nobody")
        async with d.wire(agent=agent) as wire:
            await wire.introduce()
            await wire.ask(1, "tools/list")
            if agent == "coder":
                assert not (await wire.call(2, "plain__say", SAY)).get("isError")
                async with open_installation(d.config) as here:
                    await Revocation(here.store, here.clock).revoke("agent", "coder", by=OPERATOR, reason="test")
            refused = await wire.call(3, "plain__say", SAY)
            assert refused["isError"] and envelope_of(refused)["reason"] == "sign_in"
            assert f"mcp-authz agent show {agent}" in text_of(refused)
            if agent == "nobody":
                async with open_installation(d.config) as here:
                    await d.enrol(here, "nobody")
                await wire.until(method="notifications/tools/list_changed")
                assert (await wire.call(4, "plain__say", SAY))["structuredContent"] == {"v": 1}
