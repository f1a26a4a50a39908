"""The plan that Rego is compiled to: what a policy may contain, found before it decides anything.

A plan (OPA's intermediate representation, as JSON) names every function that is called, with file and row, so nothing
of Rego's grammar is repeated here. Refused are calls of builtins outside `BUILTINS`, whose answers are known
(`rego_canaries`), data that no policy defines, and rules that need themselves. The library orders values of different
types otherwise than OPA does: `checked` sends each comparison through a function in which that is an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mcp_authz.errors import PolicyError

COMPARISONS: Final = ("gt", "gte", "lt", "lte")

BUILTINS: Final = frozenset(
    {
        *COMPARISONS,
        *("equal", "neq", "internal.member_2", "internal.member_3"),
        *("plus", "minus", "mul", "div", "rem", "abs", "ceil", "floor", "round", "sum", "count"),
        *("is_array", "is_boolean", "is_null", "is_number", "is_object", "is_set", "is_string", "type_name"),
        *("contains", "startswith", "endswith", "indexof", "substring", "replace", "split", "concat"),
        *("trim_prefix", "trim_suffix", "to_number", "glob.match"),
        *("and", "or", "union", "intersection", "array.concat", "object.get", "object.keys"),
    }
)
"""Builtins whose answers are checked at each start and are OPA's."""

GUARD: Final = "mcp_authz_compare"
"""The package of the functions that comparisons go through."""

GUARD_TEXT: Final = "\n".join(
    [
        f"package {GUARD}",
        *(
            f"{name}(a, b) := a {sign} b {{ type_name(a) == type_name(b) }}\n"
            f"{name}(a, b) := to_number([]) {{ type_name(a) != type_name(b) }}"
            for name, sign in zip(COMPARISONS, (">", ">=", "<", "<="), strict=True)
        ),
    ]
)

_INPUT_AND_DATA: Final = ({"type": "local", "value": 0}, {"type": "local", "value": 1})  # what every function is given
_DATA: Final = _INPUT_AND_DATA[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """A plan as JSON, with the files it was made of."""

    body: Mapping[str, Any]
    files: tuple[str, ...]

    def functions(self) -> Iterator[Mapping[str, Any]]:
        """The functions that the policy's own rules became: neither the query nor the comparisons."""
        for function in self.body["funcs"]["funcs"]:
            if function["name"].startswith("g0.data.") and GUARD not in function["path"]:
                yield function

    def place(self, statement: Mapping[str, Any]) -> str:
        """File and line, as far as the plan knows them."""
        if "file" not in statement or "row" not in statement:
            return "the policy"
        return f"{self.files[statement['file']]}:{statement['row'] + 1}"


def checked(text: str, names: Mapping[str, str]) -> str:
    """Return the plan with guarded comparisons, once it is known to call and to read nothing else than it may.

    Args:
        text: the plan as JSON.
        names: the policies' files, by the names that they were compiled under.

    Raises:
        PolicyError: naming file, line and what is refused there.
    """
    body = json.loads(text)
    files = tuple(names.get(file["value"], file["value"]) for file in body["static"].get("files", []))
    plan = _Plan(body=body, files=files)
    own = {function["name"] for function in body["funcs"]["funcs"]}
    for function in plan.functions():
        for kind, statement in _statements(function["blocks"]):
            _require_known(plan, own, kind, statement)
    _refuse_cycles(plan)
    for function in plan.functions():
        for kind, statement in _statements(function["blocks"]):
            if kind == "CallStmt" and statement["func"] in COMPARISONS:
                statement["func"] = f"g0.data.{GUARD}.{statement['func']}"
                statement["args"] = [*_INPUT_AND_DATA, *statement["args"]]
    return json.dumps(body)


def rules(text: str) -> dict[str, frozenset[str]]:
    """Return the names of the rules of each package in this plan; functions with arguments are none."""
    found: dict[str, set[str]] = {}
    for function in _Plan(body=json.loads(text), files=()).functions():
        if len(function["params"]) == len(_INPUT_AND_DATA):
            _, *package, rule = function["path"]
            found.setdefault(".".join(package), set()).add(rule)
    return {package: frozenset(names) for package, names in found.items()}


def _statements(node: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every statement below a node of the plan, with its kind."""
    if isinstance(node, list):
        for item in node:
            yield from _statements(item)
    elif isinstance(node, dict):
        if isinstance(node.get("stmt"), dict):
            yield node["type"], node["stmt"]
        for item in node.values():
            yield from _statements(item)


def _require_known(plan: _Plan, own: set[str], kind: str, statement: Mapping[str, Any]) -> None:
    place = plan.place(statement)
    if kind == "CallDynamicStmt":
        raise PolicyError(f"{place}: a rule is chosen by a value of the input; name each rule")
    if kind == "CallStmt" and statement["func"] not in own and statement["func"] not in BUILTINS:
        known = ", ".join(sorted(name for name in BUILTINS if not name.startswith("internal.")))
        raise PolicyError(f"{place}: `{statement['func']}` cannot be called here; what can be is {known}")
    if kind == "DotStmt" and statement["source"] == _DATA:
        raise PolicyError(f"{place}: reads `data` that no policy defines; there are rules in it, and nothing else")
    if kind == "WithStmt" and statement["local"] != _INPUT_AND_DATA[0]["value"]:
        raise PolicyError(f"{place}: `with` replaces something else than a part of `input`")


def _refuse_cycles(plan: _Plan) -> None:
    """Return once no rule needs itself, which OPA refuses too and the library only when it is asked."""
    functions = {function["name"]: function for function in plan.functions()}
    calls = {
        name: {s["func"] for kind, s in _statements(function["blocks"]) if kind == "CallStmt"} & functions.keys()
        for name, function in functions.items()
    }
    while settled := [name for name, needed in calls.items() if not needed & calls.keys()]:
        for name in settled:
            del calls[name]
    if calls:
        named = ", ".join(f"`{name.removeprefix('g0.data.')}`" for name in sorted(calls))
        raise PolicyError(f"rules need themselves: {named}")
