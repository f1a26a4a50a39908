"""The local gateway: started by whoever needs it first, one for all, ended when nobody uses it, never in the way."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import anyio
import anyio.to_thread
import httpx2
import pytest

from mcp_authz import unix_socket
from mcp_authz.client import local
from mcp_authz.errors import ConfigError, Conflict
from mcp_authz.locking import is_locked, locked, note_of
from tests.connect.desktop import COMMAND, LEGACY, MODERN, SOON, Desktop, desktop, envelope_of, modern, text_of, tools

SAY = {"result": {"content": [], "structuredContent": {"v": 1}}}


def serve(d: Desktop, *words: str) -> subprocess.Popen[str]:
    """A gateway that a person starts."""
    return subprocess.Popen(
        [*COMMAND, "--config", str(d.path), "serve", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=d.environment,
        cwd=d.directory,
    )


async def test_two_clients_that_start_at_once_find_one_gateway(tmp_path: Path) -> None:
    done = list[object]()

    async def one(d: Desktop, mode: str) -> None:
        async with d.client(mode) as client:
            done.append((await client.call_tool("plain__say", SAY)).structured_content)
            assert len(d.gateways()) == 1

    with desktop(tmp_path) as d:
        await d.settle()
        async with anyio.create_task_group() as group:
            for mode in (MODERN, LEGACY, MODERN):
                group.start_soon(one, d, mode)
        started = (d.config.data / "gateway.log").read_text()
        assert d.gateways() == [d.gateway()]
    assert done == [{"v": 1}] * 3 and started.count("mcp-authz gateway at") == 1 and "already" not in started


async def test_the_gateway_outlives_the_client_that_started_it_and_is_nobodys_child(tmp_path: Path) -> None:
    with desktop(tmp_path) as d:
        await d.settle()
        async with d.wire() as wire:
            await wire.introduce()
            wire.process.send_signal(signal.SIGTERM)
            with anyio.fail_after(SOON):
                assert await wire.process.wait() == 0
        gateway = d.gateway()
        assert gateway is not None and os.getsid(gateway) == gateway
        log, of = d.config.data / "gateway.log", Path(f"/proc/{gateway}")
        assert (of / "cwd").readlink() == d.config.data and (of / "fd/0").readlink() == Path("/dev/null")
        assert (of / "fd/1").readlink() == (of / "fd/2").readlink() == log
        assert stat.S_IMODE(log.stat().st_mode) == 0o600


async def test_requests_that_run_when_the_input_ends_are_answered(tmp_path: Path) -> None:
    with desktop(tmp_path) as d:
        await d.settle()
        hello = {"jsonrpc": "2.0", "id": 1, "method": "server/discover", "params": {"_meta": modern()}}
        with anyio.fail_after(SOON):
            done = await anyio.run_process(
                d.words(), input=json.dumps(hello).encode(), env=d.environment, cwd=d.directory
            )
    assert done.returncode == 0 and b'"id":1' in done.stdout and b"supportedVersions" in done.stdout
    assert done.stdout.count(b"\n") == 1 and done.stderr == b""


def code_when_nobody_reads(d: Desktop) -> int:
    """How `connect` ends whose answers nobody takes."""
    with subprocess.Popen(
        d.words(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=d.environment, cwd=d.directory
    ) as client:
        assert client.stdin is not None and client.stdout is not None
        client.stdout.close()
        client.stdin.write(b'{"jsonrpc":"2.0","id":9,"method":"ping"}\n')
        client.stdin.flush()
        return client.wait(SOON)


async def test_a_client_that_goes_away_ends_connect(tmp_path: Path) -> None:
    with desktop(tmp_path) as d:
        await d.settle()
        async with d.wire() as wire:
            await wire.introduce()
            await wire.send({"jsonrpc": "2.0", "id": 9, "method": "ping"})
            await wire.until(id=9)
            assert await wire.closed() == 0
        assert await anyio.to_thread.run_sync(code_when_nobody_reads, d) == 0


async def test_why_the_gateway_does_not_start_is_the_last_line_of_its_log(tmp_path: Path) -> None:
    with desktop(tmp_path) as d, socket.create_server(("127.0.0.1", d.port)):
        await d.settle()
        async with d.wire() as wire:
            await wire.introduce()
            told = await wire.call(1, "plain__say", SAY)
    assert told["isError"] and envelope_of(told)["reason"] == "gateway"
    assert f"cannot listen on 127.0.0.1:{d.port} (Address already in use)" in text_of(told)
    assert "gateway.log" in text_of(told)


async def test_a_tool_server_that_is_slow_delays_nobody_for_long(
    tmp_path: Path,
) -> None:
    slow = tools("sh", "-c", "sleep 600")
    with desktop(tmp_path, {"plain": tools(), "slow": slow}) as d:
        await d.settle()
        async with d.wire() as wire:
            began = time.monotonic()
            await wire.introduce()
            await wire.ask(1, "tools/list")
            took = time.monotonic() - began
    assert took < 30


def test_a_gateway_ends_when_nobody_uses_it(tmp_path: Path) -> None:
    with desktop(tmp_path) as d, serve(d, "--idle-minutes", "0.01") as gateway:
        out, err = gateway.communicate(timeout=SOON)
        assert gateway.returncode == 0 and "mcp-authz gateway at" in out and err == ""
        assert not d.config.socket.exists()


async def test_an_open_stream_keeps_the_gateway_running(tmp_path: Path) -> None:
    with desktop(tmp_path) as d:
        await d.settle()
        with serve(d, "--idle-minutes", "0.1") as gateway:
            assert gateway.stdout is not None and gateway.stdout.readline()  # else the client starts one of its own
            async with d.wire() as wire:
                await wire.introduce()
                await wire.ask(1, "tools/list")
                await anyio.sleep(7)  # longer than it is allowed to be idle
                assert gateway.poll() is None
                await wire.closed()
            assert gateway.wait(SOON) == 0
            gateway.communicate()


def test_a_second_gateway_says_where_the_first_is(tmp_path: Path) -> None:
    with desktop(tmp_path) as d, serve(d) as first:
        assert first.stdout is not None and "mcp-authz gateway at" in first.stdout.readline()
        with serve(d) as second:
            _, err = second.communicate(timeout=SOON)
        assert second.returncode == 1
        assert f"a gateway runs here already, at {d.url}/mcp (process {first.pid})" in err
        first.send_signal(signal.SIGINT)
        first.communicate(timeout=SOON)
        assert first.returncode == 0


def test_a_gateway_listens_for_its_own_user_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with desktop(tmp_path) as d, serve(d) as gateway:
        assert gateway.stdout is not None and gateway.stdout.readline()
        path = d.config.socket
        assert stat.S_ISSOCK(path.stat().st_mode) and stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        transport = httpx2.HTTPTransport(uds=str(path))
        with httpx2.Client(transport=transport, base_url=d.url) as http:
            assert http.get("/healthz").json() == {"status": "ok"}
            assert http.get("/healthz", headers={"host": "evil.example"}).status_code in {200, 421}
            assert http.post("/mcp", headers={"host": "evil.example"}).status_code == 421
        gateway.send_signal(signal.SIGTERM)
        gateway.communicate(timeout=SOON)
        assert gateway.returncode == 0 and not path.exists() and not is_locked(d.config.lock)


def test_the_socket_of_a_dead_gateway_is_replaced_and_nothing_else_is(tmp_path: Path) -> None:
    with desktop(tmp_path) as d:
        with serve(d) as gateway:
            assert gateway.stdout is not None and gateway.stdout.readline()
            gateway.kill()
            gateway.communicate()
        assert d.config.socket.exists()
        with serve(d) as gateway:
            assert gateway.stdout is not None and gateway.stdout.readline()
            d.stop_gateway()
            gateway.communicate(timeout=SOON)
        d.config.socket.write_text("precious")
        with serve(d) as gateway:
            _, err = gateway.communicate(timeout=SOON)
        assert gateway.returncode == 1 and str(d.config.socket) in err
        assert d.config.socket.read_text() == "precious"


def test_a_directory_in_which_others_can_write_holds_no_socket(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    with pytest.raises(ConfigError, match=f"chmod 700 {shared}"):
        unix_socket.listen(shared / "gateway.sock")
    with pytest.raises(ConfigError):
        unix_socket.require_own_directory(tmp_path / "nowhere")
    if os.getuid() == 0:
        other = tmp_path / "other"
        other.mkdir(mode=0o700)
        os.chown(other, 65534, 65534)
        with pytest.raises(ConfigError, match="belongs to somebody else"):
            unix_socket.listen(other / "gateway.sock")


def test_a_lock_is_held_by_one_process_and_says_by_whom(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not is_locked(path) and note_of(path) == ""
    with locked(path, "me"):
        assert is_locked(path) and note_of(path) == "me"
        with pytest.raises(Conflict), locked(path):
            pass
    assert not is_locked(path)
    with locked(path, "u"):
        assert note_of(path) == "u"


async def test_the_log_of_the_gateway_does_not_grow_without_end(tmp_path: Path) -> None:
    with desktop(tmp_path) as d:
        await d.settle()
        log = d.config.data / "gateway.log"
        log.write_bytes(b"x" * (local.LOG_BYTES + 1))
        async with d.client(MODERN) as client:
            await client.list_tools()
        assert log.stat().st_size < 4096 and log.with_name("gateway.log.1").stat().st_size == local.LOG_BYTES + 1


def test_connect_loads_nothing_that_only_a_gateway_needs() -> None:
    """A desktop client waits for it: the SDK alone takes longer to load than all the rest."""
    listed = "import sys, mcp_authz.cli.main, mcp_authz.cli.connect; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", listed], check=True, capture_output=True, text=True, timeout=SOON)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    heavy = {
        "mcp",
        "mcp_types",
        "starlette",
        "uvicorn",
        "authlib",
        "cedarpy",
        "sqlite_utils",
        "aiohttp",
        "rich",
        "jinja2",
    }
    assert "httpx2" in loaded and not loaded & heavy
