"""One condition as a person types it, such as `repo=api` or `amount=1..100`, and the constraint that it means."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from mcp_authz.errors import ConstraintError, InputError
from mcp_authz.rules import strict_json
from mcp_authz.rules.constraint import parse_constraint
from mcp_authz.rules.constraint_kinds import (
    AllOf,
    AnyOf,
    Constraint,
    Contains,
    Exact,
    NotOneOf,
    OneOf,
    Optionally,
    Range,
    Subset,
    Under,
    Wildcard,
    literal,
    value_of,
)

Kind = Literal["text", "integer", "number", "boolean", "array"]

FORMS: Final = "repo=api, repo='api|web', branch!=main, path=under:/srv/app, amount=1..100, title=* or count:=3"

_PARTS: Final = re.compile(r"(?P<name>.+?)(?P<operator>:=|!=|=)(?P<value>.*)", re.DOTALL)
_NUMBER: Final = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?"
_RANGE: Final = re.compile(rf"(?P<min>{_NUMBER})?\.\.(?P<max>{_NUMBER})?")
_KINDS: Final[Mapping[str, Kind]] = {
    "string": "text",
    "integer": "integer",
    "number": "number",
    "boolean": "boolean",
    "array": "array",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """One condition as it was typed, taken apart; what its value is, depends on the tool's schema."""

    argument: str  # may begin with `TOOL.`
    operator: str  # `=`, `!=` or `:=`
    value: str
    optional: bool = False  # `title?=...`: the argument may be left out


def parse_where(text: str) -> Where:
    """Return the parts of a condition such as `repo=api`.

    Raises:
        ConstraintError: it is none; the message shows how they are written.
    """
    parts = _PARTS.fullmatch(text)
    if parts is None or parts["name"] == "?":
        raise ConstraintError(f"`{text}` is no condition; write one such as {FORMS}")
    name = parts["name"]
    return Where(
        argument=name.removesuffix("?"),
        operator=parts["operator"],
        value=parts["value"],
        optional=name.endswith("?"),
    )


def read_constraint(where: Where, schema: object = None, had: Constraint | None = None) -> Constraint:
    """Return what the condition means for an argument with this JSON schema.

    Values are text, unless the schema says integer, number, boolean or array; where there is none, what the argument
    had to be before (`had`) tells as much. An end that a range leaves open is where it was before, and what was
    excluded before stays so.

    Raises:
        ConstraintError: the value is none of its kind, or not written as it must be.
    """
    kind = _kind_of_schema(schema) or (None if had is None else _kind_of_values(had))
    match where.operator:
        case ":=":
            constraint = _json(where)
        case "!=":
            constraint = _excluded(where, kind)
        case _:
            items = schema.get("items") if isinstance(schema, Mapping) else None
            constraint = _list(where, _kind_of_schema(items)) if kind == "array" else _equal(where, kind)
    constraint = _narrowed(constraint, had.constraint if isinstance(had, Optionally) else had)
    return Optionally(constraint=constraint) if where.optional else constraint


def _narrowed(constraint: Constraint, had: Constraint | None) -> Constraint:
    match constraint, had:
        case Range(), Range():
            low = had if constraint.min is None else constraint
            high = had if constraint.max is None else constraint
            return Range(min=low.min, min_inclusive=low.min_inclusive, max=high.max, max_inclusive=high.max_inclusive)
        case NotOneOf(excluded=excluded), NotOneOf():
            return NotOneOf(excluded=excluded | had.excluded)
        case _:
            return constraint


def _equal(where: Where, kind: Kind | None) -> Constraint:
    value = where.value
    if value == "*":
        return Wildcard()
    if value.startswith("under:"):
        try:
            return Under.parse(value.removeprefix("under:"))
        except ConstraintError as error:
            raise ConstraintError(f"argument `{where.argument}`: {error}") from None
    if (bounds := _RANGE.fullmatch(value)) and value != "..":
        return _range(where, bounds, kind)
    values = _values(where, kind)
    return Exact(value=values[0]) if len(values) == 1 else OneOf(values=frozenset(values))


def _list(where: Where, kind: Kind | None) -> Constraint:
    return Wildcard() if where.value == "*" else Subset(allowed=frozenset(_values(where, kind)))


def _excluded(where: Where, kind: Kind | None) -> Constraint:
    if kind == "array":
        raise ConstraintError(f"argument `{where.argument}` is a list; write what it may hold: {where.argument}='a|b'")
    return NotOneOf(excluded=frozenset(_values(where, kind)))


def _range(where: Where, bounds: re.Match[str], kind: Kind | None) -> Constraint:
    if kind not in (None, "integer", "number"):
        raise ConstraintError(
            f"argument `{where.argument}` is no number; write {where.argument}:={json.dumps(where.value)} for this text"
        )
    low, high = (None if bound is None else json.loads(bound) for bound in (bounds["min"], bounds["max"]))
    for bound in (low, high):
        literal(bound)  # a number that a call can have
    if low is not None and high is not None and low > high:
        raise ConstraintError(f"nothing is in `{where.value}`; write the lower end first")
    return Range(min=low, max=high)


def _values(where: Where, kind: Kind | None) -> list[bytes]:
    return [literal(_value(where, text, kind)) for text in where.value.split("|")]


def _value(where: Where, text: str, kind: Kind | None) -> str | int | float | bool:
    name = where.argument
    if not text:
        raise ConstraintError(f"argument `{name}` has an empty value; write {name}:='\"\"' if that is meant")
    if "*" in text:
        raise ConstraintError(
            f"`{text}`: a `*` stands alone and for any value; list values with |, "
            f"or write {name}:={json.dumps(text)} for this text"
        )
    match kind:
        case "integer" if re.fullmatch(r"-?(?:0|[1-9][0-9]*)", text):
            return int(text)
        case "number" if re.fullmatch(_NUMBER, text):
            number: int | float = json.loads(text)
            return number
        case "boolean" if text in ("true", "false"):
            return text == "true"
        case "integer" | "number" | "boolean":
            like = {"integer": "3, or 1..100", "number": "1.5, or 1..100", "boolean": "true or false"}[kind]
            raise ConstraintError(f"argument `{name}` cannot be `{text}`; write {name}={like}")
        case _:
            return text


def _json(where: Where) -> Constraint:
    """A value, or a whole constraint, as JSON: for what the other forms cannot say."""
    try:
        value = strict_json.parse_value(where.value.encode("utf-8", "surrogatepass"))
    except InputError:
        raise ConstraintError(
            f"what follows `:=` is no JSON; write {where.argument}={where.value or 'api'}, "
            f"or {where.argument}:='\"text\"', {where.argument}:=3 or {where.argument}:=true"
        ) from None
    if isinstance(value, dict) and "constraint_type" in value:
        constraint = parse_constraint(value)
        if isinstance(constraint, Optionally) and where.optional:
            raise ConstraintError(f"argument `{where.argument}` may be left out twice; leave the `?` away")
        return constraint
    return Exact(value=literal(value))


def _kind_of_schema(schema: object) -> Kind | None:
    """What the schema says of values; None where it says nothing that is of use, or several things."""
    kinds = {_KINDS.get(name) for name in _types(schema) if name != "null"}
    if kinds == {"integer", "number"}:
        return "number"
    return kinds.pop() if len(kinds) == 1 else ("text" if "text" in kinds else None)


def _types(schema: object) -> set[str]:
    if not isinstance(schema, Mapping):
        return set()
    found = _listed(schema.get("type"))
    for inner in [] if found else [*_listed(schema.get("anyOf")), *_listed(schema.get("oneOf"))]:
        found += _listed(inner.get("type")) if isinstance(inner, Mapping) else []  # `anyOf: [{type: integer}, ...]`
    return {name for name in found if isinstance(name, str)}


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _kind_of_values(had: Constraint) -> Kind | None:
    """What the values of a constraint are, where they tell."""
    match had:
        case Optionally(constraint=inner):
            return _kind_of_values(inner)
        case AllOf(clauses=clauses) | AnyOf(clauses=clauses):
            return next((kind for one in clauses if (kind := _kind_of_values(one))), None)
        case Range():
            return "number"
        case Contains() | Subset():
            return "array"
        case Exact(value=value):
            return _kind_of_literals([value])
        case OneOf(values=values) | NotOneOf(excluded=values):
            return _kind_of_literals(values)
        case _:
            return None


def _kind_of_literals(spellings: Collection[bytes]) -> Kind | None:
    kinds = {type(value_of(spelling)) for spelling in spellings}
    if kinds == {bool}:
        return "boolean"
    return "number" if kinds and kinds <= {int, float} else None
