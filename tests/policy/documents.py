"""Input documents for policy tests, and engines over short policies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcp_authz.policy.cedar import CedarEngine
from mcp_authz.policy.engine import PolicyAnswer

AT = "2026-10-19T09:30:00.000Z"


def document(**changes: Any) -> dict[str, Any]:
    """A plain call of the coder for alice, with whole members replaced."""
    return {
        "actor": {
            "type": "agent",
            "id": "coder",
            "key": "k1",
            "labels": {"environment": "staging"},
            "roles": ["coder"],
            "proof": "dpop",
        },
        "chain": [
            {"type": "agent", "id": "coder", "labels": {"environment": "staging"}, "scope": ["pr:write:draft"]},
            {"type": "agent", "id": "planner", "labels": {}, "scope": ["pr:write"]},
        ],
        "on_behalf_of": {"user_id": "alice", "issuer": None, "groups": ["web"], "auth": None},
        "session": {
            "id": "s_1",
            "purpose": "fix issue 41",
            "mode": "delegated",
            "started_at": "2026-10-19T09:00:00.000Z",
            "expires_at": "2026-10-19T10:00:00.000Z",
            "calls_made": 2,
        },
        "action": "pr.create",
        "method": "tools/call",
        "resource": {
            "server": "github",
            "tool": "github__create_pull_request",
            "environment": "staging",
            "hazard": "write",
            "repo": "acme/api",
        },
        "arguments": {"owner": "acme", "repo": "api", "draft": True},
        "scope": ["pr:write:draft"],
        "approval": None,
        "time": AT,
        **changes,
    }


def approved(*rules: str, assurance: str = "passkey", at: str = AT) -> dict[str, Any]:
    """The `approval` member of a document."""
    return {"rule": rules[0], "rules": list(rules), "assurance": assurance, "approved_at": at}


async def ask(policies: str, document: Mapping[str, Any]) -> PolicyAnswer:
    """What these Cedar policies answer."""
    return await CedarEngine.load({"test.cedar": policies}).evaluate(document)


async def holds(condition: str, document: Mapping[str, Any]) -> bool:
    """Whether a Cedar condition is true of the document; an error fails the test."""
    answer = await ask(f'@id("it") permit (principal, action, resource) when {{ {condition} }};', document)
    assert answer.errors == ()
    return answer.permit
