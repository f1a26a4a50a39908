"""The conditions that people type, as the tools map of a delegation: which tools, and what their arguments have to be.

A person names the arguments that matter; `closed_shape` adds the tool's other ones, which may then be anything.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from mcp_authz.errors import ConstraintError
from mcp_authz.rules.condition import FORMS, Where, parse_where, read_constraint
from mcp_authz.rules.constraint import Constraint, ToolsMap
from mcp_authz.rules.constraint_kinds import Optionally, Wildcard


class ArgumentsUnknown(ConstraintError):
    """Nobody here knows which arguments a tool has, so that those which no condition names could be left free."""


Properties = Mapping[str, Any]  # `properties` of a tool's input schema: argument -> JSON schema


def closed_shape(constraints: Mapping[str, Constraint], properties: Collection[str] | None) -> Mapping[str, Constraint]:
    """Return the constraints, with every other argument of the tool there or not, and whatever it likes.

    Where nothing is constrained, nothing is: the shape stays open.

    Raises:
        ConstraintError: the tool has no such argument.
        ArgumentsUnknown: nobody knows which it has.
    """
    if not constraints:
        return {}
    if properties is None:
        raise ArgumentsUnknown("its arguments are not known here, so the ones beside those named cannot be left free")
    for name in constraints:
        if name not in properties:
            known = ", ".join(f"`{one}`" for one in sorted(properties)) or "none"
            raise ConstraintError(f"it has no argument `{name}`; it has {known}")
    free = Optionally(constraint=Wildcard())
    return {**constraints, **{name: free for name in properties if name not in constraints}}


def tools_map(
    tools: Sequence[str],
    where: Sequence[str],
    schemas: Mapping[str, Properties],
    *,
    had: ToolsMap | None = None,
) -> ToolsMap:
    """Return these tools, each with what its arguments have to be; arguments that no condition names stay free.

    A condition holds for every tool, or for one: `TOOL.repo=api`. Where `had` closed a tool's arguments already, those
    that no condition names stay as they were there.

    Raises:
        ConstraintError: naming tool and argument.
    """
    found = dict[str, Mapping[str, Constraint]]()
    for tool, typed in _by_tool(tools, where).items():
        before = (had or {}).get(tool, {})
        try:
            constraints = _constraints(typed, schemas.get(tool, {}), before)
            closed = closed_shape(constraints, before or schemas.get(tool))
            found[tool] = {**closed, **before, **constraints}
        except ConstraintError as error:
            raise type(error)(f"tool `{tool}`: {error}") from None
    return found


def exact_tools_map(
    tools: Sequence[str],
    where: Sequence[str],
    schemas: Mapping[str, Properties],
    *,
    had: ToolsMap | None = None,
) -> ToolsMap:
    """Return these tools, each with the arguments that the conditions name and no others.

    Raises:
        ConstraintError: naming tool and argument.
    """
    found = dict[str, Mapping[str, Constraint]]()
    for tool, typed in _by_tool(tools, where).items():
        try:
            found[tool] = _constraints(typed, schemas.get(tool, {}), (had or {}).get(tool, {}))
        except ConstraintError as error:
            raise ConstraintError(f"tool `{tool}`: {error}") from None
    return found


def _by_tool(tools: Sequence[str], where: Sequence[str]) -> Mapping[str, list[Where]]:
    """The conditions of each tool."""
    found: dict[str, list[Where]] = {tool: [] for tool in tools}
    for text in where:
        one = parse_where(text)
        meant = [tool for tool in tools if one.argument.startswith(f"{tool}.")]
        for tool in meant or found:
            argument = one.argument.removeprefix(f"{tool}.") if meant else one.argument
            found[tool].append(replace(one, argument=argument))
    if where and not tools:
        raise ConstraintError("a condition needs the tools whose arguments it is about; name them")
    return found


def _constraints(
    typed: Sequence[Where], properties: Properties, had: Mapping[str, Constraint]
) -> dict[str, Constraint]:
    found: dict[str, Constraint] = {}
    for one in typed:
        if one.argument in found:
            raise ConstraintError(f"argument `{one.argument}` has two conditions; write one, such as {FORMS}")
        found[one.argument] = read_constraint(one, properties.get(one.argument), had.get(one.argument))
    return found
