"""Row 46: environment or command injection into a stdio child; a child that outlives the gateway."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.servers.start import PLAIN, SOON, Caller, Changes, admitted
from tool_adapters.stdio import StdioDownstream

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")

GATEWAY = """
import sys, anyio
from tests.servers.start import PLAIN, Caller, admitted
from tool_adapters.stdio import StdioDownstream

async def main():
    server = StdioDownstream("tools", PLAIN)
    async with server.run():
        for tool in ("who", "spawn"):
            value = (await server.forward(admitted(tool), Caller()))["structuredContent"]["value"]
            print(value["pid"] if tool == "who" else value, flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


async def _ask(server: StdioDownstream, tool: str, arguments: Mapping[str, Any] | None = None) -> Any:
    return (await server.forward(admitted(tool, arguments), Caller()))["structuredContent"]["value"]


def _death(pid: int) -> int:
    """Return a descriptor that becomes readable when the process has ended."""
    return os.pidfd_open(pid)


def _dies(pidfd: int) -> bool:
    try:
        return bool(select.select([pidfd], [], [], SOON)[0])
    finally:
        os.close(pidfd)


async def test_the_child_gets_the_configured_environment_and_nothing_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_SECRET", "hunter2")
    monkeypatch.setenv("LD_PRELOAD", "")
    server = StdioDownstream("tools", PLAIN, {"TOKEN": "t", "PYTHONSAFEPATH": "1"})
    async with server.run():
        pid = (await _ask(server, "who"))["pid"]
        given = (Path("/proc") / str(pid) / "environ").read_bytes()
    assert set(given.rstrip(b"\0").split(b"\0")) == {b"TOKEN=t", b"PYTHONSAFEPATH=1"}


async def test_the_command_is_executed_as_it_stands(tmp_path: Path) -> None:
    words = ("$(touch pwned)", "; touch pwned", "`touch pwned`", "* ~ \n\t'\"")
    server = StdioDownstream("tools", (*PLAIN, *words), cwd=tmp_path)
    async with server.run():
        who = await _ask(server, "who")
    assert tuple(who["argv"][1:]) == words and who["cwd"] == str(tmp_path)
    assert [entry async for entry in anyio.Path(tmp_path).iterdir()] == []


async def test_arguments_of_a_call_reach_neither_the_command_line_nor_a_second_message() -> None:
    smuggled = (
        '\n{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"exit","arguments":{"code":0}}}\n\u2028\x85'
    )
    server = StdioDownstream("tools", PLAIN)
    async with server.run():
        received = await _ask(server, "received", {"text": smuggled, "$(id)": "; id"})
        who = await _ask(server, "who")
    assert received["arguments"] == {"text": smuggled, "$(id)": "; id"}
    assert who["argv"] == [PLAIN[1]]


async def test_no_open_file_of_the_gateway_is_the_childs(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("x")
    with secret.open() as opened:
        os.set_inheritable(opened.fileno(), True)
        server = StdioDownstream("tools", PLAIN)
        async with server.run():
            pid = (await _ask(server, "who"))["pid"]
            files = [entry.readlink().name for entry in (Path("/proc") / str(pid) / "fd").iterdir()]
    assert "secret" not in files


async def test_the_child_leads_a_session_and_group_of_its_own() -> None:
    server = StdioDownstream("tools", PLAIN)
    async with server.run():
        who = await _ask(server, "who")
    assert who["pid"] == who["group"] == who["session"] != os.getpid()


async def test_an_orderly_end_ends_the_child_and_what_it_started() -> None:
    server = StdioDownstream("tools", PLAIN)
    async with server.run():
        family = [_death((await _ask(server, "who"))["pid"]), _death(await _ask(server, "spawn"))]
    assert all(_dies(pidfd) for pidfd in family)


async def test_a_cancelled_gateway_ends_the_child_and_what_it_started() -> None:
    family: list[int] = []
    ready = anyio.Event()

    async def gateway() -> None:
        server = StdioDownstream("tools", PLAIN)
        async with server.run():
            family.extend([_death((await _ask(server, "who"))["pid"]), _death(await _ask(server, "spawn"))])
            ready.set()
            await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(gateway)
        await ready.wait()
        tasks.cancel_scope.cancel()
    assert all(_dies(pidfd) for pidfd in family)


async def test_what_a_killed_child_started_dies_with_it() -> None:
    changes = Changes()
    server = StdioDownstream("tools", PLAIN)
    server.on_tools_changed(changes)
    async with server.run():
        grandchild = _death(await _ask(server, "spawn"))
        os.kill((await _ask(server, "who"))["pid"], signal.SIGKILL)
        await changes.beyond(1)
        assert _dies(grandchild)


def test_a_gateway_that_is_killed_takes_the_child_and_what_it_started_along() -> None:
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", GATEWAY], cwd=root, stdout=subprocess.PIPE) as gateway:
        assert gateway.stdout is not None
        family = [_death(int(gateway.stdout.readline())) for _ in range(2)]
        gateway.kill()
    assert all(_dies(pidfd) for pidfd in family)


async def test_what_a_server_says_on_standard_error_reaches_no_caller(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "tool_adapters.stdio")
    caller = Caller()
    server = StdioDownstream("tools", PLAIN)
    async with server.run():
        said = admitted("print", {"to": "stderr", "text": "password=hunter2"})
        result = await server.forward(said, caller)
    assert "hunter2" not in str(result) and caller.heard == []
    assert "tools: password=hunter2" in caplog.messages
