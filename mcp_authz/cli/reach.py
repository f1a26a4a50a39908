"""Which commands are done at a gateway elsewhere with `--at URL`; every other one refuses it and does nothing here."""

from __future__ import annotations

from typing import Any, Final

import typer

from mcp_authz.cli.invocation import named_gateway
from mcp_authz.errors import ConfigError

ELSEWHERE: Final = frozenset(
    {
        "audit list",
        "audit tail",
        "audit explain",
        "audit export",
        "audit keys",
        "agent list",
        "agent show",
        "user list",
        "user show",
        "client list",
        "grant list",
        "tools list",
        "keys list",
        "session list",
        "session show",
        "revoke",
        "stop-all",
        "start-all",
    }
)

_INSTEAD: Final = {
    "audit verify": ", or verify a copy that you fetch with `mcp-authz --at URL audit export --format chain`: what a "
    "gateway says of its own log proves nothing",
}


def confined(command: Any, path: str) -> Any:
    """Return the command; whatever of it is not done elsewhere refuses `--at` before it does anything."""
    if path in ELSEWHERE:
        return command
    if any(leaf.startswith(f"{path} ") for leaf in ELSEWHERE):
        for name, inner in command.commands.items():
            confined(inner, f"{path} {name}")
        return command
    does = command.invoke

    def here_alone(ctx: typer.Context) -> Any:
        if named_gateway(ctx) is not None:
            instead = _INSTEAD.get(path, "")
            raise ConfigError(f"`mcp-authz {path}` is not done at a gateway elsewhere; leave out --at{instead}")
        return does(ctx)

    command.invoke = here_alone
    return command
