"""The agent's side of the gateway: by the agent's own key it signs in, delegates and proves its calls.

    from mcp_authz.client import AgentIdentity

Nothing of the gateway itself is loaded, and the parts here are loaded when they are asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcp_authz.client.agent_identity import AgentIdentity
    from mcp_authz.client.auth import GatewayAuth
    from mcp_authz.client.door import NoAnswer, SignInRefused
    from mcp_authz.errors import AuthzError, ConstraintError, DelegationError, KeyRefused

__all__ = [
    "AgentIdentity",
    "AuthzError",
    "ConstraintError",
    "DelegationError",
    "GatewayAuth",
    "KeyRefused",
    "NoAnswer",
    "SignInRefused",
]

_FROM = {
    "AgentIdentity": "mcp_authz.client.agent_identity",
    "GatewayAuth": "mcp_authz.client.auth",
    "NoAnswer": "mcp_authz.client.door",
    "SignInRefused": "mcp_authz.client.door",
    "AuthzError": "mcp_authz.errors",
    "ConstraintError": "mcp_authz.errors",
    "DelegationError": "mcp_authz.errors",
    "KeyRefused": "mcp_authz.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _FROM:
        raise AttributeError(f"module `{__name__}` has no `{name}`")
    return getattr(import_module(_FROM[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
