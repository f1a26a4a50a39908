"""What an approval is bound to: one digest over everything that makes a call this call and no other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcp_authz.model import ToolCall
from mcp_authz.principals import AgentName, SessionId
from mcp_authz.rules.canonical import digest


def action_statement(
    call: ToolCall, *, session: SessionId, subject: str, actor: AgentName, chain: tuple[AgentName, ...]
) -> Mapping[str, Any]:
    """The members that are bound (DESIGN section 10): changing any of them makes another call.

    `subject` is a principal: `user:alice`, or `agent:planner` that works for itself.
    """
    return {
        "server": call.tool.server,
        "tool": call.tool.tool,
        "definition": call.tool.digest.hex(),
        "arguments": call.arguments,
        "session": session,
        "subject": subject,
        "actor": f"agent:{actor}",
        "chain": [f"agent:{name}" for name in chain],
    }


def action_digest(
    call: ToolCall, *, session: SessionId, subject: str, actor: AgentName, chain: tuple[AgentName, ...]
) -> bytes:
    """SHA-256 over the RFC 8785 form of `action_statement`, 32 bytes."""
    return digest(action_statement(call, session=session, subject=subject, actor=actor, chain=chain))
