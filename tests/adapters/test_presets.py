"""Presets say the truth about the servers that are really published."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from mcp import StdioServerParameters

from mcp_authz.errors import ConfigError, InputError
from mcp_authz.model import Hazard
from mcp_authz.rules.definition import definition_digest
from tool_adapters.presets import load_preset, parse_preset, preset_names
from tool_adapters.presets.refresh import compare, list_definitions

ROOT = Path(__file__).parents[2]
NODE_MODULES = (ROOT / "node_modules", ROOT / "examples" / "node_modules")

ONE_TOOL = f"""
preset = "one"
server = "some-package"
checked_with = ["1.0"]

[tools.look]
action = "one.look"
hazard = "read"
scopes = ["one:read"]
resource = {{ path = "{{path}}" }}
definitions = ["{"0" * 64}"]
"""


def installed(program: str) -> str:
    """Return the path of a console script of the environment that runs the tests."""
    return str(Path(sys.executable).parent / program)


def node_server(program: str) -> str:
    """Return the path of an npm server's program, or skip the test."""
    found = next((bin_ for folder in NODE_MODULES if (bin_ := folder / ".bin" / program).exists()), None)
    if found is None or shutil.which("node") is None:
        pytest.skip(f"{program} needs node and `npm install --no-package-lock --prefix examples`")
    return str(found)


def repository(path: Path) -> str:
    subprocess.run(["git", "init", "--quiet", str(path)], check=True)
    return str(path)


async def standings(preset: str, server: StdioServerParameters) -> dict[str, str]:
    lines = compare(load_preset(preset), await list_definitions(server))
    return {line.tool: line.standing for line in lines}


async def test_every_tool_of_the_git_server_is_covered_by_its_preset(tmp_path: Path) -> None:
    server = StdioServerParameters(command=installed("mcp-server-git"), args=["--repository", repository(tmp_path)])

    assert await standings("git", server) == dict.fromkeys(load_preset("git").tools, "match")


async def test_every_tool_of_the_time_server_is_covered_by_its_preset() -> None:
    server = StdioServerParameters(command=installed("mcp-server-time"), args=["--local-timezone", "UTC"])

    assert await standings("time", server) == dict.fromkeys(load_preset("time").tools, "match")


@pytest.mark.parametrize("preset", ["everything", "filesystem", "memory"])
async def test_every_tool_of_a_published_node_server_is_covered_by_its_preset(preset: str, tmp_path: Path) -> None:
    arguments = {"everything": ["stdio"], "filesystem": [str(tmp_path)], "memory": []}[preset]
    server = StdioServerParameters(
        command=node_server(f"mcp-server-{preset}"),
        args=arguments,
        env={"MEMORY_FILE_PATH": str(tmp_path / "memory.jsonl")},
    )

    assert await standings(preset, server) == dict.fromkeys(load_preset(preset).tools, "match")


async def test_a_preset_does_not_cover_a_tool_whose_definition_it_does_not_know() -> None:
    elsewhere = StdioServerParameters(command=installed("mcp-server-time"), args=["--local-timezone", "Europe/Berlin"])
    definitions = await list_definitions(elsewhere)  # the zone stands in the argument's description

    assert [load_preset("time").covering(definition) for definition in definitions] == [None, None]


async def test_refresh_names_what_changed_with_the_digest_to_put_into_the_preset() -> None:
    server = [installed("mcp-server-time"), "--local-timezone", "Europe/Berlin"]
    command = [sys.executable, "-m", "tool_adapters.presets.refresh", "time", "--", *server]
    listed = await list_definitions(StdioServerParameters(command=server[0], args=server[1:]))

    process = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.PIPE)
    async with asyncio.timeout(60):
        output, _ = await process.communicate()

    words = [line.split() for line in output.decode().splitlines()]
    assert words == [["changed", tool["name"], definition_digest(tool).hex()] for tool in listed]
    assert process.returncode == 1


async def test_a_tool_that_only_one_side_knows_is_new_or_missing() -> None:
    look = {"name": "look", "inputSchema": {"type": "object"}}
    touch = {"name": "touch", "inputSchema": {"type": "object"}}
    known = parse_preset("one", ONE_TOOL.replace("0" * 64, definition_digest(look).hex()))

    assert [(line.tool, line.standing) for line in compare(known, [look])] == [("look", "match")]
    assert [(line.tool, line.standing) for line in compare(known, [touch])] == [("touch", "new"), ("look", "missing")]


@pytest.mark.parametrize("name", preset_names())
def test_no_scope_that_permits_reading_permits_anything_destructive(name: str) -> None:
    tools = load_preset(name).tools.values()
    reading = {scope.text for tool in tools if tool.hazard is Hazard.READ for scope in tool.scopes}
    destroying = {scope.text for tool in tools if tool.hazard is Hazard.DESTRUCTIVE for scope in tool.scopes}

    assert not reading & destroying


def test_what_loses_data_is_destructive_whatever_its_annotations_say() -> None:
    destructive = {
        (name, tool.name)
        for name in preset_names()
        for tool in load_preset(name).tools.values()
        if tool.hazard is Hazard.DESTRUCTIVE
    }

    assert destructive == {
        ("filesystem", "edit_file"),
        ("filesystem", "move_file"),
        ("filesystem", "write_file"),
        ("git", "git_checkout"),
        ("git", "git_reset"),
        ("memory", "delete_entities"),
        ("memory", "delete_observations"),
        ("memory", "delete_relations"),
        ("sqlite", "write_query"),
    }


def test_a_preset_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"no preset `\.\./one`; there are: everything"):
        load_preset("../one")


def test_a_preset_holds_what_its_file_says() -> None:
    tool = parse_preset("one", ONE_TOOL).tools["look"]

    assert (tool.action, tool.hazard, dict(tool.resource)) == ("one.look", Hazard.READ, {"path": "{path}"})
    assert [scope.text for scope in tool.scopes] == ["one:read"]
    assert tool.definitions == {bytes(32)}


@pytest.mark.parametrize(
    ("right", "wrong", "reason"),
    [
        ('server = "some-package"', "", r"preset `one` lacks \['server'\]"),
        ('server = "some-package"', 'server = ""', "`server`: `` is no text"),
        ('server = "some-package"', 'server = "some-package"\nextra = 1', r"unknown keys \['extra'\]"),
        ('preset = "one"', 'preset = "two"', "calls itself `two`"),
        ('preset = "one"', "preset = one", "is not TOML"),
        ('checked_with = ["1.0"]', "checked_with = []", "`checked_with` must be a list of at least one text"),
        ('action = "one.look"', 'action = "one.look"\napproval = "x"', r"tool `look` has unknown keys \['approval'\]"),
        ('action = "one.look"', 'action = "look"', "`action`: `look` is no text"),
        ('hazard = "read"', 'hazard = "harmless"', "`hazard` must be one of read, write, destructive"),
        ('hazard = "read"', "hazard = []", "`hazard` must be one of"),
        ('scopes = ["one:read"]', "scopes = []", "`scopes` must be a list of at least one text"),
        ('scopes = ["one:read"]', 'scopes = ["one:*"]', "tool `look`: scope template `one:\\*`"),
        ('path = "{path}"', 'path = "{path"', "resource template `{path`: a brace"),
        (f'["{"0" * 64}"]', "[]", "`definitions` must be a list of at least one text"),
        (f'["{"0" * 64}"]', f'["{"A" * 64}"]', "`definitions`: `A+` is no text"),
        (f'["{"0" * 64}"]', f'["{"0" * 64}", "{"0" * 64}"]', "`definitions` names something twice"),
        ("[tools.look]", "[[tools.look]]", "tool `look` must be a table"),
    ],
)
def test_a_preset_file_that_breaks_the_format_is_refused_with_the_place(right: str, wrong: str, reason: str) -> None:
    assert right in ONE_TOOL
    with pytest.raises(ConfigError, match=reason):
        parse_preset("one", ONE_TOOL.replace(right, wrong))


def test_the_digest_of_a_definition_is_pinned() -> None:
    definition = {"name": "look", "description": "Looks.", "inputSchema": {"type": "object"}}

    # printf '{"description":"Looks.","inputSchema":{"type":"object"},"name":"look"}' | sha256sum
    assert definition_digest(definition).hex() == "849e795d3f92d645d5d2196eb873ee08ee1e5dfee51c4c5bd135a5f3fe529d91"


def test_the_digest_covers_what_a_caller_relies_on_and_nothing_else() -> None:
    definition = {"name": "look", "inputSchema": {"type": "object"}}
    digest = definition_digest(definition)

    assert definition_digest({**definition, "title": "Look", "_meta": {}, "execution": {}}) == digest
    for member, value in (("description", ""), ("outputSchema", {}), ("annotations", {}), ("description", None)):
        assert definition_digest({**definition, member: value}) != digest


@pytest.mark.parametrize(
    "definition",
    [{}, {"name": 1, "inputSchema": {}}, {"name": "look"}, {"name": "look", "inputSchema": []}],
)
def test_what_is_no_tool_definition_has_no_digest(definition: dict[str, object]) -> None:
    with pytest.raises(InputError):
        definition_digest(definition)
