"""A day on a desktop: clients that run on while sessions end, gateways stop, and people answer where they are."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.desktop.console import Home, fresh_home, gateways

FILE = "claude_desktop_config.json"
READ = "mcpdo --format json @mcp-authz tools/call files__read_text_file path:=todo.txt"
WRITE = "mcpdo --format json @mcp-authz tools/call files__write_file path:=todo.txt content:=nothing"


@contextmanager
def desktop(directory: Path, *, prompt: str = "no", waiting: int = 200) -> Iterator[Home]:
    """A home whose client has been put behind a gateway, and is connected."""
    with fresh_home(directory) as home:
        with (home.path / ".config" / "mcp-authz" / "gateway.toml").open("a") as configuration:
            configuration.write(f"\n[waiting]\nseconds = {waiting}\n")
        servers = {"files": {"command": "mcp-server-filesystem", "args": ["notes"]}}
        (home.path / FILE).write_text(json.dumps({"mcpServers": servers}))
        home.run(f"mcp-authz wrap {FILE} --yes --client-prompt {prompt}")
        home.run(f"mcpdo connect mcp-authz --config {FILE}")
        yield home


def said(home: Home, command: str) -> str:
    """The text of a call's result, also where it is an error."""
    return home.run(command, fine=False)


def sent_to(held: str) -> tuple[str, str]:
    """Where the person is to decide, as a path, and what `mcpdo` is told once they have been there."""
    pending = json.loads(held)["elicitationPending"]
    assert pending["mode"] == "url", held
    return urlsplit(pending["url"]).path, f"mcpdo elicitation/respond {pending['elicitationId']} --done"


def only_session(home: Home) -> str:
    (session,) = json.loads(home.run("mcp-authz session list --json"))
    return str(session["id"])


def test_a_session_that_was_ended_is_renewed_by_asking_for_one(tmp_path: Path) -> None:
    with desktop(tmp_path, prompt="yes") as home:
        assert "buy milk" in home.run(READ)
        home.run(f"mcp-authz revoke session {only_session(home)} --reason lunch")
        assert "authz__request_session" in said(home, READ)

        ask = "mcpdo --format json @mcp-authz tools/call authz__request_session purpose:='read my notes' minutes:=30"
        pending: Any = json.loads(home.run(ask))["elicitationPending"]
        assert "claude-desktop asks: for 30 minutes, to read my notes: read with files (" in pending["message"]
        opened = home.run(f"mcpdo elicitation/respond {pending['elicitationId']} approve:=true minutes:=10")
        assert "is open for 10 minutes" in opened
        assert "buy milk" in home.run(READ)


def test_a_gateway_that_was_killed_is_back_at_the_next_call_of_a_client_that_ran_on(tmp_path: Path) -> None:
    with desktop(tmp_path) as home:
        assert "buy milk" in home.run(READ)
        (first,) = gateways(home.path)
        os.kill(first, signal.SIGKILL)
        assert "buy milk" in home.run(READ)
        (second,) = gateways(home.path)
        assert second != first


def test_two_clients_share_one_gateway(tmp_path: Path) -> None:
    with desktop(tmp_path) as home:
        home.run(f"mcpdo --connection second connect mcp-authz --config {FILE}")
        for connection in ("mcp-authz", "second"):
            assert "buy milk" in home.run(READ.replace("@mcp-authz", f"@{connection}"))
        assert len(gateways(home.path)) == 1


def test_a_call_that_is_held_says_where_a_person_decides(tmp_path: Path) -> None:
    with desktop(tmp_path) as home:
        page, _ = sent_to(home.run(WRITE))
        assert page.split("/")[2] in home.run("mcp-authz holds list --json")
        assert (home.path / "notes" / "todo.txt").read_text() == "buy milk\n"


def test_a_second_client_is_wrapped_while_the_first_one_runs(tmp_path: Path) -> None:
    with desktop(tmp_path) as home:
        assert "buy milk" in home.run(READ)
        servers = {"memory": {"command": "mcp-server-memory"}}
        (home.path / "mcp.json").write_text(json.dumps({"mcpServers": servers}))
        assert "the gateway that ran is stopped" in home.run("mcp-authz wrap mcp.json --agent second --yes")
        home.run("mcpdo --connection second connect mcp-authz --config mcp.json")
        assert "entities" in home.run("mcpdo --format json @second tools/call memory__read_graph")
        assert "buy milk" in home.run(READ)
        assert len(gateways(home.path)) == 1
