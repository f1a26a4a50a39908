"""Each call as one span, from its decision to its outcome, made of its two records: no argument and no person in it.

Names are those of the OpenTelemetry semantic conventions for MCP and GenAI where they have one, else `mcp_authz.*`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from mcp_authz.store.ports import Record

OPEN_AT_MOST: Final = 10_000  # calls that run; of one more the oldest is forgotten
_COPIED: Final = ("decision", "reason", "server", "hazard", "hold", "environment")
_TOOL: Final = "tools/call"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """One call, whole."""

    name: str
    began_at: datetime
    ended_at: datetime
    trace: str | None  # the caller's, 32 hex digits; with the span in it that made the call
    parent: str | None
    attributes: Mapping[str, str]
    error: str | None  # why it failed or was refused


class Spans:
    """Makes spans of records, and gives each to `done`."""

    def __init__(self, done: Callable[[Span], None]) -> None:
        self._done = done
        self._open: OrderedDict[str, Record] = OrderedDict()

    def hear(self, record: Record) -> None:
        """The call's span is whole if this was its last record."""
        call = record.event.call
        if call is None:
            return
        if record.event.kind == "decision":
            if record.event.fields.get("decision") == "permit":
                self._open[call] = record
                if len(self._open) > OPEN_AT_MOST:
                    self._open.popitem(last=False)
            else:
                self._done(_span(record, None))
        elif record.event.kind == "outcome" and (begun := self._open.pop(call, None)) is not None:
            self._done(_span(begun, record))


def _span(decision: Record, outcome: Record | None) -> Span:
    fields = decision.event.fields
    method, tool = str(fields.get("method", _TOOL)), str(fields.get("tool", ""))
    attributes = {"mcp.method.name": method, "mcp_authz.call": str(decision.event.call)}
    if "action" in fields:  # else nobody knows the tool, and its name is what the caller made up
        attributes |= {"gen_ai.tool.name": tool}
        if method == _TOOL:
            attributes |= {"gen_ai.operation.name": "execute_tool"}
    if "actor" in fields:
        attributes["gen_ai.agent.name"] = str(fields["actor"]).removeprefix("agent:")
    attributes |= {f"mcp_authz.{name}": str(fields[name]) for name in _COPIED if fields.get(name)}
    ended = None if outcome is None else str(outcome.event.fields.get("outcome"))
    error = _error(fields, ended)
    attributes |= {} if ended is None else {"mcp_authz.outcome": ended}
    return Span(
        name=f"{method} {tool}" if "gen_ai.tool.name" in attributes else method,
        began_at=decision.event.at,
        ended_at=decision.event.at if outcome is None else max(outcome.event.at, decision.event.at),
        trace=fields.get("trace"),
        parent=fields.get("span"),
        attributes=attributes | ({} if error is None else {"error.type": error}),
        error=error,
    )


def _error(fields: Mapping[str, Any], ended: str | None) -> str | None:
    if fields.get("decision") == "deny":
        return str(fields.get("reason", "denied"))
    return None if ended in (None, "done") else {"tool-error": "tool_error"}.get(ended, ended)
