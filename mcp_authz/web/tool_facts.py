"""What pages show of tools and servers: what they are taken for, how they stand and since when, and what changed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import anyio.to_thread

from mcp_authz import limits
from mcp_authz.administration import Actor, Administration
from mcp_authz.catalog import Catalog, warnings
from mcp_authz.model import Hazard, Tool
from mcp_authz.rules.audit_filter import LONGEST, Filter
from mcp_authz.rules.definition import definition_lines
from mcp_authz.rules.display import visible
from mcp_authz.store.ports import Event, Pin, Store
from mcp_authz.store.switch_port import Switch
from mcp_authz.web import facts
from mcp_authz.web.accepting import server_again, tool_again, tool_differs

STATES: Final = (
    # As the page names them, and what it means.
    ("accepted", "can be called"),
    ("observed", "runs and is recorded, whatever policy says"),
    ("changed", "nobody can call it until its new definition is accepted"),
    ("off", "nobody can call it until it is accepted again"),
)
_SAYS: Final = dict(STATES)
_LINES: Final = 2_000  # of a definition that is compared here
_SHOWN_LINES: Final = 400
_CHARACTERS: Final = 2_000  # of one line, or of a description


@dataclass(frozen=True, slots=True, kw_only=True)
class Around:
    """What is on record of one tool, and what is switched off of it."""

    switches: tuple[Switch, ...]
    changed: Event | None  # the newest record of its definition


def state_of(tool: Tool) -> str:
    """Return how the tool stands, in the one word that the page has for it."""
    if tool.quarantined:
        return "off" if tool.off else "changed"
    return "observed" if tool.observed else "accepted"


def servers(catalog: Catalog, off: Iterable[Switch]) -> list[dict[str, Any]]:
    """Return what the list says of each server of the configuration, also of one that never listed anything."""
    switches = {switch.server: switch for switch in off if not switch.tool}
    counts = {name: Counter[Hazard]() for name in catalog.servers}
    for tool in catalog.tools:
        counts[tool.server][tool.classification.hazard] += 1
    return [
        {
            "name": name,
            "shown": visible(name),
            "tools": counts[name].total(),
            "hazards": [(hazard.value, counts[name][hazard]) for hazard in Hazard if counts[name][hazard]],
            "off": None if name not in switches else _switch(switches[name]),
            "again": server_again(name),
        }
        for name in catalog.servers
    ]


def row(tool: Tool, held: int = 0) -> dict[str, Any]:
    """Return what the list says of a tool, of which so many calls are held."""
    state = state_of(tool)
    hazard = tool.classification.hazard
    return {
        "name": tool.name,
        "shown": visible(tool.name),
        "hazard": hazard.value,
        "hazard_says": facts.HAZARDS[hazard],
        "state": state,
        "state_says": _SAYS[state],
        "held": held,
        "unclassified": tool.classification.by == "nobody",
    }


async def around(administration: Administration, store: Store, actor: Actor, pin: Pin) -> Around:
    """Return what is known of a tool beside its definition."""
    switches = tuple(
        it for it in await store.switched_off() if not it.is_everything and it.is_for(pin.server, pin.tool)
    )
    wanted = Filter(kind="pin", tool=pin.tool[:LONGEST])
    found = await administration.records(actor, wanted, limit=20, at_most=limits.RECORDS_LOOKED_AT)
    events = [record.event for record in found.records if record.event.fields.get("server") == pin.server]
    return Around(switches=switches, changed=events[-1] if events else None)


async def shown_tool(tool: Tool, pin: Pin, said: Around, others: Sequence[str]) -> dict[str, Any]:
    """Return everything that the page of one tool says; what it takes to accept it again is a command.

    `others` are the names of all tools, as their servers have them: some pass for others.
    """
    alone = next((it for it in said.switches if it.tool), None)
    whole = next((it for it in said.switches if not it.tool), None)
    classification = tool.classification
    return {
        **row(tool),
        "server": pin.server,
        "own": visible(pin.tool),
        "action": visible(classification.action),
        "scopes": [visible(str(scope)) for scope in classification.scopes],
        "by": visible(classification.by),
        "seen_at": pin.seen_at,
        "off": None if alone is None else _switch(alone),
        "server_off": None if whole is None else _switch(whole),
        "changed_at": _changed_at(said.changed),
        "accepted": _accepted(said.changed),
        "digest": pin.digest.hex(),
        "again": tool_again(tool.name, pin) if alone or pin.changed_digest else None,
        "server_again": server_again(pin.server),
        "description": _description(pin.definition),
        "definition": visible_lines(definition_lines(pin.definition)),
        "changes": await anyio.to_thread.run_sync(changes, pin),
        "is_changed": pin.changed is not None,
        "is_cut": any(len(line) > _CHARACTERS for line in _waiting(pin)),
        "differs": tool_differs(tool.name),
        "warnings": await anyio.to_thread.run_sync(warnings, pin.changed or pin.definition, pin.server, others),
    }


def changes(pin: Pin) -> list[tuple[str, str]] | None:
    """Return what is gone and what is new, line by line, everything visible; None where that is too much for a page."""
    if pin.changed is None:
        return []
    before, after = definition_lines(pin.definition), _waiting(pin)
    if max(len(before), len(after)) > _LINES:
        return None
    lines = list(facts.changed_lines(before, after))
    return None if len(lines) > _SHOWN_LINES else [(mark, _cut(line)) for mark, line in lines]


def _waiting(pin: Pin) -> list[str]:
    """The definition that waits, as lines."""
    return [] if pin.changed is None else definition_lines(pin.changed)


def visible_lines(lines: Sequence[str]) -> str:
    """Return the first of these lines as one text, everything in it visible."""
    more = [] if len(lines) <= _SHOWN_LINES else [f"… and {len(lines) - _SHOWN_LINES} lines more"]
    return "\n".join([*map(_cut, lines[:_SHOWN_LINES]), *more])


def _cut(line: str) -> str:
    return visible(line if len(line) <= _CHARACTERS else f"{line[:_CHARACTERS]}…")


def _description(definition: Any) -> str:
    text = definition.get("description", "")
    return _cut(text if isinstance(text, str) else json.dumps(text))


def _switch(switch: Switch) -> dict[str, Any]:
    return {"since": switch.since, "by": visible(switch.by.removeprefix("user:")), "reason": visible(switch.reason)}


def _changed_at(event: Event | None) -> datetime | None:
    return event.at if event is not None and event.fields.get("outcome") == "quarantined" else None


def _accepted(event: Event | None) -> dict[str, Any] | None:
    if event is None or event.fields.get("outcome") != "accepted":
        return None
    return {"at": event.at, "by": visible(str(event.fields.get("by", "")).removeprefix("user:"))}
