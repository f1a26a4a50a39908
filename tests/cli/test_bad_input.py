"""Whatever is wrong is one sentence on stderr that says what to do: exit code 1, no traceback, nothing on stdout."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

import pytest

from tests.cli.desk import COMMAND, SOON, Desk

unless_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("polcy = []", "unknown key `polcy`; remove it or correct its spelling"),
        ("port = 'eight'", "`port`: input should be a valid integer"),
        ("public_url = 'http://example.com'", "plain http is for localhost only; use https"),
        ("[servers.UP]\ncommand = ['x']", "is no server name"),
        ("[servers.x]", "set either `command`"),
        ("= nothing", "not valid TOML"),
        ("data_dir = 'gateway.toml'", "cannot be used"),
    ],
)
def test_a_configuration_that_cannot_be_used(desk: Desk, text: str, why: str) -> None:
    desk.configure(text)
    assert why in desk.refused("status")


def test_a_configuration_that_is_not_there(desk: Desk) -> None:
    done = desk.run("agent", "list", global_options=("--config", "nowhere.toml"))
    assert done.code == 1 and "`nowhere.toml` does not exist" in done.sentence
    done = desk.run("agent", "list", global_options=())
    assert done.code == 1 and "no configuration found" in done.sentence and "mcp-authz init" in done.sentence
    done = desk.run("agent", "list", global_options=("--config", str(desk.directory)))
    assert done.code == 1 and "cannot be read" in done.sentence


def test_a_store_that_is_no_file(desk: Desk) -> None:
    desk.store.mkdir(parents=True)
    desk.path("data/master.key").write_bytes(bytes(32))
    desk.path("data/master.key").chmod(0o600)
    assert "it is no file" in desk.refused("agent", "list")


def test_a_store_that_is_garbage(desk: Desk) -> None:
    desk.ok("user", "add", "alice")
    desk.store.write_bytes(b"garbage" * 1000)
    assert "the file is no database" in desk.refused("user", "list")
    assert "the file is no database" in desk.refused("audit", "verify")


def test_a_store_of_another_key(desk: Desk) -> None:
    desk.ok("user", "add", "alice")
    desk.path("data/master.key").write_bytes(bytes(32))
    assert "key" in desk.refused("user", "list")
    desk.path("data/master.key").unlink()
    assert "restore the key" in desk.refused("user", "list")


def test_a_lock_that_cannot_be_taken(desk: Desk) -> None:
    desk.ok("user", "add", "alice")
    lock = desk.path("data/store.db.lock")
    lock.unlink()
    lock.mkdir()
    assert "nothing was changed" in desk.refused("user", "add", "bob")


@unless_root
def test_a_store_that_cannot_be_written(desk: Desk) -> None:
    desk.ok("user", "add", "alice")
    desk.store.chmod(0o400)
    assert "store" in desk.refused("user", "add", "bob")


@unless_root
def test_a_store_directory_that_cannot_be_read(desk: Desk) -> None:
    desk.ok("user", "add", "alice")
    desk.path("data").chmod(0)
    try:
        assert "cannot be used" in desk.refused("user", "list")
    finally:
        desk.path("data").chmod(0o700)


def test_things_that_are_not_there(desk: Desk) -> None:
    desk.ok("user", "add", "alice")
    desk.ok("agent", "add", "coder", "--owner", "alice", "--ceiling", "files:read")
    assert "there is no agent `nobody`" in desk.refused("agent", "show", "nobody")
    assert "there is no person `nobody`" in desk.refused("user", "show", "nobody")
    assert "there is no session `s_nothing`" in desk.refused("session", "show", "s_nothing")
    assert "there is no hold `h_nothing`" in desk.refused("holds", "show", "h_nothing")
    assert "there is no store" in desk.refused("audit", "verify", "--store", "nowhere.db")
    assert "no active agent `nobody`" in desk.refused(
        "grant", "add", "--subject", "alice", "--agent", "nobody", "--scope", "a"
    )
    assert "there is no agent `nobody`" in desk.refused("revoke", "agent", "nobody", "--reason", "x")


def test_values_that_are_not_what_they_should_be(desk: Desk) -> None:
    desk.ok("user", "add", "alice")
    desk.ok("agent", "add", "coder", "--owner", "alice", "--ceiling", "files:read")
    grant = ("grant", "add", "--subject", "alice", "--agent", "coder", "--scope")
    assert "already" in desk.refused("user", "add", "alice")
    assert "a-z" in desk.refused("user", "add", "Alice Liddell")
    assert "empty segment" in desk.refused(*grant, "files::read")
    assert "agent show coder" in desk.refused(*grant, "files:write")
    assert "depth" in desk.refused("agent", "add", "deep", "--owner", "alice", "--depth", "99")
    assert "public key" in desk.refused("agent", "add", "x", "--owner", "alice", "--public-key", "nonsense")
    assert "cannot be written" in desk.refused("agent", "add", "x", "--owner", "alice", "--new-key", "no/where.pem")
    assert desk.run("agent", "add", "x", "--owner", "alice", "--label", "novalue").code == 2
    assert desk.run("agent", "rotate", "coder").code == 2


def test_a_port_that_is_taken(desk: Desk) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        desk.configure(f'data_dir = "data"\nport = {listener.getsockname()[1]}\n')
        done = desk.run("serve")
    assert done.code == 1 and "Traceback" not in done.err
    assert len(done.err.splitlines()) == 1 and done.out == ""  # nothing was said that is not true
    assert done.err.startswith("mcp-authz: cannot listen on 127.0.0.1:")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_output_that_cannot_be_written(desk: Desk) -> None:
    command = [*COMMAND, "--config", str(desk.config), "agent", "list"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, check=False, stdout=full, stderr=subprocess.PIPE, text=True, timeout=SOON)
    assert done.returncode == 1 and done.stderr == "mcp-authz: No space left on device\n"


def test_a_reader_that_has_had_enough(desk: Desk) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    command = [*COMMAND, "--config", str(desk.config), "agent", "list"]
    done = subprocess.run(command, check=False, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=SOON)
    os.close(writing)
    assert done.returncode == 1 and done.stderr == ""


def test_a_policy_that_is_missing_is_told_with_everything_else(desk: Desk) -> None:
    desk.configure("policy = ['missing.cedar']")
    assert "`missing.cedar` cannot be read" in desk.ok("status")
    assert "`missing.cedar` cannot be read" in desk.refused("serve")
