"""What a delegation is for, as a program says it: tools, and what their arguments have to be, as a tools map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mcp_authz.errors import ConstraintError
from mcp_authz.rules import where as typed
from mcp_authz.rules.constraint import Constraint, ToolsMap, parse_constraint

Tools = Sequence[str] | Mapping[str, Mapping[str, Any]]
"""Names of tools; or each with its input schema, as a list of tools shows it, so that conditions can be completed."""

Conditions = Mapping[str, Any] | Sequence[str]
"""Argument -> value, list of values, or constraint; or as people type them: `repo=api`, `amount=1..100`."""


def tools_map(tools: Tools | None, where: Conditions, had: ToolsMap | None) -> ToolsMap | None:
    """Return the tools, each with what its arguments have to be; None when nothing was said: as in the last link.

    A condition holds for every tool, or for one: `TOOL.repo`. Arguments that no condition names stay as free as they
    are in `had`, what the last link permits. Without `tools` the ones of the last link are meant.

    Raises:
        ConstraintError: naming tool and argument.
    """
    if tools is None and not where:
        return None
    names = tuple(had or () if tools is None else tools)
    schemas = {name: _properties(schema) for name, schema in tools.items()} if isinstance(tools, Mapping) else {}
    if not isinstance(where, Mapping):
        return typed.tools_map(names, where, schemas, had=had)
    if not names:
        raise ConstraintError("a condition needs the tools whose arguments it is about; name them in `tools`")
    found = dict[str, Mapping[str, Constraint]]()
    for tool in names:
        constraints = {
            _argument(tool, key): _constraint(value) for key, value in where.items() if _is_for(tool, key, names)
        }
        before = (had or {}).get(tool, {})
        try:
            found[tool] = {**typed.closed_shape(constraints, before or schemas.get(tool)), **before, **constraints}
        except ConstraintError as error:
            advice = "" if tool in schemas else "; give its input schema: tools={name: schema}"
            raise ConstraintError(f"tool `{tool}`: {error}{advice}") from None
    return found


def _is_for(tool: str, key: str, names: Sequence[str]) -> bool:
    return key.startswith(f"{tool}.") or not any(key.startswith(f"{name}.") for name in names)


def _argument(tool: str, key: str) -> str:
    return key.removeprefix(f"{tool}.")


def _constraint(value: Any) -> Constraint:
    match value:
        case Mapping() if "constraint_type" in value:
            return parse_constraint(dict(value))
        case list() | tuple() | set() | frozenset():
            return parse_constraint({"constraint_type": "one_of", "values": list(value)})
        case _:
            return parse_constraint({"constraint_type": "exact", "value": value})


def _properties(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    properties = schema.get("properties")
    return properties if isinstance(properties, Mapping) else {}
