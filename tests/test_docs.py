"""The pages of docs/ hold together: links and anchors lead somewhere, commands are those that the program takes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from mcp_authz.cli.main import app

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "examples").glob("*.md"))]


def name_of(value: object) -> str | None:
    return value.relative_to(ROOT).as_posix() if isinstance(value, Path) else None


@cache
def prose(page: Path) -> str:
    """The page without its blocks of code."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


@cache
def anchors(page: Path) -> frozenset[str]:
    """What can stand behind `#` in a link to the page, as GitHub makes it of headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return frozenset(
        re.sub(r"[^\w\- ]", "", re.sub(r"\]\([^)]*\)", "", one)).lower().replace(" ", "-") for one in headings
    )


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        to = (page.parent / path).resolve() if path else page
        assert to.exists(), target
        assert not anchor or anchor in anchors(to), target


def commands(text: str) -> Iterator[str]:
    """The commands that somebody is shown to type, or told to type next, each in one line."""
    for shown in re.findall(r"^(?: *(?:\w*\$ +)?|next: )(mcp-authz (?:.*\\\n)*.*)$", text, re.MULTILINE):
        yield re.split(r" [|>] ", shown.replace("\\\n", " "))[0]


def parse(words: list[str]) -> None:
    """The words are taken by the program's own parser, which has not run anything."""
    command: Any = typer.main.get_command(app)
    context = command.make_context("mcp-authz", words)
    while (rest := [*context._protected_args, *context.args]) and hasattr(command, "commands"):
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)


@pytest.mark.parametrize("page", [page for page in PAGES if [*commands(page.read_text())]], ids=name_of)
def test_every_command_that_is_shown_is_one_that_the_program_takes(page: Path) -> None:
    for line in commands(page.read_text()):
        try:
            parse(shlex.split(line, comments=True)[1:])
        except Exception as error:
            raise AssertionError(f"{line}: {error}") from error


def spoken(text: str) -> Iterator[str]:
    """The commands that are named in a sentence; what stands for something else is in capitals."""
    for code in re.findall(r"`(mcp-authz [^`]+)(?<! \d)`", text):  # with a number at its end it is the name of a format
        yield " ".join(code.split())


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_that_is_named_exists_with_the_options_that_are_named(page: Path) -> None:
    for line in spoken(prose(page)):
        words = line.replace("[", " ").replace("]", " ").split()[1:]
        command: Any = typer.main.get_command(app)
        context = typer.Context(command)
        known = {name for parameter in command.params for name in parameter.opts}
        for word in words:
            if word.startswith("--"):
                assert word.partition("=")[0] in known | {"--help"}, line
            elif hasattr(command, "commands") and re.fullmatch(r"[a-z-]+", word):
                _, command, _ = command.resolve_command(context, [word])
                known |= {name for parameter in command.params for name in parameter.opts}
