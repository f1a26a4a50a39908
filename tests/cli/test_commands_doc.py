"""docs/commands.md says what the command line is: every command, every option, every key of its JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from mcp_authz.cli.main import app
from tests.cli.chains import foreign_chain
from tests.cli.desk import ROOT, Desk, held_call, hold, settle
from tests.cli.test_tools import seen_tools

DOC = ROOT / "docs" / "commands.md"


def commands() -> Iterator[tuple[str, Any]]:
    """Every command that does something, with the words that call it."""
    root = typer.main.get_command(app)
    context = typer.Context(root)
    yield "mcp-authz", root
    for name in root.list_commands(context):
        _, command, _ = root.resolve_command(context, [name])
        if not hasattr(command, "commands"):
            yield f"mcp-authz {name}", command
            continue
        if command.invoke_without_command and command.params:
            yield f"mcp-authz {name}", command
        for inner in command.list_commands(context):
            yield f"mcp-authz {name} {inner}", command.commands[inner]


def heading(words: str, command: Any) -> str:
    """How a command is called: what must be said, then whether something may be."""
    arguments = [p.metavar for p in command.params if not p.opts[0].startswith("-")]
    options = [p for p in command.params if p.opts[0].startswith("-")]
    required = [f"{p.opts[0]} {p.metavar}" for p in options if p.required]
    more = ["[OPTION...]"] if len(options) > len(required) else []
    return " ".join([words, *arguments, *required, *more])


def rows(command: Any) -> list[str]:
    """The lines that stand in the command's table."""
    lines = []
    for parameter in command.params:
        written = parameter.opts[0]
        shown = parameter.metavar if not written.startswith("-") else f"{written} {parameter.metavar or ''}".strip()
        told = [] if parameter.help is None else [parameter.help.strip()]
        if not parameter.required and not getattr(parameter, "is_flag", False) and parameter.default not in (None, ""):
            told.append(f"Default: {parameter.default}.")
        escaped = shown.replace("|", "\\|")
        lines.append(f"| `{escaped}` | {' '.join(told).replace('|', chr(92) + '|')} |")
    return lines


@cache
def sections() -> dict[str, str]:
    """The text below each heading that is a command."""
    parts = re.split(r"^#{2,3} `(mcp-authz[^`]*)`\n", DOC.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_every_command_has_a_section_and_every_section_a_command() -> None:
    assert set(sections()) == {heading(words, command) for words, command in commands()}


@pytest.mark.parametrize(
    ("words", "command"), list(commands()), ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_section_has_the_help_and_each_option_of_its_command(words: str, command: Any) -> None:
    text = sections()[heading(words, command)]
    assert " ".join(command.help.split()) in " ".join(text.split())
    table = [line for line in text.splitlines() if line.startswith("| `")]
    assert table == rows(command)


def keys(words: str) -> set[str]:
    """The keys that a section says its JSON has."""
    (text,) = (text for call, text in sections().items() if call.startswith(words))
    (line,) = re.findall(r"^JSON: (.*)$", text, re.MULTILINE)
    return set(re.findall(r"`([a-z_]+)`", line))


def bundle_of(desk: Desk, hold: str) -> Path:
    """A bundle in a file."""
    desk.path("bundle.json").write_text(desk.ok("holds", "export", hold))
    return desk.path("bundle.json")


async def test_json_has_the_keys_that_are_documented(desk: Desk) -> None:
    await seen_tools(desk)
    async with desk.open() as here:
        cast = await settle(here)
        held = await hold(here, held_call(cast))
    asked: dict[str, tuple[str | Path, ...]] = {
        "mcp-authz user list": (),
        "mcp-authz user show": ("bob",),
        "mcp-authz agent list": (),
        "mcp-authz agent show": ("coder",),
        "mcp-authz client add": ("Cursor", "--redirect", "http://localhost/callback"),
        "mcp-authz client list": (),
        "mcp-authz client show": ("cursor",),
        "mcp-authz grant list": (),
        "mcp-authz grant show": (cast.session.grant,),
        "mcp-authz session list": (),
        "mcp-authz session show": (cast.session.id,),
        "mcp-authz delegate show": (foreign_chain(desk),),
        "mcp-authz holds list": (),
        "mcp-authz holds show": (held.id,),
        "mcp-authz holds verify": (bundle_of(desk, held.id),),
        "mcp-authz holds stats": (),
        "mcp-authz tools list": (),
        "mcp-authz tools diff": ("files__read",),
        "mcp-authz policy test": (ROOT / "policies" / "deny_all.cedar",),
        "mcp-authz policy lint": (),
        "mcp-authz policy explain": ("--agent", "coder", "--tool", "files__read"),
        "mcp-authz keys list": (),
        "mcp-authz keys rotate": (),
        "mcp-authz audit list": (),
        "mcp-authz audit verify": (),
        "mcp-authz policy shadow": (),
        "mcp-authz policy replay": (),
        "mcp-authz status": (),
        "mcp-authz stop-all": ("--reason", "x", "--dry-run"),
        "mcp-authz revoke": ("agent", "coder", "--reason", "x", "--dry-run"),
    }
    for words, arguments in asked.items():
        printed = desk.json(*words.split()[1:], *arguments)
        assert set(printed[0] if isinstance(printed, list) else printed) == keys(words), words
