"""Wrapping again changes nothing, and wrapping that fails half-way leaves the client's file as it was."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest

from mcp_authz.config import load_config
from mcp_authz.errors import Conflict
from mcp_authz.wrap import client_file
from mcp_authz.wrap.applying import Order, carry_out
from tests.wrap.desktop import BROKEN, PLAIN, Desktop

pytestmark = pytest.mark.thorough

LONG = "x" * 244  # a name beside which no other file with a longer one fits


def files(directory: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path): (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
        for path in directory.rglob("*")
        if path.is_file() and "store.db" not in path.name and "wrapped" not in path.parts
    }


async def test_wrapping_what_is_wrapped_changes_nothing(desktop: Desktop) -> None:
    path = desktop.client({"mcpServers": {"a": {**PLAIN, "env": {"API_KEY": "k" * 10}}, "b": BROKEN}})
    desktop.wrap(path)
    before = files(desktop.home)
    assert not desktop.wrap(path)["changed"]
    assert "leads to the gateway already" in desktop.ok("wrap", path, "--yes")
    assert files(desktop.home) == before


async def test_wrapping_again_after_undo_uses_what_is_there(desktop: Desktop) -> None:
    path = desktop.client({"mcpServers": {"a": {**PLAIN, "env": {"API_KEY": "k" * 10}}}})
    desktop.wrap(path)
    before = files(desktop.home)
    desktop.ok("wrap", path, "--undo")
    again = desktop.wrap(path)
    assert again["servers"][0]["already_configured"] and files(desktop.home) == before
    async with desktop.open() as here:
        assert len(await here.store.agents()) == len(await here.store.grants()) == 1


def test_two_clients_share_a_server_that_is_the_same_and_not_one_that_is_not(desktop: Desktop) -> None:
    same = {**PLAIN, "env": {"API_KEY": "first"}}
    desktop.wrap(desktop.client({"mcpServers": {"a": same}}))
    other = desktop.wrap(desktop.client({"mcpServers": {"mine": same}}, ".cursor/mcp.json"))
    assert [(one["name"], one["already_configured"]) for one in other["servers"]] == [("a", True)]
    third = {"a": {**same, "env": {"API_KEY": "second"}}}
    said = desktop.wrap(desktop.client({"servers": third}, ".config/Code/User/mcp.json"))
    assert [(one["name"], one["already_configured"]) for one in said["servers"]] == [("a-2", False)]
    secrets = desktop.config.parent / "secrets"
    assert {p.name: p.read_text() for p in secrets.iterdir()} == {"a.API_KEY": "first", "a-2.API_KEY": "second"}
    assert said["agents"][0]["scopes"] == ["a-2"] and other["agents"][0]["scopes"] == ["a"]


def test_a_configuration_of_ones_own_keeps_its_comments_and_its_servers(desktop: Desktop) -> None:
    own = '# mine\n[servers.a] # do not touch\ncommand = ["true"]\n\n[approval.destructive] # strict\nby = ["owner"]\n'
    desktop.client(own, ".config/mcp-authz/gateway.toml")
    desktop.wrap(desktop.client({"mcpServers": {"a": PLAIN}}))
    text = desktop.config.read_text()
    assert all(line in text for line in own.splitlines()) and "[servers.a-2]" in text
    loaded = load_config(desktop.config)
    assert loaded.servers["a"].command == ("true",) and loaded.approval["destructive"].by == ("owner",)


def test_a_configuration_elsewhere_is_named_in_the_clients_file(desktop: Desktop) -> None:
    path = desktop.client({"mcpServers": {"a": PLAIN}})
    elsewhere = desktop.home / "else" / "gw.toml"
    desktop.ok("wrap", path, "--yes", options=["--config", str(elsewhere)])
    entry = json.loads(path.read_text())["mcpServers"]["mcp-authz"]
    assert entry["args"][:3] == ["--config", str(elsewhere), "connect"] and not desktop.config.exists()


def test_directories_of_this_terminal_are_named_in_the_clients_file(desktop: Desktop) -> None:
    path = desktop.client({"mcpServers": {"a": PLAIN}})
    xdg = {"XDG_CONFIG_HOME": str(desktop.home / "c"), "XDG_DATA_HOME": str(desktop.home / "d")}
    Desktop(home=desktop.home, env=xdg).wrap(path)
    entry = json.loads(path.read_text())["mcpServers"]["mcp-authz"]
    assert entry["args"][:2] == ["--config", str(desktop.home / "c/mcp-authz/gateway.toml")]
    assert entry["env"] == {"XDG_DATA_HOME": str(desktop.home / "d")}


def test_a_configuration_that_cannot_be_written_leaves_the_clients_file(desktop: Desktop) -> None:
    path = desktop.client({"mcpServers": {"a": PLAIN}})
    before = path.read_bytes()
    elsewhere = desktop.home / f"{LONG}.toml"
    said = desktop.refused("wrap", path, "--yes", options=["--config", str(elsewhere)])
    assert "cannot be written" in said and path.read_bytes() == before


def test_secrets_that_cannot_be_written_leave_the_clients_file(desktop: Desktop) -> None:
    path = desktop.client({"mcpServers": {"a": {**PLAIN, "env": {"API_KEY": "secret-value"}}}})
    before = path.read_bytes()
    desktop.client("in the way", ".config/mcp-authz/secrets")
    said = desktop.refused("wrap", path, "--yes")
    assert "secret file" in said and "secret-value" not in said and path.read_bytes() == before
    assert "[servers.a]" not in desktop.config.read_text()


def test_a_clients_file_that_cannot_be_written_is_left_and_wrapping_goes_on_later(desktop: Desktop) -> None:
    long = desktop.client({"mcpServers": {"a": PLAIN}}, f"{LONG}.json")
    before = long.read_bytes()
    assert "it is as it was" in desktop.refused("wrap", long, "--yes") and long.read_bytes() == before
    assert "no file is wrapped" in desktop.refused("wrap", "--undo")
    short = long.rename(desktop.home / "short.json")
    assert desktop.wrap(short)["servers"][0]["already_configured"]


def test_nothing_is_written_when_no_server_starts(desktop: Desktop) -> None:
    path = desktop.client({"mcpServers": {"a": BROKEN}})
    before = files(desktop.home)
    assert "none of its servers can move" in desktop.run("wrap", path, "--yes").err
    assert files(desktop.home) == before and not desktop.data.exists()


def test_a_dry_run_writes_nothing(desktop: Desktop) -> None:
    path = desktop.client({"mcpServers": {"a": {**PLAIN, "env": {"API_KEY": "k"}}}})
    before = files(desktop.home)
    assert "nothing was changed" in desktop.ok("wrap", path, "--dry-run")
    assert not json.loads(desktop.ok("wrap", path, "--dry-run", "--json"))["changed"]
    assert files(desktop.home) == before and not desktop.data.exists()


async def test_servers_that_change_while_a_person_decides_are_not_overwritten(
    desktop: Desktop, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = desktop.client({"mcpServers": {"a": PLAIN}, "opened": 1}, ".claude.json")
    desktop.client('data_dir = "data"\n', ".config/mcp-authz/gateway.toml")
    read = client_file.read(path)
    order = Order(
        file=read, moves=(), chosen={}, agent="claude-code", person="alice", interactive=None, by="user:alice"
    )
    path.write_text(path.read_text().replace('"opened": 1', '"opened": 2'))
    await carry_out(order, load_config(desktop.config))
    assert json.loads(path.read_text()) == {"mcpServers": {"a": PLAIN}, "opened": 2}
    path.write_text(json.dumps({"mcpServers": {"a": PLAIN, "b": PLAIN}}))
    with pytest.raises(Conflict, match="were changed meanwhile"):
        await carry_out(order, load_config(desktop.config))
