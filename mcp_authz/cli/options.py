"""Options that many commands have, and how their values are read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Annotated, Final

import typer

from mcp_authz.errors import InputError, NotFound
from mcp_authz.rules.duration import parse_duration

SHORTEST: Final = 3  # characters of the beginning of an id
_NAMED: Final = {"agent", "person"}
_WHERE: Final = {
    "agent": "; `mcp-authz agent list` has them all",
    "person": "; `mcp-authz user list` has them all",
    "client": "; `mcp-authz client list` has them all",
    "grant": "; `mcp-authz grant list` has them all",
    "session": "; `mcp-authz session list` has them all",
    "link": "; `mcp-authz session show ID` has those of one session",
    "hold": "; `mcp-authz holds list --all` has them all",
    "approval": "; `mcp-authz holds standing --all` has them all",
    "key": "; `mcp-authz agent show NAME` has those of one agent, `mcp-authz user show NAME` those of one person",
    "passkey": "; `mcp-authz user show NAME` has those of one person",
}

Why = Annotated[
    str | None, typer.Option("--reason", metavar="TEXT", help="Why; it goes on record. --dry-run needs none.")
]
"""Of what stops something; read with `why`."""

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def duration(*, at_least: timedelta = timedelta(seconds=1), at_most: timedelta) -> Callable[[str], timedelta]:
    """Return what reads a duration within these bounds from the command line."""

    def read(text: str) -> timedelta:
        try:
            return parse_duration(text, at_least=at_least, at_most=at_most)
        except InputError as error:
            raise typer.BadParameter(str(error)) from None

    return read


def the_one(kind: str, text: str, names: Sequence[str]) -> str:
    """Return the name of this kind that `text` is; or the id, if these are ids, that alone begins with it.

    Raises:
        NotFound: none does, or several do; the message lists them.
    """
    if text in names:
        return text
    # A name is written whole: `code` is not `coder`. Nor is an empty shell variable the beginning of every id.
    found = [] if kind in _NAMED or len(text) < SHORTEST else [full for full in names if full.startswith(text)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotFound(f"there is no {kind} `{text}`{_WHERE.get(kind, '')}")
    candidates = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")
    raise NotFound(f"several {kind}s begin with `{text}`: {candidates}; write more of the one you mean")


def named(kind: str, name: str, *options: str) -> tuple[str, ...]:
    """Return these words of a command so that the name is no option: one in 64 ids of keys begins with `-`."""
    return (kind, *options, "--", name) if name.startswith("-") else (kind, name, *options)


def why(reason: str | None, *, dry_run: bool) -> str:
    """The reason; where nothing is changed nobody has to say one, and the word to put it for is given.

    Raises:
        typer.BadParameter: there is none.
    """
    if not reason and not dry_run:
        raise typer.BadParameter("say why with --reason TEXT; it goes on record")
    return reason or "WHY"
