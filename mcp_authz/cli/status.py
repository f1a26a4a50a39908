"""`mcp-authz status`: what an installation is made of; no gateway needs to run."""

from __future__ import annotations

from typing import Any

import typer

from mcp_authz.cli.invocation import asynchronous, command_line, installation
from mcp_authz.cli.options import Json
from mcp_authz.cli.output import facts, next_step, print_json, say, table
from mcp_authz.cli.states import grant_state, what_is_open
from mcp_authz.installation import Installation
from mcp_authz.model import HoldState
from mcp_authz.settings import load_policy

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
@asynchronous
async def status(ctx: typer.Context, json: Json = False) -> None:
    """Say what this installation is made of: store, people, agents, servers, policy."""
    async with installation(ctx) as here:
        known = await _known(here)
    if json:
        print_json(known)
        return
    counts, policy = known["counts"], known["policy"]
    facts(
        [
            ("configuration", known["config"]),
            ("clients connect to", known["resource"]),
            ("store", known["store"]),
            ("people", str(counts["people"])),
            ("agents", f"{counts['agents']} active"),
            ("grants", f"{counts['grants']} active"),
            ("sessions", f"{counts['sessions']} open"),
            ("held calls", f"{counts['holds']} wait for a person"),
            ("audit log", f"{known['log']['records']} records, head {known['log']['head']}"),
            ("policy", f"{' '.join(policy['files'])}, digest {policy['digest']}"),
        ]
    )
    say()
    table(
        ("SERVER", "ENVIRONMENT", "TOOLS", "QUARANTINED", "REACHED BY"),
        (
            (it["name"], it["environment"], str(it["tools"]), str(it["quarantined"]), it["reached_by"])
            for it in known["servers"]
        ),
        empty=f"no tool servers yet; add a [servers.NAME] table to {known['config']}",
    )
    if counts["holds"]:
        next_step(command_line(ctx, "holds", "list"))


async def _known(here: Installation) -> dict[str, Any]:
    store, config, now = here.store, here.config, here.clock()
    records, head = await store.head()
    pins = await store.pins()
    servers = [
        {
            "name": name,
            "environment": server.environment,
            "reached_by": server.url if server.url is not None else " ".join(server.command or ()),
            "tools": sum(pin.server == name for pin in pins),
            "quarantined": sum(pin.server == name and pin.changed is not None for pin in pins),
        }
        for name, server in config.servers.items()
    ]
    return {
        "config": str(config.source),
        "resource": config.resource,
        "store": str(config.data / "store.db"),
        "counts": {
            "people": len(await store.people()),
            "agents": sum(agent.status == "active" for agent in await store.agents()),
            "grants": sum(grant_state(grant, now) == "active" for grant in await store.grants()),
            "sessions": len((await what_is_open(store, now)).sessions),
            "holds": len(await store.holds(states=[HoldState.PENDING])),
        },
        "log": {"records": records, "head": head.hex()},
        "policy": {"files": list(config.policy), "digest": load_policy(config).digest},
        "servers": servers,
    }
