"""Every client's file: what is read from it, what stands there afterwards, and that nothing else was touched."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.servers.start import web
from tests.wrap.desktop import BROKEN, PLAIN, SERVERS, Desktop

pytestmark = pytest.mark.thorough

FILES = {
    "claude-desktop": ".config/Claude/claude_desktop_config.json",
    "cursor": ".cursor/mcp.json",
    "vscode": ".config/Code/User/mcp.json",
    "claude-code": ".claude.json",
    "client": "somewhere/servers.json",
}


@pytest.mark.parametrize("client", FILES)
def test_a_client_is_known_by_its_file_and_leads_to_the_gateway_afterwards(client: str, desktop: Desktop) -> None:
    key = "servers" if client == "vscode" else "mcpServers"
    path = desktop.client({"other": [1, 2], key: {"files": PLAIN}, "more": None}, FILES[client])
    before = path.read_bytes()
    said = desktop.wrap(path)
    assert (said["client"], said["changed"], said["left"]) == (client, True, [])
    after = json.loads(path.read_text())
    (entry,) = after[key].values()
    assert list(after[key]) == ["mcp-authz"] and (after["other"], after["more"]) == ([1, 2], None)
    assert entry["args"][-5:] == ["connect", "--agent", client, "--for", said["agents"][0]["person"]]
    assert Path(entry["command"]).is_absolute() and Path(entry["command"]).exists()
    assert entry.get("type") == ("stdio" if client == "vscode" else None)
    assert desktop.loaded().servers["files"].command == (PLAIN["command"], *PLAIN["args"])
    assert "letter by letter" in desktop.ok("wrap", path, "--undo") and path.read_bytes() == before


def test_comments_commas_and_layout_outside_the_servers_stay(desktop: Desktop) -> None:
    text = """// what I use
{
\t"inputs": [ /* nothing */ ],
\t"servers": {
\t\t// the only one
\t\t"files": %s,
\t\t"broken": { "command": "no-such-program",   "args": [ ] }, // sic
\t},
\t"last":   1, // kept
}
"""
    path = desktop.client(text % json.dumps(PLAIN), ".config/Code/User/mcp.json")
    desktop.wrap(path)
    after = path.read_text()
    start, end = text.index("{\n\t\t// the only"), text.index("\n\t},") + 3
    assert after.startswith(text[:start]) and after.endswith(text[end:])
    assert '\t\t"broken": { "command": "no-such-program",   "args": [ ] }\n\t}' in after
    assert '\n\t\t"mcp-authz": {\n\t\t\t"type": "stdio",\n' in after


def test_servers_of_the_user_and_of_each_project_become_agents_of_their_own(desktop: Desktop) -> None:
    project = desktop.home / "work" / "My Project"
    project.mkdir(parents=True)
    servers = {"here": {**PLAIN, "args": [*PLAIN["args"], "${WHERE:-modern}"]}}
    content = {
        "mcpServers": {"everywhere": PLAIN},
        "projects": {str(project): {"mcpServers": servers, "history": ["x"]}, "/else": {"mcpServers": {}}},
    }
    path = desktop.client(content, ".claude.json")
    said = desktop.wrap(path)
    after = json.loads(path.read_text())
    assert list(after["mcpServers"]) == ["mcp-authz"]
    assert list(after["projects"][str(project)]["mcpServers"]) == ["mcp-authz-my-project"]
    assert after["projects"]["/else"] == {"mcpServers": {}}
    assert [agent["name"] for agent in said["agents"]] == ["claude-code", "claude-code-my-project"]
    assert [agent["scopes"] for agent in said["agents"]] == [["everywhere"], ["here"]]
    here = desktop.loaded().servers["here"]
    assert here.cwd == str(project) and here.command is not None and here.command[-1] == "modern"


def test_a_project_file_runs_in_its_project(desktop: Desktop) -> None:
    path = desktop.client({"mcpServers": {"one": {**PLAIN, "env": {"A": "x${B}"}}}}, "work/tool/.mcp.json")
    said = Desktop(home=desktop.home, env={"B": "y"}).wrap(path)
    server = desktop.loaded().servers["one"]
    assert server.cwd == str(path.parent)
    assert server.env_files == {"A": "secrets/one.A"} and "A" not in server.env  # it came from outside the file
    assert (desktop.config.parent / "secrets" / "one.A").read_text() == "xy"
    assert said["servers"][0]["secrets"] == ["A"]


def test_variables_of_an_editor_are_filled_in(desktop: Desktop) -> None:
    args = ["${workspaceFolder}/x", "${userHome}", "${workspaceFolderBasename}${pathSeparator}"]
    path = desktop.client({"servers": {"one": {**PLAIN, "args": [*PLAIN["args"], *args]}}}, "src/app/.vscode/mcp.json")
    desktop.wrap(path)
    command = desktop.loaded().servers["one"].command
    assert command is not None
    assert command[-3:] == (f"{desktop.home}/src/app/x", str(desktop.home), "app/")


ODD: dict[str, tuple[Any, str]] = {
    str(number): case
    for number, case in enumerate(
        [
            ({**PLAIN, "disabled": True}, "it is disabled there"),
            ({**PLAIN, "args": ["${input:token}"]}, "its client asks you for `token`"),
            ({**PLAIN, "args": ["${workspaceFolder}"]}, "it uses `${workspaceFolder}`, which is not known here"),
            ({**PLAIN, "env": {"A": "${env:NOT_SET}"}}, "takes the variable NOT_SET from the environment"),
            ({**PLAIN, "envFile": ".env"}, "it uses `envFile`"),
            ({"type": "sse", "url": "http://localhost/sse"}, "the older HTTP+SSE transport"),
            ({"type": "carrier-pigeon", "url": "http://localhost"}, "its type `carrier-pigeon` is not known"),
            ({"command": "no-such-program"}, "its program `no-such-program` is not installed"),
            ({**PLAIN, "url": "http://localhost"}, "neither a `command` alone nor a `url` alone"),
            ({"url": "file:///etc/passwd"}, "does not begin with http"),
            ({**PLAIN, "args": "one"}, "its `args` is no list of texts"),
            ({**PLAIN, "env": {"A=B": "c"}}, "is no name of a variable"),
            ({**PLAIN, "env": {"KEY": "ends\n"}}, "a secret file cannot keep"),
            ({**PLAIN, "cwd": "/not/there"}, "is no folder"),
            ({**PLAIN, "args": ["\ud800"]}, "its `args` is no list of texts"),
            ({**PLAIN, "env": {"A": "\0"}}, "`A` in its `env` is no text"),
            ("text", "its entry is no object"),
            (BROKEN, "it said: no database here"),
            ({"url": "http://127.0.0.1:9/mcp"}, "it did not start"),
        ]
    )
}


def test_servers_that_cannot_move_are_left_letter_by_letter_with_a_sentence(desktop: Desktop) -> None:
    odd = {name: json.dumps(entry, separators=(" ,", " :  ")) for name, (entry, _) in ODD.items()}
    listed = ", ".join(f'"{name}": {text}' for name, text in [("good", json.dumps(PLAIN)), *odd.items()])
    path = desktop.client(f'{{"servers": {{{listed}}}}}', "Code/User/mcp.json")
    left = {one["name"]: one["because"] for one in desktop.wrap(path)["left"]}
    assert left.keys() == ODD.keys()
    for name, (_, because) in ODD.items():
        assert because in left[name]
        assert f'"{name}": {odd[name]}' in path.read_text()
    assert list(json.loads(path.read_text())["servers"]) == ["mcp-authz", *ODD]
    assert list(desktop.loaded().servers) == ["good"]


@pytest.mark.parametrize(
    ("text", "because"),
    [
        ("{", "it ends too early"),
        ('{"mcpServers": {"a": 1, "a": 2}}', "line 1 names a member that its object has already"),
        ('{\n"mcpServers": {"a": nope}}', "line 2 is no JSON"),
        ('{"mcpServers": []}', "`mcpServers` is no object of servers"),
        ("{}", "names no tool servers"),
        ("[" * 1000, "nested more than"),
    ],
    ids=lambda value: value[:12],
)
def test_a_file_that_is_not_understood_is_left_with_a_sentence(text: str, because: str, desktop: Desktop) -> None:
    path = desktop.client(text)
    assert because in desktop.refused("wrap", path, "--yes")
    assert path.read_text() == text and not desktop.config.exists()


def test_a_server_behind_a_url_moves_with_its_headers_in_files(desktop: Desktop) -> None:
    with web() as (url, _):
        entry = {"type": "http", "url": f"{url}/mcp", "headers": {"Authorization": "Bearer abc", "X-Team": "blue"}}
        path = desktop.client({"mcpServers": {"Web Things": entry}}, ".cursor/mcp.json")
        said = desktop.wrap(path)
    assert said["servers"][0]["name"] == "web-things" and "abc" not in json.dumps(said)
    server = desktop.loaded().servers["web-things"]
    assert server.url == f"{url}/mcp" and not server.headers
    assert server.header_files == {
        "Authorization": "secrets/web-things.Authorization",
        "X-Team": "secrets/web-things.X-Team",
    }
    assert (desktop.config.parent / "secrets/web-things.Authorization").read_text() == "Bearer abc"


def test_names_that_do_not_fit_are_changed_to_ones_that_do(desktop: Desktop) -> None:
    names = ["Ünïcode Tool", "mcp", "a" * 40, "a" * 41, "", "x__y"]
    path = desktop.client(
        {"mcpServers": {name: {**PLAIN, "args": [*PLAIN["args"], str(n)]} for n, name in enumerate(names)}}
    )
    said = desktop.wrap(path)
    assert {one["in_file"]: one["name"] for one in said["servers"]} == {
        "Ünïcode Tool": "n-code-tool",
        "mcp": "mcp-2",
        "a" * 40: "a" * 20,
        "a" * 41: f"{'a' * 18}-2",
        "": "server",
        "x__y": "x-y",
    }
    assert set(desktop.loaded().servers) == {one["name"] for one in said["servers"]}


def test_files_of_known_clients_are_listed_with_how_to_wrap_each(desktop: Desktop) -> None:
    assert "name the one in which yours keeps its MCP servers" in desktop.ok("wrap")
    path = desktop.client({"mcpServers": {"a": PLAIN, "b": BROKEN}})
    desktop.client("{", ".cursor/mcp.json")
    assert f"mcp-authz wrap {path}" in desktop.ok("wrap")
    listed = json.loads(desktop.ok("wrap", "--json"))
    assert [(one["client"], one["state"]) for one in listed] == [
        ("claude-desktop", "2 servers"),
        ("cursor", "no servers, or not to be understood"),
    ]
    desktop.wrap(path)
    assert json.loads(desktop.ok("wrap", "--json"))[0]["state"] == "1 server, wrapped"


def test_programs_are_found_where_the_client_would_find_them(desktop: Desktop) -> None:
    tools = desktop.home / "tools"
    tools.mkdir()
    (tools / "my-server").write_text(
        f"#!{sys.executable}\nimport runpy\nrunpy.run_path({str(SERVERS / 'plain.py')!r}, run_name='__main__')\n"
    )
    (tools / "my-server").chmod(0o755)
    path = desktop.client({"mcpServers": {"one": {"command": "my-server", "env": {"PATH": f"{tools}:/usr/bin"}}}})
    desktop.wrap(path)
    server = desktop.loaded().servers["one"]
    assert server.command == (str(tools / "my-server"),)
    assert server.env == {"PATH": f"{tools}:/usr/bin", "HOME": str(desktop.home)}


def test_a_server_of_somebody_elses_with_our_name_stays(desktop: Desktop) -> None:
    path = desktop.client({"mcpServers": {"mcp-authz": BROKEN, "a": PLAIN}})
    desktop.wrap(path)
    after = json.loads(path.read_text())["mcpServers"]
    assert list(after) == ["mcp-authz-2", "mcp-authz"] and after["mcp-authz"] == BROKEN
    after["renamed"] = after.pop("mcp-authz-2")
    path.write_text(json.dumps({"mcpServers": {**after, "b": {**PLAIN, "args": [*PLAIN["args"], "modern"]}}}))
    desktop.wrap(path)
    assert list(json.loads(path.read_text())["mcpServers"]) == ["mcp-authz-2", "mcp-authz"]


def test_what_is_written_into_a_project_is_said_to_be_for_one_person(desktop: Desktop) -> None:
    path = desktop.client({"mcpServers": {"a": PLAIN}}, "repo/.mcp.json")
    assert "do not commit it" in desktop.ok("wrap", path, "--yes")
    assert desktop.run("wrap", path, "--force").code == 2
