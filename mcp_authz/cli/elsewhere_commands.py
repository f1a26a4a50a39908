"""What commands do with `--at URL`: the same as here, at a gateway elsewhere, as far as the person's roles reach."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import typer

from mcp_authz.cli.elsewhere import elsewhere
from mcp_authz.cli.invocation import command_line
from mcp_authz.cli.output import local, next_step, print_json, say, shortener, table
from mcp_authz.cli.states import shown_words
from mcp_authz.rules.audit_filter import Filter
from mcp_authz.rules.display import visible
from mcp_authz.rules.log import timestamp
from mcp_authz.rules.sentence import sentence
from mcp_authz.store.facts import Event


async def records(url: str, wanted: Filter, limit: int, *, json: bool) -> None:
    """The newest records that are wanted and may be read are printed, oldest first."""
    query = {name: getattr(wanted, name) for name in ("agent", "person", "session", "tool", "text", "call")}
    query |= {"decision": wanted.decision, "kind": wanted.kind, "limit": limit}
    times = {"since": wanted.since, "until": wanted.until}
    query |= {name: None if at is None else timestamp(at) for name, at in times.items()}
    async with elsewhere(url) as there:
        found = (await there.read("/records", **query))["records"]
    if json:
        print_json(found)
        return
    short = shortener(record["call"] or "-" for record in found)
    table(
        ("TIME", "CALL", "WHAT"),
        ((_local(record["at"]), short(record["call"] or "-"), _sentence(record)) for record in found),
        empty="no records are there that you may read and that are like that",
    )


async def story(url: str, call: str, *, json: bool) -> None:
    """One call's story is printed."""
    async with elsewhere(url) as there:
        found = await there.read(f"/calls/{call}")
    if json:
        print_json(found)
        return
    say(visible(found["story"]))
    say()
    for record in found["records"]:
        say(f"{_local(record['at'])}  {_sentence(record)}")


async def agents(url: str, *, json: bool) -> None:
    """The agents that may be looked at are printed."""
    async with elsewhere(url) as there:
        found = (await there.read("/agents"))["agents"]
    if json:
        print_json(found)
        return
    table(
        ("NAME", "OWNER", "STATUS", "CEILING", "DEPTH", "DELEGATES TO"),
        (
            (
                it["name"],
                it["owner"],
                it["status"],
                shown_words(it["ceiling"]),
                str(it["depth"]),
                shown_words(it["delegates_to"]),
            )
            for it in found
        ),
        empty="no agents are there that you may look at",
    )


async def sessions(url: str, *, json: bool) -> None:
    """The sessions that may be looked at are printed."""
    async with elsewhere(url) as there:
        found = (await there.read("/sessions"))["sessions"]
    if json:
        print_json(found)
        return
    short = shortener(session["id"] for session in found)
    table(
        ("SESSION", "STATUS", "AGENT", "FOR", "PURPOSE", "UNTIL"),
        (
            (
                short(it["id"]),
                it["status"],
                it["agent"],
                it["subject"] or "itself",
                it["purpose"],
                _local(it["expires_at"]),
            )
            for it in found
        ),
        empty="no sessions are there that you may look at",
    )


async def session(url: str, id_: str, *, json: bool) -> None:
    """One session and its links are printed, parents first."""
    async with elsewhere(url) as there:
        found = await there.read(f"/sessions/{id_}")
    if json:
        print_json(found)
        return
    say(f"session {found['id']}: {found['status']}")
    say(f"purpose: {visible(found['purpose'])}")
    say(f"{found['agent']} works for {found['subject'] or 'itself'} until {_local(found['expires_at'])}")
    for link in found["links"]:
        above = "  " * (link["depth"] + 1)
        say(f"{above}{visible(link['holder'])}: {shown_words(link['scope'])}, link {link['id']}, {link['status']}")


async def revoke(ctx: typer.Context, url: str, kind: str, name: str, *, reason: str, dry_run: bool, json: bool) -> None:
    """The thing is revoked there, if the person may; what stopped is printed."""
    async with elsewhere(url, stops=True) as there:
        told = await there.change("/revoke", kind=kind, name=name, reason=reason, dry_run=dry_run)
    if json:
        print_json({"kind": kind, "name": name, **told})
        return
    if told["already"]:
        say(f"{kind} {name} is revoked already; nothing was changed")
        return
    say(f"{kind} {name} {'would be' if dry_run else 'is'} revoked")
    would = "would stop" if dry_run else "stopped"
    for link in told["links"]:
        say(f"{would}: agent {visible(link['holder'])}: link {visible(link['id'])}")
    for hold in told["holds"]:
        say(f"{would}: held call {visible(hold)}")
    if dry_run:
        next_step(command_line(ctx, "revoke", kind, name, "--reason", reason))


async def stop_all(ctx: typer.Context, url: str, *, reason: str, json: bool) -> None:
    """Nothing is forwarded there any more, if the person may say so."""
    async with elsewhere(url, stops=True) as there:
        told = await there.change("/stop-all", reason=reason)
    if json:
        print_json(told)
        return
    say("all calls are stopped" if told["stopped"] else "all calls were stopped before; nothing was changed")
    next_step(command_line(ctx, "start-all"))


async def start_all(url: str) -> None:
    """Calls are forwarded there again, if the person may say so."""
    async with elsewhere(url, stops=True) as there:
        told = await there.change("/start-all")
    say("calls are forwarded again" if told["started"] else "calls were not stopped; nothing was changed")


def _sentence(record: Mapping[str, Any]) -> str:
    at = datetime.fromisoformat(record["at"])
    return visible(sentence(Event(kind=record["kind"], at=at, call=record["call"], fields=record["fields"])))


def _local(at: str) -> str:
    return local(datetime.fromisoformat(at))
