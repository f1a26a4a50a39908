"""What commands do with `--at URL`: the same as here, at a gateway elsewhere, as far as the person's roles reach."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from typing import Any, Final

import anyio
import typer

from mcp_authz.cli.elsewhere import elsewhere
from mcp_authz.cli.invocation import command_line
from mcp_authz.cli.options import named
from mcp_authz.cli.output import flush, local, next_step, note, print_json, print_json_line, say, shortener, table
from mcp_authz.cli.states import shown_words
from mcp_authz.client.administering import Elsewhere, segment
from mcp_authz.rules.audit_filter import Filter
from mcp_authz.rules.display import visible
from mcp_authz.rules.log import timestamp
from mcp_authz.rules.sentence import sentence
from mcp_authz.store.facts import Event

_PAGE: Final = 500  # what one answer has at most
_PAGES: Final = 50  # answers that are asked for
_FRESH: Final = 2.0  # seconds between two looks at the log there


async def records(url: str, wanted: Filter, limit: int, *, json: bool) -> None:
    """The newest records that are wanted and may be read are printed, oldest first."""
    async with elsewhere(url) as there:
        _, found = await _newest(there, _query(wanted), limit)
        if json:
            print_json(found)
            return
        short = shortener(record["call"] or "-" for record in found)
        table(
            ("TIME", "CALL", "WHAT"),
            ((_local(record["at"]), short(record["call"] or "-"), _sentence(record)) for record in found),
            empty="no records are there that you may read and that are like that",
        )


async def tail(url: str, wanted: Filter, limit: int, *, json: bool) -> None:
    """The newest records that are wanted and may be read are printed, then each new one."""
    query = _query(wanted)
    async with elsewhere(url) as there:
        after, found = await _newest(there, query, limit)
        while True:
            for record in found:
                if json:
                    print_json_line(record)
                else:
                    say(f"{_local(record['at'])}  {_sentence(record)}")
            flush()
            await anyio.sleep(_FRESH)
            after, found = await _newest(there, {**query, "after": after}, _PAGE * _PAGES)


async def _newest(there: Elsewhere, query: Mapping[str, Any], limit: int) -> tuple[int, list[dict[str, Any]]]:
    """The number of the newest record, and the newest that are like this, oldest first; an answer after the other."""
    found: list[dict[str, Any]] = []
    before, head = None, None
    for _ in range(_PAGES):
        told = await there.read("/records", **query, before=before, limit=max(1, min(limit - len(found), _PAGE)))
        found[:0] = told["records"]
        before, head = int(told["reached"]), int(told["head"]) if head is None else head
        if len(found) >= limit or before <= query.get("after", 0) + 1:
            return head, found[-limit:] if limit else []
    note("there are more; ask for less, with --since for one")
    return head or 0, found


def _query(wanted: Filter) -> dict[str, Any]:
    query = {name: getattr(wanted, name) for name in ("agent", "person", "session", "tool", "text", "call")}
    query |= {"decision": wanted.decision, "kind": wanted.kind, "observed": "true" if wanted.observed else None}
    times = {"since": wanted.since, "until": wanted.until}
    return query | {name: None if at is None else timestamp(at) for name, at in times.items()}


async def story(url: str, call: str, *, json: bool) -> None:
    """One call's story is printed."""
    async with elsewhere(url) as there:
        found = await there.read(f"/calls/{segment(call)}")
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
        found = [one async for one in _each(there, "agents", "after")]
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
    """The sessions that may be looked at are printed, oldest first; their ids whole, as they are asked for there."""
    async with elsewhere(url) as there:
        are_open = [{**one, "open": True} async for one in _each(there, "sessions", "before", state="open")]
        over = [{**one, "open": False} async for one in _each(there, "sessions", "before", state="over")]
        found = sorted([*are_open, *over], key=lambda it: it["started_at"])
        if json:
            print_json(found)
            return
        table(
            ("SESSION", "STATE", "AGENT", "FOR", "PURPOSE", "UNTIL"),
            (
                (
                    it["id"],
                    "open" if it["open"] else "revoked" if it["status"] == "revoked" else "over",
                    it["agent"],
                    it["subject"] or "itself",
                    it["purpose"],
                    _local(it["expires_at"]),
                )
                for it in found
            ),
            empty="no sessions are there that you may look at",
        )


async def _each(there: Elsewhere, what: str, behind: str, **query: str) -> AsyncIterator[dict[str, Any]]:
    """Everything of a list that comes a page at a time."""
    at: str | None = None
    for _ in range(_PAGES):
        told = await there.read(f"/{what}", **query, **{behind: at}, limit=_PAGE)
        for one in told[what]:
            yield one
        if (at := told["next"]) is None:
            return
    note(f"there are more {what} than these")


async def session(url: str, id_: str, *, json: bool) -> None:
    """One session and its links are printed, parents first."""
    async with elsewhere(url) as there:
        found = await there.read(f"/sessions/{segment(id_)}")
        if json:
            print_json(found)
            return
        say(visible(f"session {found['id']}: {found['status']}"))
        say(visible(f"purpose: {found['purpose']}"))
        whom = found["subject"] or "itself"
        say(visible(f"{found['agent']} works for {whom} until {_local(found['expires_at'])}"))
        for link in found["links"]:
            above = "  " * (min(int(link["depth"]), 32) + 1)
            told = f"{link['holder']}: {shown_words(link['scope'])}, link {link['id']}, {link['status']}"
            say(f"{above}{visible(told)}")


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
        next_step(command_line(ctx, "revoke", *named(kind, name, "--reason", reason)))


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
