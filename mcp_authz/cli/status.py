"""`mcp-authz status`: what runs now, what waits for a person, what happened last, and what it is all made of."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import typer

from mcp_authz import unix_socket, views
from mcp_authz.administration import Administration, at_the_store
from mcp_authz.audit import sentence
from mcp_authz.audit_reading import newest
from mcp_authz.catalog import warnings
from mcp_authz.cli.invocation import asynchronous, command_line, installation, operator
from mcp_authz.cli.options import Json
from mcp_authz.cli.output import facts, local, next_step, print_json, say, table
from mcp_authz.cli.states import what_is_open
from mcp_authz.config import Config
from mcp_authz.installation import Installation
from mcp_authz.locking import is_locked, note_of
from mcp_authz.model import HoldState
from mcp_authz.observing import loud_line, observed_servers
from mcp_authz.policy.on_disk import policy_on_disk
from mcp_authz.rules.audit_filter import Filter
from mcp_authz.rules.display import visible
from mcp_authz.rules.log import timestamp
from mcp_authz.rules.offered import DEFINITIONS

app = typer.Typer(rich_markup_mode=None, add_completion=False)

LAST: Final = 5  # calls that are shown
COUNTED: Final = timedelta(days=1)  # how far back calls of observed servers are counted
COUNTED_AT_MOST: Final = 10_000


@app.command()
@asynchronous
async def status(ctx: typer.Context, json: Json = False) -> None:
    """Say what runs now, what waits for a person, what happened last, and what this installation is made of."""
    async with installation(ctx) as here:
        known = await _known(here)
    if json:
        print_json(known)
        return
    if (stopped := known["stopped"]) is not None:
        say(f"ALL CALLS ARE STOPPED since {local(datetime.fromisoformat(stopped['since']))}, by {stopped['by']}:")
        say(f"  {visible(stopped['reason'])}")
        next_step(command_line(ctx, "start-all"))
        say()
    for server in known["observed"]:
        _say_observed(ctx, here.config, server)
    facts(_facts(known))
    say()
    table(
        ("SERVER", "ENVIRONMENT", "MODE", "TOOLS", "QUARANTINED", "REACHED BY"),
        (
            (it["name"], it["environment"], it["mode"], str(it["tools"]), str(it["quarantined"]), it["reached_by"])
            for it in known["servers"]
        ),
        empty=f"no tool servers yet; add a [servers.NAME] table to {known['config']}",
    )
    if known["calls"]:
        say()
        table(
            ("LAST CALLS", ""),
            ((local(datetime.fromisoformat(it["at"])), it["what"]) for it in known["calls"]),
            empty="",
        )
    if known["counts"]["holds"]:
        next_step(command_line(ctx, "holds", "list"))


def _say_observed(ctx: typer.Context, config: Config, server: dict[str, Any]) -> None:
    say(loud_line(config, server["name"]))
    listed = command_line(ctx, "audit", "list", "--observed")
    said = f"in the last day {_calls(server['would_be_denied'])} would have been denied, {server['would_be_held']} held"
    say(f"  {said}: {listed}")
    say()


def _calls(count: int) -> str:
    return f"{count} call{'s'[: count != 1]}"


def _facts(known: dict[str, Any]) -> list[tuple[str, str]]:
    counts, policy, gateway = known["counts"], known["policy"], known["gateway"]
    runs = "does not run; `mcp-authz serve` starts it, and so does a client with `mcp-authz connect`"
    if gateway["running"]:
        since = local(datetime.fromisoformat(gateway["since"])) if gateway["since"] else "now"
        runs = f"runs since {since}, {gateway['where']}"
    return [
        ("gateway", runs),
        ("clients connect to", known["resource"]),
        ("held calls", f"{counts['holds']} wait for a person: {known['page']}"),
        ("sessions", f"{counts['sessions']} open"),
        ("people", str(counts["people"])),
        ("agents", f"{counts['agents']} active"),
        ("grants", f"{counts['grants']} active"),
        ("configuration", known["config"]),
        ("store", known["store"]),
        ("audit log", f"{known['log']['records']} records, head {known['log']['head']}"),
        ("policy", f"{' '.join(policy['files'])}, {policy['trouble'] or 'digest ' + policy['digest']}"),
    ]


async def _known(here: Installation) -> dict[str, Any]:
    store, config, now = here.store, here.config, here.clock()
    records, head = await store.head()
    disk = await policy_on_disk(config, now)
    return {
        "config": str(config.source),
        "resource": config.resource,
        "page": f"{config.public_url}/holds",
        "store": str(config.data / "store.db"),
        "gateway": _gateway(config),
        "counts": {
            "people": len(await store.people()),
            "agents": sum(agent.status == "active" for agent in await store.agents()),
            "grants": sum(views.grant_state(grant, now) == "active" for grant in await store.grants()),
            "sessions": len((await what_is_open(store, now)).sessions),
            "holds": len(await store.holds(states=[HoldState.PENDING])),
        },
        "log": {"records": records, "head": head.hex()},
        "policy": {"files": list(config.policy), "digest": disk.digest, "trouble": disk.trouble or None},
        "servers": await _servers(here),
        "observed": await _observed(here),
        "stopped": await _stopped(here),
        "calls": [
            {"at": timestamp(record.event.at), "call": record.event.call, "what": visible(sentence(record.event))}
            for record in await newest(store, Filter(kind="decision"), LAST)
        ],
    }


def _gateway(config: Config) -> dict[str, Any]:
    if not is_locked(config.lock):
        return {"running": False, "answers": False, "since": None, "where": None}
    since = datetime.fromtimestamp(config.lock.stat().st_mtime, UTC)  # it is written when a gateway starts
    answers = unix_socket.answers(config.socket)
    return {"running": True, "answers": answers, "since": timestamp(since), "where": note_of(config.lock)}


async def _stopped(here: Installation) -> dict[str, Any] | None:
    switch = await Administration(here.store, here.clock).stopped(at_the_store(operator()))
    return None if switch is None else {"since": timestamp(switch.since), "by": switch.by, "reason": switch.reason}


async def _servers(here: Installation) -> list[dict[str, Any]]:
    pins = await here.store.pins()
    known = [f"{pin.server}__{pin.tool}" for pin in pins]
    warned = [pin.server for pin in pins if warnings(pin.definition, pin.server, known)]
    return [
        {
            "name": name,
            "environment": server.environment,
            "mode": server.mode,
            "reached_by": server.url if server.url is not None else " ".join(server.command or ()),
            "tools": sum(pin.server == name and pin.tool not in DEFINITIONS for pin in pins),
            "quarantined": sum(pin.server == name and pin.changed is not None for pin in pins),
            "with_warnings": warned.count(name),
        }
        for name, server in here.config.servers.items()
    ]


async def _observed(here: Installation) -> list[dict[str, Any]]:
    """For each observed server, how many calls of the last day would not have run."""
    if not (names := observed_servers(here.config)):
        return []
    wanted = Filter(kind="decision", observed=True, since=here.clock() - COUNTED)
    fields = [record.event.fields for record in await newest(here.store, wanted, COUNTED_AT_MOST)]
    would = Counter((it.get("server"), it["observed"]["would"]) for it in fields)
    return [
        {"name": name, "would_be_denied": would[name, "deny"], "would_be_held": would[name, "hold"]} for name in names
    ]
