"""The table of proposed classes, and the person's changes to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from mcp_authz.cli.asking import Stopped, ask
from mcp_authz.cli.output import say, table
from mcp_authz.errors import InputError
from mcp_authz.model import Hazard
from mcp_authz.rules.proposal import Proposal

Proposed = Mapping[str, tuple[Proposal, ...]]  # by server
Chosen = dict[str, dict[str, Hazard]]  # server -> tool -> class
_SHORT: Final = {hazard.value[0]: hazard for hazard in Hazard} | {hazard.value: hazard for hazard in Hazard}


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A person's class for some tools: those whose `server.tool` fits the pattern."""

    pattern: str
    hazard: Hazard


def show(proposed: Proposed, changed: Chosen | None = None) -> None:
    """The table is printed; what the person changed counts."""
    changed = changed or {}
    warned = any(one.warnings for proposals in proposed.values() for one in proposals)
    table(
        ("SERVER", "TOOL", "CLASS", "WHY", *(("WARNING",) if warned else ())),
        (
            (
                server,
                one.tool,
                changed.get(server, {}).get(one.tool, one.hazard).value,
                "you say so" if one.tool in changed.get(server, {}) else one.why,
                *(("; ".join(one.warnings),) if warned else ()),
            )
            for server, proposals in proposed.items()
            for one in proposals
        ),
        empty="no tools",
    )


def decide(proposed: Proposed) -> Chosen:
    """Return the class of every tool, once the person has accepted the table, as proposed or changed.

    Raises:
        Stopped: they want nothing to be changed.
    """
    changed: Chosen = {}
    show(proposed)
    question = f"Enter accepts; or change some, like {_example(proposed)}=write; q changes nothing:"
    while (answer := ask(question)) not in {"", "a", "y", "yes"}:
        if answer in {"q", "quit", "n", "no"}:
            raise Stopped("stopped; nothing was changed")
        try:
            for change in parse_changes(answer):
                apply(change, proposed, changed)
        except InputError as error:
            say(str(error))
            continue
        show(proposed, changed)
    return accepted(proposed, changed)


def accepted(proposed: Proposed, changed: Chosen) -> Chosen:
    """Every tool with its class."""
    return {
        server: {one.tool: changed.get(server, {}).get(one.tool, one.hazard) for one in proposals}
        for server, proposals in proposed.items()
    }


def unattended(proposed: Proposed) -> Chosen:
    """What counts where nobody looked: what rests on more than nothing; all else stays unclassified, so destructive."""
    return {
        server: {one.tool: one.hazard for one in proposals if one.by not in {"nobody", "warning"}}
        for server, proposals in proposed.items()
    }


def parse_changes(text: str) -> tuple[Change, ...]:
    """Return the changes that a line like `files.write_file=write web.*=r` asks for.

    Raises:
        InputError: a word is none; the message says how to write one.
    """
    changes = []
    for word in text.replace(",", " ").split():
        pattern, equals, name = word.rpartition("=")
        hazard = _SHORT.get(name.lower())
        if not equals or not pattern or hazard is None:
            raise InputError(f"`{word}` is no change; write SERVER.TOOL=read, =write or =destructive (`*` fits all)")
        changes.append(Change(pattern=pattern, hazard=hazard))
    return tuple(changes)


def apply(change: Change, proposed: Proposed, changed: Chosen) -> None:
    """The change is in `changed`.

    Raises:
        InputError: it fits no tool.
    """
    fits = [
        (server, one.tool)
        for server, proposals in proposed.items()
        for one in proposals
        if fnmatchcase(f"{server}.{one.tool}", change.pattern)
    ]
    if not fits:
        raise InputError(f"no tool is called `{change.pattern}`; write it like {_example(proposed)}")
    for server, tool in fits:
        changed.setdefault(server, {})[tool] = change.hazard


def _example(proposed: Proposed) -> str:
    return next((f"{server}.{one.tool}" for server, tools in proposed.items() for one in tools), "SERVER.TOOL")


def views(proposals: Iterable[Proposal], chosen: Mapping[str, Hazard]) -> list[dict[str, Any]]:
    """Proposals as JSON, with what is written."""
    return [
        {
            "tool": one.tool,
            "hazard": chosen.get(one.tool, one.hazard).value,
            "by": one.by,
            "why": one.why,
            "warnings": list(one.warnings),
        }
        for one in proposals
    ]
