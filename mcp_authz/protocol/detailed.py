"""How a task reads on the wire (SEP-2663): its fields, and what it says of itself in words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.model import HoldState
from mcp_authz.outcome import TaskSeen
from mcp_authz.rules.decision import REASONS
from mcp_authz.rules.task import last_change, stage

POLL_MS: Final = int(limits.TASK_POLL.total_seconds() * 1000)


def detailed(seen: TaskSeen, came_to: Mapping[str, Any] | None, *, holds: str) -> dict[str, Any]:
    """The task with what belongs to its status; `came_to` has the member `result` or `error` of a call that is over.

    `holds` is the URL that held calls have their pages under.
    """
    task, held = seen.task, seen.held
    if came_to is not None:
        status = "failed" if "error" in came_to else "completed"
    elif stage(task, held) == "cancelled":
        status = "cancelled"
    else:
        status = "input_required" if seen.asked else "working"
    more: Mapping[str, Any] = came_to or {}
    if status == "input_required" and not seen.is_new:
        more = {"inputRequests": dict(seen.asked)}
    return {
        "taskId": task.id,
        "status": status,
        "statusMessage": _message(seen, status, holds),
        "createdAt": _time(task.made_at),
        "lastUpdatedAt": _time(last_change(task, held)),
        "ttlMs": int((task.expires_at - task.made_at).total_seconds() * 1000),
        "pollIntervalMs": POLL_MS,
        **more,
    }


def _message(seen: TaskSeen, status: str, holds: str) -> str:
    """One sentence for a model or a person; it names nobody who was or is asked."""
    held = seen.held
    if seen.said is not None:
        return f"{REASONS[seen.said.code]} ({seen.said.detail})" if seen.said.detail else REASONS[seen.said.code]
    match status:
        case "completed":
            return _ended(held.state)
        case "failed":
            return "The call failed; it does not run again."
        case "cancelled":
            return "Called off; nothing runs any more."
    match stage(seen.task, held):
        case "runs" | "over":
            return "Approved, and running now."
        case "ready":
            return "Nothing is missing any more; the call runs with the next tasks/get."
    if held.state is HoldState.PENDING:
        return f"Waits for a person's approval. Tell them: it is at {holds}/{held.id} ."
    return "The tool server has a question; the call goes on when it is answered."


def _ended(state: HoldState) -> str:
    match state:
        case HoldState.DENIED:
            return "A person said no; nothing ran."
        case HoldState.EXPIRED:
            return "Nobody approved it in time; nothing ran."
        case HoldState.UNKNOWN:
            return "Interrupted; nobody can say whether it ran, and it does not run again."
        case _:
            return "Over; this is what the call came to, and it does not run again."


def _time(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
