"""All checks at once, each bounded, their findings in the order in which a person wants to read them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import timedelta

import anyio

from mcp_authz.doctor.agents import check_agents
from mcp_authz.doctor.checkpoints import check_checkpoints
from mcp_authz.doctor.clients import check_clients
from mcp_authz.doctor.files import check_modes, check_secrets, check_space
from mcp_authz.doctor.finding import Case, Finding, note
from mcp_authz.doctor.people import check_people, check_rules
from mcp_authz.doctor.policy import check_policy
from mcp_authz.doctor.running import check_gateway, check_notifications
from mcp_authz.doctor.same_user import check_same_user
from mcp_authz.doctor.servers import check_servers
from mcp_authz.doctor.storage import check_store

PATIENCE = timedelta(seconds=30)  # for everything together

Check = Callable[[Case], Awaitable[tuple[Finding, ...]]]


def checks(case: Case) -> dict[str, Check]:
    """Every check by the name under which it is waited for."""
    return {
        "files": check_modes,
        "disk": check_space,
        "store": check_store,
        "checkpoints": check_checkpoints,
        "policy": check_policy,
        "secrets": check_secrets,
        "servers": check_servers,
        "agents": check_agents,
        "people": check_people,
        "approval": check_rules,
        "gateway": check_gateway,
        "notifications": check_notifications,
        "clients": check_clients,
        "same user": check_same_user,
    }


async def examine(case: Case, waiting: Callable[[list[str]], None]) -> tuple[Finding, ...]:
    """Every finding; `waiting` hears which checks are still under way."""
    todo = checks(case)
    found: dict[str, tuple[Finding, ...]] = {}

    async def one(name: str, check: Check) -> None:
        found[name] = await check(case)
        waiting([other for other in todo if other not in found])

    waiting(list(todo))
    with anyio.move_on_after(PATIENCE.total_seconds()):
        async with anyio.create_task_group() as group:
            for name, check in todo.items():
                group.start_soon(one, name, check)
    late = f"this took more than {PATIENCE.total_seconds():.0f} seconds and was given up"
    return tuple(finding for name in todo for finding in found.get(name, (note(name, late),)))
