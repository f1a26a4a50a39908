"""The commands by which a tool or a server is called again: pages take things away, and give nothing back."""

from __future__ import annotations

import shlex

from mcp_authz.rules.display import visible
from mcp_authz.store.ports import Pin


def tool_differs(name: str) -> str:
    """Return the command that shows what changed in a tool."""
    return visible(f"mcp-authz tools diff {shlex.quote(name)}")


def tool_again(name: str, pin: Pin) -> str:
    """Return the command that accepts the definition that is listed now."""
    digest = (pin.changed_digest or pin.digest).hex()
    return visible(f"mcp-authz tools accept {shlex.quote(name)} --expect {digest}")


def server_again(name: str) -> str:
    """Return the command that switches the server on again."""
    return visible(f"mcp-authz tools accept --server {shlex.quote(name)}")
