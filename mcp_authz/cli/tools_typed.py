"""Tools and conditions as they are typed where something is given to an agent, and how they are shown afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from mcp_authz.cli.invocation import advising
from mcp_authz.cli.output import note
from mcp_authz.errors import ConstraintError
from mcp_authz.rules.classify import tool_name
from mcp_authz.rules.constraint import ToolsMap
from mcp_authz.rules.constraint_words import tool_words
from mcp_authz.rules.display import visible
from mcp_authz.rules.where import ArgumentsUnknown, tools_map
from mcp_authz.store.ports import Store

Tools = Annotated[
    list[str] | None,
    typer.Option("--tools", "--tool", metavar="TOOL", help="Only this tool, such as files__read_file. Repeatable."),
]
Where = Annotated[
    list[str] | None,
    typer.Option(
        metavar="CONDITION",
        help="What an argument has to be: repo=api, repo='api|web', branch!=main, path=under:/srv/app, "
        "amount=1..100. For one tool: TOOL.repo=api. Repeatable. Other arguments stay free.",
    ),
]


async def typed_tools(
    store: Store, tools: Sequence[str] | None, where: Sequence[str] | None, *, had: ToolsMap | None = None
) -> ToolsMap | None:
    """Return what was typed as a tools map; None where nothing was.

    Without tools the conditions are about those of `had`. A tool that no server has listed is noted, and not refused:
    its server may not have run yet.

    Raises:
        ConstraintError: a condition is none, is about no tool, or about arguments that the tool does not have.
    """
    named = [name for text in tools or () for name in text.replace(",", " ").split()]
    if not named and not where:
        return None
    pins = {str(tool_name(pin.server, pin.tool, pin.digest)): pin.definition for pin in await store.pins()}
    for name in named:
        if pins and name not in pins:
            note(f"no server has listed a tool `{name}` so far; `mcp-authz tools list` has the names")
    if not named and not had:
        raise ConstraintError("a condition is about the arguments of tools; name them with --tools")
    listed = {name: (definition.get("inputSchema") or {}).get("properties") for name, definition in pins.items()}
    schemas = {name: properties for name, properties in listed.items() if properties is not None}
    with advising(ArgumentsUnknown, "run the gateway once with its server, so that it is listed"):
        return tools_map(named or list(had or ()), where or (), schemas, had=had)


def shown_tools(tools: ToolsMap | None) -> list[str]:
    """Return a line for each tool, with what its arguments have to be."""
    if tools is None:
        return ["all that the scopes permit"]
    return [f"{visible(name)}: {tool_words(arguments)}" for name, arguments in sorted(tools.items())] or ["none"]
