"""What commands print: sentences, tables and JSON; colour and shortened ids only on a terminal."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, Final

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from mcp_authz.rules.display import visible

SHORT: Final = 8  # characters of an id on a terminal, where that is enough to tell it from the others
_STYLES: Final = {
    "active": "green",
    "open": "green",
    "approved": "green",
    "done": "green",
    "pending": "yellow",
    "revoked": "red",
    "denied": "red",
    "quarantined": "red",
    "observed": "yellow",
    "destructive": "red",
    "write": "yellow",
}


def say(text: str = "") -> None:
    """One line is printed, exactly as it is."""
    sys.stdout.write(f"{text}\n")


def next_step(command: str) -> None:
    """The command that most people want next is printed."""
    say(f"next: {command}")


def note(text: str) -> None:
    """Something that is no result is said on stderr."""
    sys.stderr.write(f"mcp-authz: {text}\n")


def print_json(value: Any) -> None:
    """One JSON document is printed; it has no character that a terminal could act on."""
    say(json.dumps(value, indent=2, ensure_ascii=True))


def print_json_line(value: Any) -> None:
    """One JSON document is printed on one line."""
    say(json.dumps(value, ensure_ascii=True))


def flush() -> None:
    """What was printed has left this process."""
    sys.stdout.flush()


def on_terminal() -> bool:
    """Whether a person reads stdout as it is written."""
    return sys.stdout.isatty()


def local(at: datetime) -> str:
    """A time in the zone of who reads it, with the zone's name."""
    return at.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def shortener(ids: Iterable[str]) -> Callable[[str], str]:
    """Return what shortens these ids, on a terminal, to prefixes that tell each from all the others."""
    known = set(ids)
    if not on_terminal():
        return lambda full: full
    length = SHORT
    while len({full[:length] for full in known}) < len(known):
        length += 1
    return lambda full: full[:length]


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """The rows are printed under their headings; `empty` is said instead when there are none."""
    drawn = Table(box=None, pad_edge=False, header_style="bold", show_header=any(columns))
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*(_cell(value) for value in row))
    if drawn.row_count:
        draw(drawn)
    else:
        say(empty)


def facts(pairs: Iterable[tuple[str, str]]) -> None:
    """What is known of one thing is printed, a line for each fact."""
    table(("", ""), pairs, empty="")


def draw(drawn: RenderableType) -> None:
    """Something of rich is printed: as wide as the terminal, and into a pipe as wide as it needs to be."""
    console = Console(highlight=False, markup=False, emoji=False, width=None if on_terminal() else 1_000_000)
    with console.capture() as captured:
        console.print(drawn)
    for line in captured.get().splitlines():
        say(line.rstrip())


def _cell(value: str) -> Text:
    return Text(visible(value), style=_STYLES.get(value, ""))
