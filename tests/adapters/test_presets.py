"""Presets say the truth about the servers that are really published."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from mcp import StdioServerParameters

from mcp_authz.errors import ConfigError, InputError
from mcp_authz.model import Hazard
from mcp_authz.rules.attributes import parse_template
from mcp_authz.rules.definition import definition_digest
from mcp_authz.rules.suspicion import suspicions
from tool_adapters.presets import load_preset, parse_preset, preset_names
from tool_adapters.presets.refresh import compare, list_definitions

ROOT = Path(__file__).parents[2]
NODE_MODULES = (ROOT / "node_modules", ROOT / "examples" / "node_modules")
OLDER = ROOT / "examples" / ".venv" / "bin"
GITHUB = Path(__file__).parent / "github.jsonl"

BROWSER = ("--headless", "--isolated", "--no-webmcp")
NODE_SERVERS = {
    "everything": ("mcp-server-everything", "stdio"),
    "filesystem": ("mcp-server-filesystem", "{directory}"),
    "github-archived": ("mcp-server-github",),
    "memory": ("mcp-server-memory",),
    "playwright": ("playwright-mcp", *BROWSER, "--caps=config,devtools,network,pdf,storage,testing,vision"),
}

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


def older(program: str) -> str:
    """Return the path of a server of the environment with `mcp<2`, or skip the test."""
    found = OLDER / program
    if not found.exists():
        pytest.skip(f"{program} needs the environment that examples/requirements.txt tells how to make")
    return str(found)


def node_server(preset: str, directory: Path, *instead: str) -> StdioServerParameters:
    """Return how an npm server is started so that it lists all it has, or skip the test."""
    program, *arguments = NODE_SERVERS[preset]
    found = next((bin_ for folder in NODE_MODULES if (bin_ := folder / ".bin" / program).exists()), None)
    if found is None or shutil.which("node") is None:
        pytest.skip(f"{program} needs node and `npm install --no-package-lock --prefix examples`")
    return StdioServerParameters(
        command=str(found),
        args=[argument.format(directory=directory) for argument in instead or arguments],
        env={"MEMORY_FILE_PATH": str(directory / "memory.jsonl"), "HOME": str(directory)},
        cwd=directory,
    )


def repository(path: Path) -> str:
    subprocess.run(["git", "init", "--quiet", str(path)], check=True)
    return str(path)


async def all_definitions(directory: Path) -> dict[str, list[Mapping[str, Any]]]:
    """What all servers list that are here; of those for GitHub, which nobody has both of, the official one."""
    started = {
        "git": (installed("mcp-server-git"), "--repository", repository(directory)),
        "time": (installed("mcp-server-time"), "--local-timezone", "UTC"),
        "fetch": (str(OLDER / "mcp-server-fetch"),),
        "sqlite": (str(OLDER / "mcp-server-sqlite"), "--db-path", str(directory / "some.db")),
    }
    servers = {name: StdioServerParameters(command=words[0], args=list(words[1:])) for name, words in started.items()}
    if any((folder / ".bin").exists() for folder in NODE_MODULES) and shutil.which("node"):
        servers |= {name: node_server(name, directory) for name in NODE_SERVERS if name != "github-archived"}
    listed = {
        name: list(await list_definitions(server)) for name, server in servers.items() if shutil.which(server.command)
    }
    return {**listed, "github": [json.loads(line) for line in GITHUB.read_text().splitlines()[1:]]}


async def standings(preset: str, server: StdioServerParameters) -> dict[str, str]:
    lines = compare(load_preset(preset), await list_definitions(server))
    return {line.tool: line.standing for line in lines}


@pytest.mark.parametrize("preset", ["git", "time"])
async def test_every_tool_of_a_published_python_server_is_covered_by_its_preset(preset: str, tmp_path: Path) -> None:
    arguments = {"git": ["--repository", str(tmp_path)], "time": ["--local-timezone", "UTC"]}[preset]
    repository(tmp_path)
    server = StdioServerParameters(command=installed(f"mcp-server-{preset}"), args=arguments)

    assert await standings(preset, server) == dict.fromkeys(load_preset(preset).tools, "match")


@pytest.mark.parametrize("preset", ["fetch", "sqlite"])
async def test_every_tool_of_an_older_python_server_is_covered_by_its_preset(preset: str, tmp_path: Path) -> None:
    arguments = {"fetch": [], "sqlite": ["--db-path", str(tmp_path / "some.db")]}[preset]
    server = StdioServerParameters(command=older(f"mcp-server-{preset}"), args=arguments)

    assert await standings(preset, server) == dict.fromkeys(load_preset(preset).tools, "match")


@pytest.mark.parametrize("preset", NODE_SERVERS)
async def test_every_tool_of_a_published_node_server_is_covered_by_its_preset(preset: str, tmp_path: Path) -> None:
    assert await standings(preset, node_server(preset, tmp_path)) == dict.fromkeys(load_preset(preset).tools, "match")


async def test_what_playwright_lists_by_itself_is_covered_as_well(tmp_path: Path) -> None:
    told = await standings("playwright", node_server("playwright", tmp_path, *BROWSER))

    assert set(told.values()) == {"match", "missing"}
    assert {"browser_navigate", "browser_click", "browser_run_code_unsafe"} <= {t for t in told if told[t] == "match"}


def test_every_recorded_tool_of_the_github_server_is_covered_by_its_preset() -> None:
    # The server is one binary that no package index has: its definitions were recorded, of every version in the preset.
    preset, recorded = load_preset("github"), [json.loads(line) for line in GITHUB.read_text().splitlines()]
    about, definitions = recorded[0], recorded[1:]
    known = {digest for tool in preset.tools.values() for digest in tool.definitions}

    assert (about["server"], tuple(about["versions"])) == (preset.server, preset.checked_with)
    assert all(preset.covering(definition) is not None for definition in definitions)
    assert {definition["name"] for definition in definitions} == preset.tools.keys()
    assert known == {definition_digest(definition) for definition in definitions}


async def test_nothing_that_the_published_servers_say_is_suspicious_but_what_fetch_says(tmp_path: Path) -> None:
    listed = await all_definitions(tmp_path)
    known = [f"{server}__{tool['name']}" for server, tools in listed.items() for tool in tools]
    found = {
        (server, tool["name"]): suspicions(tool, server=server, others=known)
        for server, tools in listed.items()
        for tool in tools
    }
    said = {name: [suspicion.text for suspicion in each] for name, each in found.items() if each}

    # It tells the model that it "originally did not have internet access", and that this does not count any more.
    refusal = {("fetch", "fetch"): ["its description tells the model to disregard its instructions"]}
    assert said == ({} if "fetch" not in listed else refusal)
    assert len(found) > 100


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

    assert not [(r, d) for r in reading for d in destroying if f"{d}:".startswith(f"{r}:")]


@pytest.mark.parametrize("name", preset_names())
def test_every_scope_of_a_preset_begins_with_the_same_word(name: str) -> None:
    scopes = [scope.text for tool in load_preset(name).tools.values() for scope in tool.scopes]

    assert len({scope.split(":")[0] for scope in scopes}) == 1


def test_a_scope_of_the_github_preset_is_filled_from_arguments_that_every_call_has() -> None:
    definitions = [json.loads(line) for line in GITHUB.read_text().splitlines()[1:]]
    for tool in load_preset("github").tools.values():
        for schema in (each["inputSchema"] for each in definitions if each["name"] == tool.name):
            needed = {argument for scope in tool.scopes for argument in scope.arguments}
            needed |= {"owner", "repo"} if "/" in tool.resource.get("repo", "") else set()
            taken = {name for template in tool.resource.values() for name in parse_template(template)[1::2]}
            assert needed <= set(schema.get("required", ())), tool.name
            assert taken <= schema["properties"].keys(), tool.name


DESTRUCTIVE = {
    "everything": "",
    "fetch": "",
    "filesystem": "edit_file move_file write_file",
    "git": "git_checkout git_reset",
    "github": """
        actions_run_trigger assign_copilot_to_issue assign_copilot_to_issue_with_intent create_or_update_file
        create_pull_request_review delete_file delete_pending_pull_request_review delete_repository
        discussion_comment_write label_write merge_pull_request projects_write pull_request_review_write push_files
        submit_pending_pull_request_review
    """,
    "github-archived": "create_or_update_file create_pull_request_review merge_pull_request push_files",
    "memory": "delete_entities delete_observations delete_relations",
    "playwright": """
        browser_cookie_clear browser_cookie_delete browser_drop browser_evaluate browser_file_upload
        browser_localstorage_clear browser_localstorage_delete browser_run_code_unsafe browser_sessionstorage_clear
        browser_sessionstorage_delete browser_set_storage_state browser_storage_state
    """,
    "sqlite": "write_query",
    "time": "",
}


@pytest.mark.parametrize("name", preset_names())
def test_what_loses_data_is_destructive_whatever_its_annotations_say(name: str) -> None:
    destructive = {tool.name for tool in load_preset(name).tools.values() if tool.hazard is Hazard.DESTRUCTIVE}

    assert destructive == set(DESTRUCTIVE[name].split())


def test_what_runs_code_or_moves_files_in_a_browser_takes_other_scopes_than_clicking_does() -> None:
    tools = load_preset("playwright").tools
    scopes = {name: str(*(scope.text for scope in tools[f"browser_{name}"].scopes)) for name in ("click", "evaluate")}

    assert scopes == {"click": "playwright:act", "evaluate": "playwright:code"}


def test_a_preset_that_does_not_exist_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"no preset `\.\./one`; there are: everything"):
        load_preset("../one")


def test_a_preset_holds_what_its_file_says() -> None:
    tool = parse_preset("one", ONE_TOOL).tools["look"]

    assert (tool.action, tool.hazard, dict(tool.resource)) == ("one.look", Hazard.READ, {"path": "{path}"})
    assert [scope.text for scope in tool.scopes] == ["one:read"]
    assert tool.definitions == {bytes(32)}


def test_a_preset_may_name_the_approval_rule_of_a_tool() -> None:
    named = parse_preset("one", ONE_TOOL.replace('hazard = "read"', 'hazard = "read"\napproval = "release"'))
    assert (named.tools["look"].approval, parse_preset("one", ONE_TOOL).tools["look"].approval) == ("release", None)


@pytest.mark.parametrize(
    ("right", "wrong", "reason"),
    [
        ('server = "some-package"', "", r"preset `one` lacks \['server'\]"),
        ('server = "some-package"', 'server = ""', "`server`: `` is no text"),
        ('server = "some-package"', 'server = "some-package"\nextra = 1', r"unknown keys \['extra'\]"),
        ('preset = "one"', 'preset = "two"', "calls itself `two`"),
        ('preset = "one"', "preset = one", "is not TOML"),
        ('checked_with = ["1.0"]', "checked_with = []", "`checked_with` must be a list of at least one text"),
        ('action = "one.look"', 'action = "one.look"\nproof = "x"', r"tool `look` has unknown keys \['proof'\]"),
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
