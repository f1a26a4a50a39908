"""`mcp-authz tools review`: what nothing classifies is classified by a person; what is said already stays."""

from __future__ import annotations

import json
import tomllib
from typing import Any

import pytest

from tests.wrap.desktop import BROKEN, Desktop
from tests.wrap.test_questions import ACCEPT, LOOK, ODD, PUT

pytestmark = pytest.mark.thorough

HEAD = '# mine\ndata_dir = "data"\n[roles]\nreader = ["spy:look"]\n'


def configure(desktop: Desktop, text: str, *tools: dict[str, Any]) -> None:
    server = desktop.spy("spy", *tools)
    command = json.dumps([server["command"], *server["args"]])
    desktop.client(f"{HEAD}[servers.spy] # ours\ncommand = {command}\n{text}", ".config/mcp-authz/gateway.toml")


def tools_of(desktop: Desktop) -> dict[str, Any]:
    tools: dict[str, Any] = tomllib.loads(desktop.config.read_text())["servers"]["spy"].get("tools", {})
    return tools


def test_unclassified_tools_are_proposed_accepted_and_written(desktop: Desktop) -> None:
    text = (
        '[servers.spy.tools.look] # known\nhazard = "write"\napproval = "destructive"\n'
        '[approval.destructive]\nby = ["owner"]\n'
    )
    configure(desktop, text, LOOK, PUT, ODD)
    code, screen = desktop.seated("tools", "review", types=[(ACCEPT, "spy.odd=read"), ("you say so", "")])
    assert code == 0, screen
    assert "put" in screen and "look" not in screen
    assert tools_of(desktop) == {
        "look": {"hazard": "write", "approval": "destructive"},
        "put": {"hazard": "write"},
        "odd": {"hazard": "read"},
    }
    assert all(line in desktop.config.read_text() for line in (HEAD + text).splitlines())
    assert "nothing to review" in desktop.ok("tools", "review", "--yes")


def test_all_tools_can_be_changed_and_keep_what_else_was_said(desktop: Desktop) -> None:
    text = (
        '[servers.spy.tools.look]\nhazard = "read" # sure\nscopes = ["spy:x"]\nproof = "dpop"\n'
        '[servers.spy.tools."*"]\nhazard = "write"\nscopes = ["spy:all"]\n'
    )
    configure(desktop, text, LOOK, PUT)
    types = [(ACCEPT, "*=destructive"), ("you say so", "")]
    code, screen = desktop.seated("tools", "review", "spy", "--all", types=types)
    assert code == 0 and "your configuration" in screen
    assert tools_of(desktop) == {
        "look": {"hazard": "destructive", "scopes": ["spy:x"], "proof": "dpop"},
        "*": {"hazard": "write", "scopes": ["spy:all"]},
        "put": {"hazard": "destructive", "scopes": ["spy:all"]},
    }


def test_quitting_writes_nothing(desktop: Desktop) -> None:
    configure(desktop, "", LOOK)
    before = desktop.config.read_bytes()
    code, screen = desktop.seated("tools", "review", types=[(ACCEPT, "q")])
    assert code == 1 and "nothing was changed" in screen and desktop.config.read_bytes() == before


def test_nobody_looking_writes_only_what_a_preset_says(desktop: Desktop) -> None:
    configure(desktop, "", LOOK, PUT)
    assert "add --yes" in desktop.refused("tools", "review")
    said = json.loads(desktop.ok("tools", "review", "--yes", "--json"))
    assert said["written"] == 0 and [tool["by"] for tool in said["servers"][0]["tools"]] == ["nobody", "nobody"]
    assert tools_of(desktop) == {}
    desktop.ok("tools", "review", "--yes", "--trust-annotations")
    assert tools_of(desktop) == {"look": {"hazard": "read"}, "put": {"hazard": "write"}}


def test_a_server_that_does_not_start_is_left_with_a_sentence(desktop: Desktop) -> None:
    configure(desktop, f"[servers.bad]\ncommand = {json.dumps([BROKEN['command'], *BROKEN['args']])}\n", LOOK)
    assert "left as it is: bad: it exited with code 1; it said: no database here" in desktop.ok(
        "tools", "review", "--yes"
    )
    assert "there is no server `none`" in desktop.refused("tools", "review", "none", "--yes")


def test_tools_are_listed_by_server_and_with_warnings(desktop: Desktop) -> None:
    path = desktop.client(
        {"mcpServers": {"a": desktop.spy("one", {**LOOK, "description": "x\u202ey"}), "b": desktop.spy("two", ODD)}}
    )
    desktop.wrap(path)
    listed = json.loads(desktop.ok("tools", "list", "--json"))
    assert {tool["name"]: bool(tool["warnings"]) for tool in listed} == {"a__look": True, "b__odd": False}
    assert [tool["name"] for tool in json.loads(desktop.ok("tools", "list", "--server", "b", "--json"))] == ["b__odd"]
    assert "WARNING" in desktop.ok("tools", "list") and "WARNING" not in desktop.ok("tools", "list", "--server", "b")
    assert "there is no server `c`" in desktop.refused("tools", "list", "--server", "c")
