"""The options that say which records of the log are asked for; every command that reads it has the same."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from functools import wraps
from inspect import Signature, signature
from typing import Annotated, Any, Literal, TypeVar, get_args

import typer

from mcp_authz.errors import InputError
from mcp_authz.installation import utc_now
from mcp_authz.rules.audit_filter import Filter
from mcp_authz.rules.duration import parse_duration
from mcp_authz.store.ports import EventKind

R = TypeVar("R")
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


def with_filter(command: Callable[..., R]) -> Callable[..., R]:
    """Return a command that has these options where `command` takes `wanted`, and gives it what they ask for."""
    own, options = (signature(each, eval_str=True).parameters for each in (command, chosen))

    @wraps(command)
    def run(*args: Any, **given: Any) -> R:
        asked = {name: given.pop(name) for name in options}
        return command(*args, **given, wanted=chosen(**asked))

    placed = [each for name, mine in own.items() for each in (options.values() if name == "wanted" else (mine,))]
    run.__signature__ = Signature(placed)  # type: ignore[attr-defined]  # what typer reads options from
    run.__annotations__ = {each.name: each.annotation for each in placed}
    return run


def chosen(
    *,
    agent: AgentName = None,
    person: PersonName = None,
    session: SessionId = None,
    tool: ToolName = None,
    decision: Decision = None,
    kind: Kind = None,
    call: Call = None,
    since: Since = None,
    until: Until = None,
    text: Text = None,
    observed: Observed = False,
) -> Filter:
    """What the options ask for."""
    now = utc_now()
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
