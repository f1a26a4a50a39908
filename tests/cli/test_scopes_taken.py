"""Scopes that no tool takes: said where they are typed, and nowhere refused."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mcp_authz.cli.scopes_taken import note_untaken
from mcp_authz.config import Config, load_config
from mcp_authz.installation import utc_now
from mcp_authz.rules.definition import definition_digest
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.store.ports import Event, Pin
from tests.cli.chains import key_file, own_chain
from tests.cli.desk import Desk, settle
from tool_adapters.presets import load_preset

CONFIG = """
data_dir = "data"

[servers.every]
command = ["every"]
preset = "everything"

[servers.acme]
command = ["acme"]

[servers.acme.tools."op*"]
hazard = "write"
scopes = ["repo:write:{repo}"]
"""


def pin(server: str, tool: str) -> Pin:
    definition = {"name": tool, "inputSchema": {"type": "object"}}
    digest = definition_digest(definition)
    if server == "every" and tool in (known := load_preset("everything").tools):
        (digest,) = known[tool].definitions
    return Pin(server=server, tool=tool, digest=digest, definition=definition, seen_at=utc_now())


ECHO, PROMPTS, OPEN = pin("every", "echo"), pin("every", "prompts/get"), pin("acme", "open")


@pytest.fixture
def config(desk: Desk) -> Config:
    desk.configure(CONFIG)
    return load_config(desk.config)


def said(config: Config, pins: Sequence[Pin], scopes: str, capsys: pytest.CaptureFixture[str]) -> str:
    note_untaken(config, pins, parse_scopes(scopes))
    printed = capsys.readouterr()
    assert not printed.out
    return printed.err.removeprefix("mcp-authz: ").rstrip("\n")


@pytest.mark.parametrize(
    ("scopes", "what"),
    [
        ("every:*", "no tool takes `every:*` (only resources or prompts do); tools here take: everything:*, repo:*"),
        (
            "acme repo:read repo:write repo:write:api:x",
            "no tool takes `acme`, `repo:read`, `repo:write:api:x`; tools here take: repo:*, everything:*",
        ),
        ("* repo repo:*:api everything:read every:prompts", ""),
        ("", ""),
    ],
)
def test_what_no_tool_takes_is_named_with_what_tools_take(
    config: Config, capsys: pytest.CaptureFixture[str], scopes: str, what: str
) -> None:
    assert said(config, [ECHO, PROMPTS, OPEN], scopes, capsys) == what


def test_nothing_is_said_of_servers_that_have_listed_no_tool_yet(
    config: Config, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(config, [], "every:*", capsys) == ""
    assert said(config, [pin("gone", "x")], "every:*", capsys) == ""
    assert said(config, [OPEN], "every:* every:x everything:env", capsys) == ""
    assert said(config, [OPEN], "things:*", capsys) == "no tool takes `things:*`; tools here take: repo:*"
    assert said(config, [ECHO], "acme:x repo:write:web", capsys) == ""


async def test_each_command_that_takes_scopes_says_it_beside_what_it_prints(desk: Desk, config: Config) -> None:
    async with desk.open() as here:
        cast = await settle(here)
        await own_chain(desk, here, cast)  # a tool of acme is listed
        await here.store.pin_first([ECHO], Event(kind="pin", at=utc_now()))
    key_file(desk, "data/agents/planner.pem", cast.planner)
    of_planner = ("--agent", "planner", "--subject", "alice")
    told = "mcp-authz: no tool takes `files:read`; tools here take: everything:*, repo:*\n"
    for words in (
        ("agent", "add", "helper", "--owner", "alice", "--ceiling", "files:read"),
        ("agent", "edit", "helper", "--ceiling", "files:read"),
        ("grant", "add", *of_planner, "--scope", "files:read", "--json"),
        ("session", "start", *of_planner, "--purpose", "x", "--grant", cast.session.grant, "--scope", "files:read"),
        (
            "delegate",
            "--as",
            "planner",
            "--chain",
            "planner.chain",
            "--to",
            "coder",
            "--scope",
            "files:read",
            "-o",
            "c",
        ),
    ):
        done = desk.run(*words)
        assert (done.code, done.err) == (0, told), words
        assert "no tool takes" not in done.out
        if "--json" in words:
            assert done.json["scope"] == ["files:read"]
