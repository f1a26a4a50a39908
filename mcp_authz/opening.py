"""What a session may be when it opens: its bounds, how far it is delegated on, and the record of it."""

from __future__ import annotations

from datetime import timedelta

from mcp_authz import limits
from mcp_authz.delegating import link_fields
from mcp_authz.errors import ConstraintError, DelegationError, InputError
from mcp_authz.principals import Agent, Link, Mode, Session
from mcp_authz.rules.constraint import ToolsMap, require_bounded
from mcp_authz.store.ports import Event


def started(session: Session, root: Link, by: str) -> Event:
    """The record of a session's start."""
    tools = None if root.tools is None else sorted(root.tools)
    fields = {**link_fields(session, root), "purpose": session.purpose, "grant": session.grant, "tools": tools}
    whom = "as" if session.mode is Mode.IMPERSONATED else "for"
    summary = f"{session.agent} works {whom} {session.subject or 'itself'}: {session.purpose}"
    return Event(kind="session", at=session.started_at, fields={"summary": summary, "by": by, **fields})


def depth(holder: Agent, mode: Mode, asked: int | None) -> int:
    """How far a session of the agent may be delegated on."""
    possible = 0 if mode is Mode.IMPERSONATED else holder.depth
    if asked is not None and asked > possible:
        why = "is never delegated" if mode is Mode.IMPERSONATED else f"may be delegated on by {possible} steps at most"
        raise DelegationError(f"what agent `{holder.name}` has {why}")
    return possible if asked is None else asked


def require_bounds(purpose: str, lifetime: timedelta, max_calls: int | None, max_depth: int | None) -> None:
    require_lifetime(lifetime, limits.SESSION_LIFETIME)
    if max_calls is not None and max_calls < 1:
        raise InputError("a budget is at least one call")
    if max_depth is not None and max_depth < 0:
        raise InputError("a depth is no less than 0 steps")
    if not purpose.strip() or len(purpose) > limits.PURPOSE:
        raise InputError(f"a session has a purpose of 1 to {limits.PURPOSE} characters")


def require_tools(tools: ToolsMap | None) -> None:
    try:
        require_bounded(tools)
    except ConstraintError as error:
        raise InputError(f"the tools are too many to give at once: {error}") from None


def require_lifetime(lifetime: timedelta, longest: timedelta) -> None:
    if not timedelta(0) < lifetime <= longest:
        raise InputError(f"a lifetime here is at least one second and at most {int(longest.total_seconds())}")
