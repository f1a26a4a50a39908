"""The options that say which records of the log are asked for; every command that reads it has the same."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal, get_args

import typer

from mcp_authz.errors import InputError
from mcp_authz.rules.audit_filter import Filter
from mcp_authz.rules.duration import parse_duration
from mcp_authz.store.ports import EventKind

DecisionName = Literal["permit", "hold", "deny", "replay"]

AgentName = Annotated[str | None, typer.Option("--agent", metavar="AGENT", help="Only what this agent had a part in.")]
PersonName = Annotated[
    str | None, typer.Option("--person", metavar="PERSON", help="Only what this person had a part in.")
]
SessionId = Annotated[
    str | None, typer.Option("--session", metavar="ID", help="Only records of this session; enough of its id.")
]
ToolName = Annotated[
    str | None, typer.Option("--tool", metavar="TOOL", help="Only records of this tool; `*` stands for any characters.")
]
Decision = Annotated[
    DecisionName | None,
    typer.Option("--decision", metavar="DECISION", help=f"Only one of: {', '.join(get_args(DecisionName))}."),
]
Kind = Annotated[
    EventKind | None,
    typer.Option("--kind", metavar="KIND", help=f"Only one of: {', '.join(get_args(EventKind))}."),
]
Call = Annotated[
    str | None, typer.Option("--call", metavar="ID", help="Only records of this call or hold; enough of its id.")
]
Since = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME|DURATION", help="Only after 2026-01-31, 2026-01-31T12:00 or 2h ago."),
]
Until = Annotated[
    str | None,
    typer.Option("--until", metavar="TIME|DURATION", help="Only before such a time; written like `--since`."),
]
Text = Annotated[
    str | None,
    typer.Option("--text", metavar="TEXT", help="Only where the sentence or a value has this in it, in whatever case."),
]
Observed = Annotated[
    bool, typer.Option("--observed", help="Only calls that ran in observe mode and would not have otherwise.")
]


def chosen(
    now: datetime,
    *,
    agent: str | None,
    person: str | None,
    session: str | None,
    tool: str | None,
    decision: str | None,
    kind: str | None,
    call: str | None,
    since: str | None,
    until: str | None,
    text: str | None,
    observed: bool,
) -> Filter:
    """What the options ask for."""
    return Filter(
        agent=None if agent is None else agent.removeprefix("agent:"),
        person=None if person is None else person.removeprefix("user:"),
        session=session,
        tool=tool,
        decision=decision,
        kind="decision" if kind is None and (observed or decision is not None) else kind,
        call=call,
        since=None if since is None else moment(since, now),
        until=None if until is None else moment(until, now),
        text=text,
        observed=observed,
    )


def moment(text: str, now: datetime) -> datetime:
    """A moment: so long ago, or a date or time, in the local zone unless it names one."""
    try:
        return now - parse_duration(text, at_most=timedelta(days=3650))
    except InputError:
        pass
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise typer.BadParameter(f"`{text}` is neither a time nor a duration; write 2026-01-31T12:00 or 2h") from None
    return at.astimezone() if at.tzinfo is None else at
