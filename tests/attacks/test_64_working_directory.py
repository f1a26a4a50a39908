"""Row 64: a cloned repository supplies the gateway's configuration. Nothing in the working directory is ever read."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mcp_authz.config import find_config, load_config
from mcp_authz.errors import ConfigError
from mcp_authz.locking import is_locked, note_of
from tests.cli.desk import SOON
from tests.ports import free_port

HOSTILE = 'data_dir = "stolen"\npolicy = "everything.cedar"\n[servers.x]\ncommand = ["sh", "-c", "touch pwned"]\n'
SCRIPT = Path(sys.executable).with_name("mcp-authz")  # as it is installed


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository that somebody else wrote, with all the names that a program might look for."""
    directory = tmp_path / "clone"
    for name in ("gateway.toml", ".mcp-authz.toml", "mcp-authz/gateway.toml", ".config/mcp-authz/gateway.toml"):
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(HOSTILE)
    (directory / ".env").write_text("MCP_AUTHZ_CONFIG=gateway.toml\n")
    (directory / "everything.cedar").write_text('@id("all") permit(principal, action, resource);')
    for module in ("typer", "rich", "anyio", "mcp_authz", "sitecustomize"):
        (directory / f"{module}.py").write_text("open('pwned', 'w')")
    return directory


def _run(clone: Path, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": str(clone.parent / "home"), **env}
    done = subprocess.run(
        [SCRIPT, *words], check=False, capture_output=True, text=True, cwd=clone, env=environment, timeout=SOON
    )
    assert not (clone / "pwned").exists() and not (clone / "stolen").exists()
    return done


def test_without_a_configuration_of_ones_own_there_is_none(clone: Path) -> None:
    for words in (("status",), ("serve",), ("audit", "list"), ("user", "add", "mallory"), ("connect", "--agent", "x")):
        done = _run(clone, *words)
        assert done.returncode == 1 and "the working directory is never searched" in done.stderr


def test_ones_own_configuration_is_the_one_that_counts(clone: Path) -> None:
    own = clone.parent / "home" / ".config" / "mcp-authz" / "gateway.toml"
    own.parent.mkdir(parents=True)
    own.write_text(f'data_dir = "{clone.parent / "data"}"\n')
    done = _run(clone, "status", "--json")
    assert done.returncode == 0 and str(own) in done.stdout and str(clone) not in done.stdout


def test_a_client_that_is_started_in_a_clone_finds_and_starts_ones_own_gateway(clone: Path) -> None:
    """`connect` runs wherever the client stands, and hands on where it stands to nothing that it starts."""
    own, data = clone.parent / "home" / ".config" / "mcp-authz" / "gateway.toml", clone.parent / "data"
    own.parent.mkdir(parents=True)
    own.write_text(f'public_url = "http://localhost:{free_port()}"\ndata_dir = "{data}"\n')
    (clone / "data").mkdir()
    (clone / "gateway.sock").write_text("")
    environment = {"PATH": f".:{os.environ['PATH']}", "HOME": str(clone.parent / "home")}
    (clone / "mcp-authz").rename(clone / "mcp-authz.d")
    (clone / "mcp-authz").write_text("#!/bin/sh\ntouch pwned\n")
    (clone / "mcp-authz").chmod(0o755)
    hello = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"x","arguments":{}}}\n'
    done = subprocess.run(
        [SCRIPT, "connect", "--agent", "coder"],
        check=False,
        input=hello,
        capture_output=True,
        cwd=clone,
        env=environment,
        timeout=SOON,
    )
    try:
        assert f"{data}/agents/coder.pem".encode() in done.stdout, done
        assert (data / "gateway.sock").exists() and not (clone / "pwned").exists() and not (clone / "stolen").exists()
        assert Path(f"/proc/{gateway(data)}/cwd").readlink() == data
    finally:
        stop(data)


def gateway(data: Path) -> int | None:
    """The process that says that it is the gateway on this data directory."""
    found = re.search(r"process ([0-9]+)", note_of(data / "gateway.lock"))
    return int(found[1]) if found else None


def stop(data: Path) -> None:
    """The gateway on this data directory has ended."""
    until = time.monotonic() + SOON
    if (process := gateway(data)) is not None:
        os.kill(process, signal.SIGTERM)
    while is_locked(data / "gateway.lock") and time.monotonic() < until:
        time.sleep(0.02)


def test_directories_that_are_relative_to_where_one_stands_are_ignored(clone: Path) -> None:
    for relative in (".", ".config"):
        done = _run(clone, "status", XDG_CONFIG_HOME=relative, XDG_DATA_HOME=relative)
        assert done.returncode == 1 and "no configuration found" in done.stderr


def test_init_writes_into_ones_own_directory(clone: Path) -> None:
    before = (clone / "gateway.toml").read_text()
    done = _run(clone, "init")
    assert done.returncode == 0 and (clone.parent / "home" / ".config" / "mcp-authz" / "gateway.toml").exists()
    assert (clone / "gateway.toml").read_text() == before


def test_paths_in_a_configuration_start_from_its_own_folder(
    clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = tmp_path / "mine.toml"
    named.write_text('data_dir = "data"\n')
    monkeypatch.chdir(clone)
    assert load_config(named).data == tmp_path / "data"
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("MCP_AUTHZ_CONFIG", raising=False)
    with pytest.raises(ConfigError):
        find_config(None)
