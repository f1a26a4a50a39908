"""`mcp-authz policy shadow`: what the second policy would have decided otherwise."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Annotated, Any, Final

import typer

from mcp_authz.audit_reading import newest
from mcp_authz.cli.audit_options import moment
from mcp_authz.cli.invocation import asynchronous, command_line, installation
from mcp_authz.cli.options import Json
from mcp_authz.cli.output import local, next_step, print_json, say, shortener, table
from mcp_authz.policy.on_disk import shadow_trouble
from mcp_authz.policy.shadow import KEY
from mcp_authz.rules.audit_filter import Filter
from mcp_authz.rules.display import visible
from mcp_authz.rules.log import timestamp
from mcp_authz.store.ports import Record

_LOOKED_AT: Final = 10_000  # records about policies, the newest ones
_COPIED: Final = ("actor", "tool", "action", "decided", "would", "because", "reason", "rules", "obligations", "detail")


@asynchronous
async def shadow(
    ctx: typer.Context,
    *,
    since: Annotated[
        str | None, typer.Option(metavar="TIME|DURATION", help="Only after 2026-01-31, 2026-01-31T12:00 or 2h ago.")
    ] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="How many differences, the newest ones.")] = 50,
    json: Json = False,
) -> None:
    """List the calls that the second policy (`shadow_policy`) would have decided otherwise."""
    async with installation(ctx) as here:
        start = None if since is None else moment(since, here.clock())
        found = await newest(here.store, Filter(kind="policy", since=start), _LOOKED_AT)
        named, trouble = here.config.shadow_policy, shadow_trouble(here.config)
    records = [record for record in found if record.event.fields.get("key") == KEY]
    differences = [it for record in records for it in _differences(record)]
    left_out = sum(record.event.fields.get("left_out", 0) for record in records)
    if json:
        told = {"shadow_policy": list(named), "trouble": trouble or None, "left_out": left_out}
        print_json(told | {"differences": differences[-limit:]})
        return
    _show(differences[-limit:], "nothing differs" if named else "no second policy is configured; set `shadow_policy`")
    if trouble:
        say(f"`shadow_policy` cannot be loaded: {visible(trouble)}")
    _sum_up(differences, left_out)
    if calls := [it["call"] for it in differences if it["call"] is not None]:
        next_step(command_line(ctx, "audit", "list", "--call", calls[-1]))


def _differences(record: Record) -> list[dict[str, Any]]:
    """What one record tells: one call that differed, or many that were only counted."""
    event = record.event
    counted = event.fields.get("differences") if event.call is None else [dict(event.fields) | {"count": 1}]
    base = {"at": timestamp(event.at), "call": event.call, **dict.fromkeys(_COPIED)}
    return [base | {"count": it["count"]} | {key: it[key] for key in _COPIED if key in it} for it in counted or []]


def _show(differences: list[dict[str, Any]], empty: str) -> None:
    short = shortener(it["call"] or "-" for it in differences)
    table(
        ("TIME", "CALL", "AGENT", "ACTION", "WAS", "WOULD BE", "BECAUSE"),
        (
            (
                local(datetime.fromisoformat(it["at"])),
                short(it["call"] or "-"),
                (it["actor"] or f"agent:{it['count']} calls").removeprefix("agent:"),
                it["action"] or "-",
                it["decided"],
                it["would"],
                _because(it),
            )
            for it in differences
        ),
        empty=empty,
    )


def _because(it: dict[str, Any]) -> str:
    """The rules of the second policy, what it asks for, or why it came to no answer."""
    asked = [f"{one['kind']}({one['argument']})" for one in it["obligations"] or [] if it["would"] != "deny"]
    words = ", ".join([*it["because"], *asked])
    return f"{words}: {it['detail']}" if words and it["detail"] else words or it["detail"] or it["reason"] or "-"


def _sum_up(differences: list[dict[str, Any]], left_out: int) -> None:
    kinds: Counter[tuple[str, str]] = Counter()
    for it in differences:
        kinds[it["decided"], it["would"]] += it["count"]
    for (decided, would), count in kinds.most_common():
        calls = "1 call" if count == 1 else f"{count} calls"
        same = f"{would}, otherwise" if decided == would else would
        say(f"{calls}: {decided} now, {same} then")
    if left_out:
        say(f"{left_out} calls were not compared: too many came at once")
