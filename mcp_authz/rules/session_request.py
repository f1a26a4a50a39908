"""A request for a session, as one sentence: what an agent asks a person for, and what the person makes of it.

The agent names a purpose, tools, places and minutes. What a person sees and answers is the request spelled out: every
tool by name, with what it does. A person may narrow it, never widen it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.errors import ConstraintError, InputError
from mcp_authz.model import Classification, Hazard, Tool, ToolName
from mcp_authz.rules.constraint import Constraint, ToolsMap, narrows, parse_constraint
from mcp_authz.rules.constraint_kinds import Optionally, Wildcard
from mcp_authz.rules.definition import definition_digest

SERVER: Final = "authz"
NAME: Final = ToolName("authz__request_session")
MINUTES: Final = 60  # when the agent names none
_PLAIN: Final = re.compile(r"[\w./@~:-]+")
_LONGEST: Final = int(limits.SESSION_LIFETIME.total_seconds()) // 60

DEFINITION: Final[Mapping[str, Any]] = {
    "name": NAME,
    "title": "Ask for a session",
    "description": (
        "Ask the person you act for to let you use tools for one task. Call it when you have no open session, or need "
        "another one. The person sees what you ask for as one sentence and approves, narrows or denies it. Destructive "
        "calls are held for approval one by one all the same. Ask for no more than the task needs."
    ),
    "inputSchema": {
        "type": "object",
        "properties": {
            "purpose": {
                "type": "string",
                "minLength": 1,
                "maxLength": limits.PURPOSE,
                "description": "What the task is, for the person who decides: fix issue 41 in acme/api",
            },
            "tools": {
                "type": "array",
                "items": {"type": "string", "minLength": 1, "maxLength": 64},
                "minItems": 1,
                "maxItems": 64,
                "description": "The tools, by name or pattern such as files__* ; without it, all that you may be given",
            },
            "where": {
                "type": "object",
                "maxProperties": 8,
                "additionalProperties": {
                    "anyOf": [
                        {"type": ["string", "integer", "boolean"]},
                        {
                            "type": "object",
                            "properties": {"under": {"type": "string", "minLength": 1}},
                            "required": ["under"],
                            "additionalProperties": False,
                        },
                    ]
                },
                "description": (
                    'What arguments have to be: {"repo": "api"} is that value, {"path": {"under": "/srv/x"}} a path at '
                    "or below it; tools without one of these arguments are left out"
                ),
            },
            "minutes": {"type": "integer", "minimum": 1, "maximum": _LONGEST, "description": f"Else {MINUTES}."},
        },
        "required": ["purpose"],
        "additionalProperties": False,
    },
    "annotations": {"readOnlyHint": False, "destructiveHint": False, "openWorldHint": False},
}

TOOL: Final = Tool(
    name=NAME,
    server=SERVER,
    tool="request_session",
    environment="gateway",
    definition=DEFINITION,
    digest=definition_digest(DEFINITION),
    classification=Classification(action="session.request", hazard=Hazard.WRITE, scopes=(), by="gateway"),
)
"""The gateway's own tool; every agent may call it, and every call of it is held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What a session would be: for what, for how long, with which tools and which arguments."""

    purpose: str
    minutes: int
    tools: ToolsMap


def spelled_out(asked: Mapping[str, Any], known: Iterable[Tool], limited: ToolsMap | None) -> Mapping[str, Any]:
    """Return the request as a person sees it: every tool that is asked for and could be given, by what it does.

    `known` are the tools that could be given at all, `limited` is what the person's grant says of their arguments.

    Raises:
        InputError: nothing of it could be given; the message says so to the model.
    """
    patterns, where = asked.get("tools", ["*"]), asked.get("where", {})
    named = [tool for tool in known if any(fnmatchcase(tool.name, pattern) for pattern in patterns)]
    chosen = [tool for tool in named if _constraints(tool, where, limited) is not None]
    if not chosen:
        raise InputError(
            "no tool that you could be given has these arguments; ask for other places or leave `where` out"
            if named
            else "none of these is a tool that you could be given; list the tools to see their names"
        )
    by_hazard = {hazard: sorted(t.name for t in chosen if t.classification.hazard is hazard) for hazard in Hazard}
    return {
        "purpose": asked["purpose"],
        "minutes": asked.get("minutes", MINUTES),
        "tools": sorted(tool.name for tool in chosen),
        "writes": by_hazard[Hazard.WRITE],
        "held": by_hazard[Hazard.DESTRUCTIVE],
        **({"where": where} if where else {}),
    }


def narrowed(request: Mapping[str, Any], terms: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the request with what a person made of it: fewer minutes, fewer tools.

    Raises:
        InputError: the terms are no terms, or would widen the request.
    """
    if unknown := sorted(terms.keys() - {"minutes", "tools"}):
        raise InputError(f"a request for a session is narrowed by `minutes` and `tools`, not by `{unknown[0]}`")
    minutes, tools = terms.get("minutes", request["minutes"]), terms.get("tools", request["tools"])
    if isinstance(minutes, bool) or not isinstance(minutes, int) or not 1 <= minutes <= request["minutes"]:
        raise InputError(f"give between 1 and the {request['minutes']} minutes that were asked for")
    if not isinstance(tools, list) or not tools or not all(tool in request["tools"] for tool in tools):
        raise InputError("give at least one of the tools that were asked for, and no other; or deny the request")
    kept = {name: [tool for tool in request[name] if tool in tools] for name in ("tools", "writes", "held")}
    return {**request, "minutes": minutes, **kept}


def agreed(request: Mapping[str, Any], known: Iterable[Tool], limited: ToolsMap | None) -> Terms:
    """Return what the session is, now that a person has agreed to this much of the request.

    Raises:
        InputError: none of the tools could be given any more.
    """
    by_name = {tool.name: tool for tool in known}
    where = request.get("where", {})
    tools = {
        name: constraints
        for name in request["tools"]
        if (tool := by_name.get(ToolName(name))) is not None
        and (constraints := _constraints(tool, where, limited)) is not None
    }
    if not tools:
        raise InputError("none of the tools can be given any more; ask again")
    return Terms(purpose=request["purpose"], minutes=request["minutes"], tools=tools)


def sentence(request: Mapping[str, Any], actor: str) -> str:
    """The request in one sentence; whoever shows it makes hidden characters visible."""
    writes, held = set(request["writes"]), set(request["held"])
    reads = [tool for tool in request["tools"] if tool not in writes | held]
    parts = [f"{verb} {_listed(tools)}" for verb, tools in (("read with", reads), ("write with", writes)) if tools]
    if held:
        parts.append(f"{_listed(held)} still held each time")
    places = [f"{name} {_place(value)}" for name, value in request.get("where", {}).items()]
    only = f", only where {' and '.join(places)}" if places else ""
    minutes = request["minutes"]
    time = f"{minutes} minute{'' if minutes == 1 else 's'}"
    return f"{actor} asks: for {time}, to {_task(request['purpose'])}: {'; '.join(parts)}{only}"


def _task(purpose: str) -> str:
    return purpose.strip().removeprefix("to ").removeprefix("To ")


def _place(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"is at or below {_word(value['under'])}"
    return f"is {_word(value)}"


def _word(value: Any) -> str:
    """The value; in quotes where it is no plain word, so that it cannot go on as the sentence."""
    if isinstance(value, str) and not _PLAIN.fullmatch(value):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _listed(tools: Iterable[str]) -> str:
    """Tool names, of one server together: `files (read_file, write_file)`."""
    by_server: dict[str, list[str]] = {}
    for tool in sorted(tools):
        server, _, name = tool.partition("__")
        by_server.setdefault(server, []).append(name)
    return ", ".join(f"{server} ({', '.join(names)})" for server, names in by_server.items())


def _constraints(tool: Tool, where: Mapping[str, Any], limited: ToolsMap | None) -> Mapping[str, Constraint] | None:
    """The constraints under which the tool would be given; None when it would not be."""
    if limited is not None and tool.name not in limited:
        return None
    inherited = {} if limited is None else limited[tool.name]
    if not where:
        return inherited
    properties = (tool.definition.get("inputSchema") or {}).get("properties")
    named = {name: _constraint(value) for name, value in where.items()}
    known = inherited or properties
    if not isinstance(known, Mapping) or not named.keys() <= known.keys():
        return None  # or the person would read of a limit that this tool does not have
    if not inherited:
        return {name: named.get(name, Optionally(constraint=Wildcard())) for name in known}
    ours = {name: named.get(name, constraint) for name, constraint in inherited.items()}
    return ours if all(narrows(constraint, inherited[name]) for name, constraint in ours.items()) else None


def _constraint(value: Any) -> Constraint:
    form = {"constraint_type": "exact", "value": value}
    if isinstance(value, Mapping):
        form = {"constraint_type": "under", "root": value["under"]}
    try:
        return parse_constraint(form)
    except ConstraintError as error:
        raise InputError(f"`where` cannot be used: {error}") from None
