"""Resources, prompts and completion of tool servers take the same road as calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mcp import MCPError
from mcp_types import PromptReference

from tests.road.places import plain
from tests.servers import loaded
from tests.world import LEGACY, MODERN, ROOT, world

BOTH = pytest.mark.parametrize("mode", [MODERN, LEGACY])


def bookshelf(**more: Any) -> dict[str, Any]:
    return {"command": loaded.command("tests.servers.bookshelf"), "cwd": str(ROOT), **more}


@BOTH
async def test_what_servers_offer_reaches_a_caller_with_the_scopes_for_it(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path, servers={"lib": bookshelf()}) as w:
        reader = await w.ready("reader", "lib:resources lib:prompts lib:completion")
        async with w.client(reader, mode) as client:
            assert [r.uri for r in (await client.list_resources()).resources] == ["book://one"]
            templates = (await client.list_resource_templates()).resource_templates
            assert [t.uri_template for t in templates] == ["book://shelf/{title}"]
            assert (await client.read_resource("book://one")).contents[0].text == "Call me Ishmael."
            assert (await client.read_resource("book://shelf/emma")).contents[0].text == "The text of emma"
            assert [p.name for p in (await client.list_prompts()).prompts] == ["lib__review"]
            prompt = await client.get_prompt("lib__review", {"title": "Emma"})
            assert prompt.messages[0].content.text == "Review Emma"
            reference = PromptReference(type="ref/prompt", name="lib__review")
            completed = await client.complete(reference, {"name": "title", "value": "mo"})
            assert completed.completion.values == ["moby"]


@BOTH
async def test_what_a_caller_has_no_scope_for_is_neither_listed_nor_known(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path, servers={"lib": bookshelf()}) as w:
        lender = await w.ready("lender", "lib:lend")
        async with w.client(lender, mode) as client:
            assert (await client.list_resources()).resources == []
            assert (await client.list_prompts()).prompts == []
            with pytest.raises(MCPError, match="Unknown resource: book://one"):
                await client.read_resource("book://one")
            with pytest.raises(MCPError, match="Unknown prompt: lib__review"):
                await client.get_prompt("lib__review", {"title": "Emma"})


@BOTH
async def test_an_unknown_resource_answers_like_one_that_may_not_be_known(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path, servers={"lib": bookshelf()}) as w:
        reader = await w.ready("reader", "lib:resources")
        async with w.client(reader, mode) as client:
            with pytest.raises(MCPError, match="Unknown resource: file:///etc/passwd"):
                await client.read_resource("file:///etc/passwd")


@BOTH
async def test_a_resource_can_be_held_until_somebody_approves_it(tmp_path: Path, mode: str) -> None:
    entry = {"hazard": "destructive", "scopes": ["lib:resources"], "action": "book.read", "resource": {"uri": "{uri}"}}
    async with world(tmp_path, servers={"lib": bookshelf(tools={"resources/read": entry})}) as w:
        reader = await w.ready("reader", "lib:resources")
        async with w.client(reader, mode) as client:
            with pytest.raises(MCPError, match="Held, not executed") as refused:
                await client.read_resource("book://one")
            assert refused.value.error.code == 40300
            await w.answer(refused.value.error.data["hold"], by="alice")
            assert (await client.read_resource("book://one")).contents[0].text == "Call me Ishmael."


@pytest.mark.parametrize(("words", "keep_for"), [(("book",), 0), (("book", "modern"), 60_000)], ids=["older", "newer"])
async def test_what_one_caller_read_is_for_nobody_else_to_keep(
    tmp_path: Path, words: tuple[str, ...], keep_for: int
) -> None:
    async with world(tmp_path, servers={"plain": plain(*words)}) as w:
        reader = await w.ready("reader", "plain:resources")
        async with w.client(reader) as client:
            read = await client.read_resource("book://one")
    assert read.contents[0].text == "Call me Ishmael."
    assert (read.cache_scope, read.ttl_ms) == ("private", keep_for)
    assert {"cache_scope", "ttl_ms"} <= read.model_fields_set


async def test_reading_is_decided_and_recorded_like_a_call(tmp_path: Path) -> None:
    async with world(tmp_path, servers={"lib": bookshelf()}) as w:
        reader = await w.ready("reader", "lib:resources")
        async with w.client(reader) as client:
            await client.read_resource("book://one")
        permitted = [f for f in await w.decisions() if f["decision"] == "permit"]
        assert [(f["action"], f["resource"]) for f in permitted] == [("resource.read", {"uri": "book://one"})]
        assert len(await w.records("outcome")) == 1


async def test_a_tool_cannot_be_called_under_the_name_of_a_method(tmp_path: Path) -> None:
    async with world(tmp_path, servers={"lib": bookshelf()}) as w:
        reader = await w.ready("reader", "lib:resources lib:lend")
        async with w.client(reader) as client:
            with pytest.raises(MCPError, match="Unknown tool"):
                await client.call_tool("lib__resources/read", {"uri": "book://one"})
            assert [tool.name for tool in (await client.list_tools()).tools] == ["lib__lend", "authz__request_session"]


async def test_a_delegation_to_named_tools_takes_no_resources_along(tmp_path: Path) -> None:
    async with world(tmp_path, servers={"lib": bookshelf()}) as w:
        await w.person("alice")
        reader = await w.agent("reader", ceiling="lib")
        grant = await w.grant("alice", "reader", "lib")
        await w.start(grant, tools={"lib__lend": {}})
        async with w.client(reader) as client:
            assert (await client.list_resources()).resources == []
            with pytest.raises(MCPError, match="Unknown resource"):
                await client.read_resource("book://one")
