"""`mcp-authz holds stats`: how often people were asked, what they said, and where asking them tells nothing new."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from enum import StrEnum
from typing import Annotated

import typer

from mcp_authz.cli.invocation import asynchronous, command_line, installation
from mcp_authz.cli.options import Json
from mcp_authz.cli.output import next_step, print_json, say, table
from mcp_authz.rules.hold_stats import By, Line, hold_stats


class Kind(StrEnum):
    """What is counted by."""

    TOOL = "tool"
    AGENT = "agent"
    RULE = "rule"
    PERSON = "person"


_BY: dict[Kind, By] = {Kind.TOOL: "tool", Kind.AGENT: "agent", Kind.RULE: "rule", Kind.PERSON: "person"}


@asynchronous
async def stats(
    ctx: typer.Context,
    by: Annotated[Kind, typer.Option(metavar="WHAT", help="tool, agent, rule, or person (who answered).")] = Kind.TOOL,
    days: Annotated[int, typer.Option(min=1, max=3650, metavar="N", help="How far back.")] = 30,
    json: Json = False,
) -> None:
    """Count held calls: what became of them, how long people took, and what they approved every time."""
    async with installation(ctx) as here:
        stories = await here.store.hold_stories(since=here.clock() - timedelta(days=days))
    lines = hold_stats(stories, _BY[by])
    if json:
        print_json([_json(line) for line in lines])
        return
    table(
        (by.upper(), "HELD", "APPROVED", "DENIED", "SENT BACK", "EXPIRED", "CANCELLED", "WAITING", "MEDIAN"),
        (_row(line) for line in lines),
        empty=f"no call was held in the last {days} days",
    )
    _advise(ctx, by, lines)


def _row(line: Line) -> tuple[str, ...]:
    counts = (line.held, line.approved, line.denied, line.sent_back, line.expired, line.cancelled, line.waiting)
    return (line.name, *map(str, counts), "" if line.median is None else _short(line.median))


def _advise(ctx: typer.Context, by: Kind, lines: Sequence[Line]) -> None:
    """What the counts suggest, each with the command for it."""
    for line in lines:
        if line.came_again:
            say(f"{line.name}: {line.came_again} of {line.expired} expired calls came again; is the right person told?")
    if by is not Kind.TOOL:
        return
    always = [line for line in lines if line.always_approved is not None]
    for line in always:
        say(f"{line.name}: people approved every one as it was; the next time, approve several at once (--standing N)")
        say(f"  or, if nobody has to be asked, give it another class: {command_line(ctx, 'tools', 'review')}")
    if always:
        words = ("holds", "approve", "HOLD", "--as", "PERSON", "--key", "FILE", "--standing", "N")
        next_step(command_line(ctx, *words))


def _short(time: timedelta) -> str:
    seconds = int(time.total_seconds())
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds // 60} min" if seconds < 7200 else f"{seconds // 3600} h"


def _json(line: Line) -> dict[str, object]:
    return {
        "name": line.name,
        "held": line.held,
        "approved": line.approved,
        "denied": line.denied,
        "sent_back": line.sent_back,
        "expired": line.expired,
        "cancelled": line.cancelled,
        "waiting": line.waiting,
        "standing": line.standing,
        "came_again": line.came_again,
        "median_seconds": None if line.median is None else line.median.total_seconds(),
        "always_approved": line.always_approved is not None,
    }
