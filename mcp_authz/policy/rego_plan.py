"""The plan that Rego is compiled to: what a policy may contain, found before it decides anything.

A plan (OPA's intermediate representation, as JSON) names every function that is called, with file and row, so nothing
of Rego's grammar is repeated here. Refused are calls of builtins outside `BUILTINS`, whose answers are known
(`rego_canaries`), and what OPA does not compile but this library takes for undefined, which a `not` turns into a
permit: names that nothing defines, data that there is not, rules that need themselves. The library also orders values
of different types otherwise than OPA: `checked` sends each comparison through a function in which that is an error.
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

GUARD_FILE: Final = "guard.rego"

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

_SET: Final = ("target", "result")  # members of a statement that are the locals it sets
_NOWHERE: Final = "the policy"
_INPUT_AND_DATA: Final = ({"type": "local", "value": 0}, {"type": "local", "value": 1})  # what every function is given
_DATA: Final = _INPUT_AND_DATA[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """A plan as JSON, with the files it was made of."""

    body: Mapping[str, Any]
    files: tuple[str, ...]

    def functions(self) -> Iterator[Mapping[str, Any]]:
        """The functions that rules became; the query became one too, and is ours."""
        for function in self.body["funcs"]["funcs"]:
            if not function["path"][-1].startswith("query$"):
                yield function

    def file(self, statement: Mapping[str, Any]) -> str | None:
        """The file that a statement is of, as far as the plan knows."""
        return self.files[statement["file"]] if "file" in statement else None

    def place(self, statement: Mapping[str, Any]) -> str:
        """File and line, as far as the plan knows."""
        file = self.file(statement)
        return f"{file}:{statement['row'] + 1}" if file is not None and "row" in statement else _NOWHERE


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
        _refuse_unset(plan, function)
    _refuse_cycles(plan)
    _refuse_escapes(plan)
    for function in plan.functions():
        for kind, statement in _statements(function["blocks"]):
            if kind == "CallStmt" and statement["func"] in COMPARISONS and plan.file(statement) != GUARD_FILE:
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
    if _DATA in _values(kind, statement) and not (kind == "CallStmt" and statement["func"] in own):
        raise PolicyError(f"{place}: reads `data` that no policy defines; there are rules in it, and nothing else")
    if kind == "WithStmt" and statement["local"] != _INPUT_AND_DATA[0]["value"]:
        raise PolicyError(f"{place}: `with` replaces something else than a part of `input`")


def _values(kind: str, statement: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """What a statement itself reads, as operands; the statements within it read for themselves."""
    if kind == "ScanStmt":
        yield {"type": "local", "value": statement["source"]}
    for value in statement.values():
        for operand in value if isinstance(value, list) else [value]:
            if isinstance(operand, dict) and operand.get("type") == "local":
                yield operand


def _refuse_unset(plan: _Plan, function: Mapping[str, Any]) -> None:
    """Return once every name that is read has been given a value somewhere in the function."""
    known = {*function["params"], function["return"]}
    statements = list(_statements(function["blocks"]))
    for kind, statement in statements:
        names = ("key", "value") if kind == "ScanStmt" else _SET
        known |= {statement[name] for name in names if isinstance(statement.get(name), int)}
    for number, (kind, statement) in enumerate(statements):
        if any(operand["value"] not in known for operand in _values(kind, statement)):
            places = [plan.place(near) for _, near in statements[: number + 1]]
            place = next((place for place in reversed(places) if place != _NOWHERE), _NOWHERE)
            raise PolicyError(f"{place}: a name here is neither a rule nor given a value")


def _refuse_escapes(plan: _Plan) -> None:
    """Return once no text of a policy has an escape: the library reads it otherwise back from the plan than it is."""
    texts = plan.body["static"]["strings"]
    escaped = [{"type": "string_index", "value": n} for n, text in enumerate(texts) if "\\" in text["value"]]
    if not escaped:
        return
    statements = (one for function in plan.functions() for _, one in _statements(function["blocks"]))
    places = [plan.place(one) for one in statements if any(operand in escaped for operand in one.values())]
    place = next((place for place in places if place != _NOWHERE), _NOWHERE)
    raise PolicyError(f"{place}: text with `\\` or a quote in it cannot be compared here; write it without")


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
