"""The client's side: an agent by its own key, or a program that a person lets act for them.

    from mcp_authz.client import AgentIdentity, PersonAuth

Nothing of the gateway itself is loaded, and the parts here are loaded when they are asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcp_authz.client.agent_identity import AgentIdentity
    from mcp_authz.client.auth import GatewayAuth
    from mcp_authz.client.door import NoAnswer, SignInRefused
    from mcp_authz.client.loopback import Loopback
    from mcp_authz.client.registering import Client
    from mcp_authz.client.sign_in import EmployerAuth, PersonAuth, ProgramAuth, WorkloadAuth
    from mcp_authz.client.token_files import FileTokens
    from mcp_authz.client.ways_in import Provider
    from mcp_authz.errors import AuthzError, ConstraintError, DelegationError, KeyRefused

__all__ = [
    "AgentIdentity",
    "AuthzError",
    "Client",
    "ConstraintError",
    "DelegationError",
    "EmployerAuth",
    "FileTokens",
    "GatewayAuth",
    "KeyRefused",
    "Loopback",
    "NoAnswer",
    "PersonAuth",
    "ProgramAuth",
    "Provider",
    "SignInRefused",
    "WorkloadAuth",
]

_FROM = {
    "AgentIdentity": "mcp_authz.client.agent_identity",
    "GatewayAuth": "mcp_authz.client.auth",
    "NoAnswer": "mcp_authz.client.door",
    "SignInRefused": "mcp_authz.client.door",
    "Client": "mcp_authz.client.registering",
    "EmployerAuth": "mcp_authz.client.sign_in",
    "FileTokens": "mcp_authz.client.token_files",
    "Loopback": "mcp_authz.client.loopback",
    "PersonAuth": "mcp_authz.client.sign_in",
    "ProgramAuth": "mcp_authz.client.sign_in",
    "Provider": "mcp_authz.client.ways_in",
    "WorkloadAuth": "mcp_authz.client.sign_in",
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
