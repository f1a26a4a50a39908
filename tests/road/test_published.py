"""Tool servers that nobody here wrote, behind the gateway with the presets that come with it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from mcp_authz.model import Hazard
from tests.ports import free_port
from tests.road.places import BOTH, at
from tests.road.test_prompt import Person
from tests.world import LEGACY, ROOT, World, called, world

BINARIES = ROOT / "examples" / "node_modules" / ".bin"
PATH = {"PATH": os.environ["PATH"]}


def python_server(program: str, *words: str, **more: Any) -> dict[str, Any]:
    """A published server that is a console script of this environment."""
    found = Path(sys.executable).parent / program
    if not found.exists():
        pytest.skip(f"{program} is not installed; install the `demo` extra")
    return {"command": [str(found), *words], "cwd": str(ROOT), "env": PATH, **more}


def npm_program(program: str) -> str:
    """The path of a published server that comes from npm."""
    if not (BINARIES / program).exists() or shutil.which("node") is None:
        pytest.skip(f"{program} needs node and `npm install --no-package-lock --prefix examples`")
    return str(BINARIES / program)


def node_server(program: str, *words: str, env: Any = None, **more: Any) -> dict[str, Any]:
    """A published server that comes from npm, over stdio."""
    command = [npm_program(program), *words]
    return {"command": command, "cwd": str(ROOT), "env": {**PATH, **(env or {})}, **more}


def git(repository: Path, *words: str) -> str:
    """What git says."""
    name = ("-c", "user.name=t", "-c", "user.email=t@example.org")
    return subprocess.run(
        ["git", "-C", str(repository), *name, *words], check=True, capture_output=True, text=True
    ).stdout


def repository(directory: Path) -> Path:
    """A repository with one commit and one staged change."""
    subprocess.run(["git", "init", "--quiet", str(directory)], check=True)
    (directory / "a").write_text("1")
    git(directory, "add", "a")
    git(directory, "commit", "--quiet", "-m", "first")
    (directory / "a").write_text("2")
    git(directory, "add", "a")
    return directory


@BOTH
async def test_the_git_server_reads_and_its_reset_waits_for_a_person(tmp_path: Path, mode: str) -> None:
    repo = repository(tmp_path / "repo")
    servers = {"git": python_server("mcp-server-git", "--repository", str(repo), preset="git")}
    async with world(tmp_path, servers=servers) as w:
        coder = await w.ready("coder", "git")
        staged = await w.call(coder, "git__git_diff_staged", mode, repo_path=str(repo))
        held = await w.call(coder, "git__git_reset", mode, repo_path=str(repo))
        assert not staged.is_error and "+2" in staged.text
        assert held.is_held and git(repo, "diff", "--cached")

        await w.answer(held.hold, by="alice")
        done = await w.call(coder, "git__git_reset", mode, repo_path=str(repo))
        assert not done.is_error and not git(repo, "diff", "--cached")


@BOTH
async def test_an_agent_that_may_only_read_does_not_even_see_the_reset(tmp_path: Path, mode: str) -> None:
    repo = repository(tmp_path / "repo")
    servers = {"git": python_server("mcp-server-git", "--repository", str(repo), preset="git")}
    async with world(tmp_path, servers=servers) as w:
        coder = await w.ready("coder", "git:read")
        async with w.client(coder, mode) as client:
            listed = {tool.name for tool in (await client.list_tools()).tools}
    assert "git__git_log" in listed
    assert not listed & {"git__git_reset", "git__git_checkout", "git__git_commit", "git__git_add"}


@BOTH
async def test_the_time_server_tells_the_time(tmp_path: Path, mode: str) -> None:
    servers = {"time": python_server("mcp-server-time", "--local-timezone", "UTC", preset="time")}
    async with world(tmp_path, servers=servers) as w:
        coder = await w.ready("coder", "time")
        told = await w.call(coder, "time__get_current_time", mode, timezone="UTC")
        wrong = await w.call(coder, "time__get_current_time", mode, timezone=7)
    assert not told.is_error and "UTC" in told.text
    assert wrong.envelope["reason"] == "arguments" and "`timezone` must be of type string" in wrong.text


@BOTH
async def test_the_filesystem_server_reads_and_its_writes_wait_for_a_person(tmp_path: Path, mode: str) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "a.txt").write_text("hello")
    servers = {"files": node_server("mcp-server-filesystem", str(files), preset="filesystem")}
    async with world(tmp_path, servers=servers) as w:
        coder = await w.ready("coder", "files")
        read = await w.call(coder, "files__read_text_file", mode, path=str(files / "a.txt"))
        written = {"path": str(files / "a.txt"), "content": "changed"}
        held = await w.call(coder, "files__write_file", mode, **written)
        assert "hello" in read.text and held.is_held and (files / "a.txt").read_text() == "hello"

        await w.answer(held.hold, by="alice")
        assert not (await w.call(coder, "files__write_file", mode, **written)).is_error
        assert (files / "a.txt").read_text() == "changed"


@BOTH
async def test_the_memory_server_forgets_nothing_before_a_person_says_so(tmp_path: Path, mode: str) -> None:
    env = {"MEMORY_FILE_PATH": str(tmp_path / "memory.json")}
    async with world(tmp_path, servers={"memory": node_server("mcp-server-memory", env=env, preset="memory")}) as w:
        coder = await w.ready("coder", "memory")
        entity = {"name": "alice", "entityType": "person", "observations": ["likes tea"]}
        assert not (await w.call(coder, "memory__create_entities", mode, entities=[entity])).is_error
        held = await w.call(coder, "memory__delete_entities", mode, entityNames=["alice"])
        assert held.is_held
        assert "likes tea" in (await w.call(coder, "memory__read_graph", mode)).text


async def test_what_nothing_classifies_is_destructive_whatever_its_server_says_of_it(tmp_path: Path) -> None:
    repo = repository(tmp_path / "repo")
    async with world(tmp_path, servers={"git": python_server("mcp-server-git", "--repository", str(repo))}) as w:
        hazards = {tool.classification.hazard for tool in w.running.catalog.tools}
        coder = await w.ready("coder", "git")
        assert (await w.call(coder, "git__git_status", repo_path=str(repo))).is_held
    assert hazards == {Hazard.DESTRUCTIVE}


@contextlib.contextmanager
def everything_over_http() -> Iterator[dict[str, Any]]:
    """The everything server behind Streamable HTTP."""
    port = free_port()
    command = [npm_program("mcp-server-everything"), "streamableHttp"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env={**PATH, "PORT": str(port)}, **quiet) as process:  # type: ignore[call-overload]
        try:
            yield at(f"http://127.0.0.1:{port}/mcp", tools={}, preset="everything")
        finally:
            process.kill()


async def listening(url: str) -> None:
    """Return once something answers there."""
    async with httpx2.AsyncClient() as http:
        with anyio.fail_after(20):
            while True:
                with contextlib.suppress(httpx2.TransportError):
                    await http.get(url)
                    return
                await anyio.sleep(0.05)


async def speaks_everything(w: World, mode: str) -> None:
    """What the everything server offers arrives through the gateway."""
    coder, person = await w.ready("coder", "everything"), Person("decline")
    heard: list[float] = []

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append(progress)

    async with w.client(coder, mode, elicitation_callback=person) as client:
        assert (await called(client, "everything__echo", {"message": "hé"})).text == "Echo: hé"
        structured = await called(client, "everything__get-structured-content", {"location": "New York"})
        assert structured.result["structuredContent"]["conditions"]
        image = await called(client, "everything__get-tiny-image", {})
        assert [part["type"] for part in image.result["content"]] == ["text", "image", "text"]
        long = {"duration": 0.3, "steps": 3}
        result = await client.call_tool("everything__trigger-long-running-operation", long, progress_callback=hear)
        assert not result.is_error and heard == [1, 2, 3]
        if mode == LEGACY:
            asked = await called(client, "everything__trigger-elicitation-request", {})
            assert "declined" in asked.text and person.asked[0].startswith("[tool server `everything`] ")


@BOTH
async def test_the_everything_server_over_stdio_loses_nothing(tmp_path: Path, mode: str) -> None:
    server = node_server("mcp-server-everything", "stdio", preset="everything")
    async with world(tmp_path, servers={"everything": server}) as w:
        await speaks_everything(w, mode)


@BOTH
async def test_the_everything_server_over_http_loses_nothing(tmp_path: Path, mode: str) -> None:
    with everything_over_http() as server:
        await listening(server["url"])
        async with world(tmp_path, servers={"everything": server}) as w:
            await speaks_everything(w, mode)
