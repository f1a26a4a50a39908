"""Roots as a gateway would sign them, for tests that need no gateway."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from mcp_authz.client import AgentIdentity
from mcp_authz.ids import new_uuid7
from mcp_authz.rules.constraint import ToolsMap
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.rules.signed_link import Given, Purpose, sign_root, write_chain


def root(holder: AgentIdentity, *, scope: str = "pr:read pr:write", tools: ToolsMap | None = None) -> str:
    """A signed chain of one link, for an hour and three further steps."""
    now = datetime.now(UTC).replace(microsecond=0)
    given = Given(
        id=new_uuid7(now),
        holder=holder.public_key,
        scope=parse_scopes(scope),
        tools=tools,
        max_depth=3,
        issued_at=now,
        expires_at=now + timedelta(hours=1),
    )
    issuer = "https://authz.example.com"
    purpose = Purpose(subject="user:alice", subject_issuer=issuer, session="s_1", purpose="test")
    return write_chain([sign_root(given, purpose, issuer=issuer, key=PrivateKey.generate())])
