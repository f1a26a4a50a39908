"""Row 46, while servers are wrapped: no shell, arguments stay single, nothing of ours is passed on or lives on."""

from __future__ import annotations

import json
import os
import sys
import tomllib
from pathlib import Path

import pytest

from mcp_authz.downstreams import make_downstream
from tests.servers.start import Caller, admitted
from tests.wrap.desktop import SERVERS, Desktop

NASTY = [
    "; touch pwned",
    "$(touch pwned)",
    "`touch pwned`",
    "* ~ \n\t'\"",
    "--",
    "",
    '"""\n[servers.evil]\ncommand = ["x"]',
    "a\\",
    "é\u2028",
]


@pytest.fixture
def desktop(tmp_path: Path) -> Desktop:
    home = tmp_path / "home"
    home.mkdir()
    return Desktop(home=home, env={"GATEWAY_SECRET": "hunter2", "LD_PRELOAD": ""})


def plain(*arguments: str, **more: object) -> dict[str, object]:
    return {"command": sys.executable, "args": [str(SERVERS / "plain.py"), *arguments], **more}


async def test_arguments_stay_single_arguments_from_the_clients_file_to_the_running_server(desktop: Desktop) -> None:
    path = desktop.client({"mcpServers": {"a": plain(*NASTY, cwd=str(desktop.home))}})
    desktop.wrap(path)
    config = desktop.loaded()
    assert list(config.servers) == ["a"] and config.servers["a"].command == (
        sys.executable,
        str(SERVERS / "plain.py"),
        *NASTY,
    )
    downstream = make_downstream("a", config.servers["a"], config)
    async with downstream.run():
        who = (await downstream.forward(admitted("who"), Caller()))["structuredContent"]["value"]
    assert who["argv"][1:] == NASTY and who["cwd"] == str(desktop.home)
    assert not list(desktop.home.rglob("pwned"))


def test_names_and_values_cannot_write_another_table_of_the_configuration(desktop: Desktop) -> None:
    name = 'x]\n[servers.evil]\ncommand = ["x"]\n#'
    value = '"\n[approval.destructive]\nby = ["user:mallory"]\n'
    said = {"annotations": {"readOnlyHint": True}}
    tools = ['look"] hazard = "read" [roles', 'look"]\n[roles', "*"]
    server = desktop.spy("spy", *({"name": tool, **said} for tool in tools))
    desktop.wrap(
        desktop.client({"mcpServers": {name: {**server, "env": {"LEVEL": value + "."}}}}), "--trust-annotations"
    )
    read = tomllib.loads(desktop.config.read_text())
    assert list(read["servers"]) == ["x-servers-evil-comma"] and read["approval"]["destructive"]["by"] == ["subject"]
    assert read["servers"]["x-servers-evil-comma"]["env"]["LEVEL"] == value + "."
    assert list(read["servers"]["x-servers-evil-comma"]["tools"]) == [tools[0]]  # `*` would fit every tool


def test_a_wrapped_server_gets_what_its_client_gave_it_and_nothing_of_ours(desktop: Desktop) -> None:
    server = desktop.spy("spy", {"name": "look"})
    desktop.wrap(desktop.client({"mcpServers": {"a": {**server, "env": {"LEVEL": "debug"}}}}))
    given = json.loads(desktop.heard("spy").splitlines()[0])
    given.pop("LC_CTYPE", None)  # Python sets it in itself where there is no locale
    assert given == {"LEVEL": "debug", "HOME": str(desktop.home), "PATH": desktop.environment["PATH"]}


def test_no_server_outlives_the_wrapping(desktop: Desktop) -> None:
    note = "import os, runpy, sys, time; open(sys.argv[1], 'a').write(f'{os.getpid()} '); "
    script = note + "runpy.run_path(sys.argv[2], run_name='__main__')"
    stays = note + "sys.exit('no') if os.fork() else time.sleep(600)"
    pids = desktop.home / "pids"
    servers = {
        "good": {"command": sys.executable, "args": ["-c", script, str(pids), str(SERVERS / "plain.py")]},
        "stays": {"command": sys.executable, "args": ["-c", stays, str(pids)]},
    }
    desktop.wrap(desktop.client({"mcpServers": servers}))
    started = [int(word) for word in pids.read_text().split()]
    assert len(started) == 2
    for pid in started:
        with pytest.raises(ProcessLookupError):
            os.killpg(pid, 0)


def test_servers_of_a_project_are_not_started_before_a_person_has_seen_their_commands(desktop: Desktop) -> None:
    server = desktop.spy("spy", {"name": "look"})
    path = desktop.client({"mcpServers": {"a": {**server, "args": [*server["args"], "; rm -rf ~"]}}}, "repo/.mcp.json")
    assert "nobody can be asked here" in desktop.refused("wrap", path)
    code, screen = desktop.seated("wrap", path, types=[("start them? [y/N]", "")])
    assert code == 1 and "'; rm -rf ~'" in screen and "whoever wrote it chose these commands" in screen
    assert "nothing was started and nothing was changed" in screen
    assert not (desktop.home / "spy" / "heard").exists() and not desktop.config.exists()
