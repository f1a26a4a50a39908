"""Options that many commands have, and how their values are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

from mcp_authz.errors import InputError, NotFound
from mcp_authz.rules.duration import parse_duration

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        metavar="FILE",
        help="The configuration to use. Else $MCP_AUTHZ_CONFIG, else gateway.toml in your configuration directory.",
    ),
]


def duration(*, at_least: timedelta = timedelta(seconds=1), at_most: timedelta) -> Callable[[str], timedelta]:
    """Return what reads a duration within these bounds from the command line."""

    def read(text: str) -> timedelta:
        try:
            return parse_duration(text, at_least=at_least, at_most=at_most)
        except InputError as error:
            raise typer.BadParameter(str(error)) from None

    return read


def the_one(kind: str, text: str, ids: Sequence[str]) -> str:
    """Return the id of this kind that `text` is, or that alone begins with it.

    Raises:
        NotFound: none does, or several do; the message lists them.
    """
    if text in ids:
        return text
    letters = text.partition("_")[2]  # so that an empty shell variable is no prefix of everything
    found = [full for full in ids if letters and full.startswith(text)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotFound(f"there is no {kind} `{text}`")
    candidates = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
    raise NotFound(f"several {kind}s begin with `{text}`: {candidates}; write more of the one you mean")
