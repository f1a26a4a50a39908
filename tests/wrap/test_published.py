"""Servers that nobody here wrote: wrapped, and used by a client that starts exactly what its file says."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from mcp_authz.locking import is_locked, note_of
from tests.clients.node import node, program
from tests.ports import free_port
from tests.wrap.desktop import BROKEN, Desktop

SCOPE = "@modelcontextprotocol/server-"
SOON = 60.0


def published(desktop: Desktop, name: str, *arguments: str, **env: str) -> dict[str, Any]:
    """The entry of an npm server, started by a program that is found on the PATH as an installed one is."""
    tools = desktop.home / "bin"
    tools.mkdir(exist_ok=True)
    for link, target in ((f"mcp-server-{name}", program(f"mcp-server-{name}", SCOPE + name)), ("node", node())):
        if not (tools / link).exists():
            (tools / link).symlink_to(target)
    return {"command": f"mcp-server-{name}", "args": list(arguments), **({"env": env} if env else {})}


def three(desktop: Desktop) -> Path:
    (desktop.home / "docs").mkdir()
    (desktop.home / "docs" / "a.txt").write_text("what stands there")
    servers = {
        "filesystem": published(desktop, "filesystem", str(desktop.home / "docs")),
        "memory": published(desktop, "memory", MEMORY_FILE_PATH=str(desktop.home / "memory.json")),
        "everything": published(desktop, "everything", "stdio"),
        "broken": BROKEN,
    }
    return desktop.client({"mcpServers": servers, "theme": "dark"})


def at(desktop: Desktop) -> Desktop:
    return Desktop(home=desktop.home, env={"PATH": f"{desktop.home / 'bin'}:/usr/bin:/bin"})


def test_published_servers_are_classified_by_their_presets_without_anybody_looking(desktop: Desktop) -> None:
    path = three(desktop)
    before = path.read_bytes()
    said = at(desktop).wrap(path)
    found = {one["name"]: one for one in said["servers"]}
    assert {name: one["preset"] for name, one in found.items()} == {
        "filesystem": "filesystem",
        "memory": "memory",
        "everything": "everything",
    }
    hazards = {f"{name}.{tool['tool']}": tool["hazard"] for name, one in found.items() for tool in one["tools"]}
    assert (hazards["filesystem.read_text_file"], hazards["filesystem.write_file"]) == ("read", "destructive")
    assert (hazards["memory.create_entities"], hazards["memory.delete_entities"]) == ("write", "destructive")
    assert hazards["everything.echo"] == "read"
    assert [one["name"] for one in said["left"]] == ["broken"]
    assert json.loads(path.read_text())["mcpServers"]["broken"] == BROKEN
    assert all(not server.tools for server in desktop.loaded().servers.values())
    desktop.ok("wrap", path, "--undo")
    assert path.read_bytes() == before


def test_a_stranger_that_lists_a_presets_definitions_is_not_taken_for_it_unseen(desktop: Desktop) -> None:
    """The definitions are public: only the package's own name, in a command, says who runs."""
    at(desktop).wrap(three(desktop))
    definitions = []
    for tool in json.loads(desktop.ok("tools", "list", "--server", "filesystem", "--json")):
        shown = json.loads(desktop.ok("tools", "diff", tool["name"], "--json"))
        definitions.append(shown["pinned"]["definition"])
        if len(definitions) == 2:
            break
    stranger = desktop.client({"mcpServers": {"stranger": desktop.spy("spy", *definitions)}}, "other.json")
    (said,) = desktop.wrap(stranger)["servers"]
    assert said["preset"] is None and {tool["hazard"] for tool in said["tools"]} == {"destructive"}


def test_two_servers_of_one_preset_have_scopes_of_their_own(desktop: Desktop) -> None:
    folders = [desktop.home / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    first, second = (published(desktop, "filesystem", str(folder)) for folder in folders)
    mine = at(desktop).wrap(desktop.client({"mcpServers": {"files": first}}))
    theirs = at(desktop).wrap(desktop.client({"mcpServers": {"filesystem": second}}, ".cursor/mcp.json"))
    assert mine["agents"][0]["scopes"] == ["files"]
    assert theirs["agents"][0]["scopes"] == ["filesystem"]
    assert desktop.loaded().servers["files"].preset == "filesystem"
    written = desktop.loaded().servers["filesystem"]
    assert written.preset is None and written.tools["read_file"].scopes == ("filesystem:read",)
    assert (written.tools["write_file"].hazard, written.tools["read_file"].hazard) == ("destructive", "read")


@asynccontextmanager
async def the_client(desktop: Desktop, path: Path) -> AsyncIterator[Client]:
    """A stock client that starts what its file says, with little around it."""
    entry = json.loads(await anyio.Path(path).read_text())["mcpServers"]["mcp-authz"]
    surroundings = {"HOME": str(desktop.home), "PATH": os.defpath}
    started = StdioServerParameters(command=entry["command"], args=entry["args"], env=surroundings)
    with (desktop.home / "said").open("w") as said:
        try:
            async with Client(stdio_client(started, errlog=said)) as client:
                yield client
        finally:
            stop_gateway(desktop)


def stop_gateway(desktop: Desktop) -> None:
    """The gateway that a client started for itself has been told to end."""
    lock = desktop.data / "gateway.lock"
    if is_locked(lock) and (found := re.search(r"process (\d+)", note_of(lock))):
        os.kill(int(found[1]), signal.SIGTERM)


async def test_a_stock_client_works_through_the_gateway_after_wrapping(desktop: Desktop) -> None:
    path = three(desktop)
    desktop.client(
        f'public_url = "http://localhost:{free_port()}"\nnotify = "none"\nwaiting = {{ seconds = 0 }}\n',
        ".config/mcp-authz/gateway.toml",
    )
    at(desktop).wrap(path)
    with anyio.fail_after(SOON):
        async with the_client(desktop, path) as client:
            names = {tool.name for tool in (await client.list_tools()).tools}
            assert {"filesystem__read_text_file", "memory__read_graph", "everything__echo"} <= names
            file = str(desktop.home / "docs" / "a.txt")
            read = await client.call_tool("filesystem__read_text_file", {"path": file})
            assert not read.is_error and "what stands there" in read.model_dump_json()
            written = await client.call_tool("filesystem__write_file", {"path": file, "content": "gone"})
            assert "held" in written.model_dump_json().lower()
    assert await anyio.Path(file).read_text() == "what stands there"
