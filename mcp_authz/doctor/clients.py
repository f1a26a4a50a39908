"""The files of clients that were wrapped: they are there, and still lead to the gateway."""

from __future__ import annotations

import shlex

from mcp_authz.doctor.finding import Case, Finding, broken, fine, note
from mcp_authz.errors import ConfigError
from mcp_authz.wrap.kept import Kept, all_kept, digest

CLIENTS = "clients"


async def check_clients(case: Case) -> tuple[Finding, ...]:
    """Every wrapped file is as `wrap` left it, or somebody should look at what was changed."""
    try:
        newest = {kept.path: kept for kept in all_kept(case.config.data)}
    except ConfigError as error:
        return (broken(CLIENTS, str(error)),)
    return tuple(_look(case, kept) for kept in newest.values())


def _look(case: Case, kept: Kept) -> Finding:
    again = case.command("wrap", str(kept.path))
    try:
        now = kept.path.read_bytes()
    except OSError:
        return note(CLIENTS, f"{kept.path} was wrapped, and is gone", shlex.join(["ls", str(kept.path.parent)]))
    if digest(now) == kept.before:
        return note(CLIENTS, f"{kept.path} is as it was before it was wrapped: it goes around the gateway", again)
    if b"connect" not in now or not any(agent.encode() in now for agent in kept.agents):
        return note(CLIENTS, f"{kept.path} does not lead to the gateway any more", again)
    if digest(now) != kept.after:
        return note(
            CLIENTS,
            f"{kept.path} was changed since it was wrapped: look whether a server goes around the gateway",
            again,
        )
    return fine(CLIENTS, f"{kept.path} leads to the gateway")
