"""Tool servers that nobody here wrote, behind a gateway that `connect` started."""

from __future__ import annotations

from pathlib import Path

import anyio

from tests.connect.desktop import EVERY_TOOL, LEGACY, SOON, desktop, text_of
from tests.road.places import BOTH
from tests.road.test_prompt import Person
from tests.road.test_published import node_server


@BOTH
async def test_the_everything_server_says_everything_through_connect(tmp_path: Path, mode: str) -> None:
    everything = node_server("mcp-server-everything", "stdio", tools=EVERY_TOOL)
    heard, last = list[float](), anyio.Event()

    async def progress(done: float, total: float | None, message: str | None) -> None:
        heard.append(done)
        if done == total:
            last.set()

    with desktop(tmp_path, {"everything": everything}) as d:
        await d.settle(scope="tools:use everything")
        async with d.client(mode) as client:
            echo = await client.call_tool("everything__echo", {"message": "größe \u2028"})
            image = await client.call_tool("everything__get-tiny-image", {})
            structured = await client.call_tool("everything__get-structured-content", {"location": "New York"})
            await client.call_tool(
                "everything__trigger-long-running-operation", {"duration": 1, "steps": 4}, progress_callback=progress
            )
            with anyio.fail_after(SOON):
                await last.wait()
            prompts = await client.list_prompts()
            resources = await client.list_resources()
            first = str(resources.resources[0].uri) if resources.resources else ""
            read = await client.read_resource(first)
    assert text_of(echo) == "Echo: größe \u2028" and {c.type for c in image.content} >= {"image", "text"}
    assert structured.structured_content is not None and "temperature" in structured.structured_content
    assert heard == [1, 2, 3, 4] and prompts.prompts and read.contents


async def test_the_everything_server_asks_through_connect(tmp_path: Path) -> None:
    everything = node_server("mcp-server-everything", "stdio", tools=EVERY_TOOL)
    person = Person("accept", {"name": "alice"})
    with desktop(tmp_path, {"everything": everything}) as d:
        await d.settle()
        async with d.client(LEGACY, elicitation_callback=person) as client:
            answered = await client.call_tool("everything__trigger-elicitation-request", {})
    assert len(person.asked) == 1 and "alice" in text_of(answered)
