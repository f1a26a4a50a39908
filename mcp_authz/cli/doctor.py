"""`mcp-authz doctor`: every part is looked at, and nothing is changed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Annotated, Final

import typer
from rich.console import Console
from rich.text import Text

from mcp_authz.cli.init import default_path
from mcp_authz.cli.invocation import asynchronous, command_line, named_config
from mcp_authz.cli.options import Json
from mcp_authz.cli.output import draw, on_terminal, print_json, say
from mcp_authz.config import load_config
from mcp_authz.doctor.access import OsUser, os_user
from mcp_authz.doctor.examination import examine
from mcp_authz.doctor.finding import Case, Finding, State, broken, fine
from mcp_authz.doctor.storage import read_inside
from mcp_authz.errors import ConfigError
from mcp_authz.installation import utc_now
from mcp_authz.rules.display import visible

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_SIGNS: Final[dict[State, str]] = {"fine": "\u2713 fine  ", "note": "! note  ", "broken": "\u2717 broken"}
_PLAIN: Final[dict[State, str]] = {"fine": "fine  ", "note": "note  ", "broken": "BROKEN"}
_STYLES: Final[dict[State, str]] = {"fine": "green", "note": "yellow", "broken": "bold red"}


@app.command()
@asynchronous
async def doctor(
    ctx: typer.Context,
    *,
    agent_user: Annotated[
        str | None,
        typer.Option(metavar="USER", help="The system's user that agents run as: say what it could read and change."),
    ] = None,
    json: Json = False,
) -> None:
    """Look at every part, say what is found, and what to do where something is wrong."""
    user = None if agent_user is None else os_user(agent_user)
    found = await _examined(ctx, user)
    if json:
        print_json({"state": _worst(found), "findings": [_view(finding) for finding in found]})
    else:
        _print(found)
    if _worst(found) == "broken":
        raise typer.Exit(1)


async def _examined(ctx: typer.Context, user: OsUser | None) -> tuple[Finding, ...]:
    path = named_config(ctx) or default_path()
    if not path.exists():
        return (broken("configuration", f"there is none at {path}", command_line(ctx, "init")),)
    try:
        config = load_config(path)
    except ConfigError as error:
        return (broken("configuration", str(error), f"correct {path}"),)
    case = Case(
        config=config,
        inside=read_inside(config, utc_now()),
        at=utc_now(),
        command=lambda *words: command_line(ctx, *words),
        agent_user=user,
    )
    with _progress() as waiting:
        return (fine("configuration", f"{path} can be used"), *await examine(case, waiting))


@contextmanager
def _progress() -> Iterator[Callable[[list[str]], None]]:
    """On a terminal, a line says what is still under way."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda names: None
        return
    with console.status("looking") as status:
        yield lambda names: status.update(Text(f"looking at {', '.join(names)}"))


def _worst(found: tuple[Finding, ...]) -> State:
    states = {finding.state for finding in found}
    return "broken" if "broken" in states else "note" if "note" in states else "fine"


def _view(finding: Finding) -> dict[str, str | None]:
    return {"part": finding.part, "state": finding.state, "text": finding.text, "do": finding.do or None}


def _print(found: tuple[Finding, ...]) -> None:
    rich = on_terminal() and (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    signs, arrow = (_SIGNS, "\u2192") if rich else (_PLAIN, "->")
    for part, findings in groupby(sorted(found, key=_first_seen(found)), key=lambda finding: finding.part):
        say(part)
        for finding in findings:
            line = Text(f"  {signs[finding.state]}", style=_STYLES[finding.state] if rich else "")
            draw(line.append(f"  {visible(finding.text)}", style="default" if rich else ""))
            if finding.do:
                say(f"{'':12}{arrow} {visible(finding.do)}")
    say()
    say(_summary(found))


def _first_seen(found: tuple[Finding, ...]) -> Callable[[Finding], int]:
    order = list(dict.fromkeys(finding.part for finding in found))
    return lambda finding: order.index(finding.part)


def _summary(found: tuple[Finding, ...]) -> str:
    counts = {state: sum(finding.state == state for finding in found) for state in ("broken", "note")}
    if counts["broken"]:
        return f"{counts['broken']} broken, {counts['note']} to know"
    return f"nothing is broken, {counts['note']} to know" if counts["note"] else "all is fine"
