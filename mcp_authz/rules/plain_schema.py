"""Input schemas of the plain kind, checked in one pass: whoever passes fits, of all others nothing is said here.

Most calls fit, and most schemas say no more than types, names and bounds. What passes here passes the whole check of
`rules.schema`, which has the last word on everything else, and finds the words for what does not fit. It passes the
budget of that check, too: only so many values are looked at here that each of them could be held against all of the
schema.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

Passes = Callable[[Any], bool]

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_SAYING_NOTHING: Final = frozenset(
    {"$schema", "type", "title", "description", "default", "examples", "deprecated", "format", "x-mcp-header"}
)


def plain(schema: Any, *, steps: int) -> Passes | None:
    """Return what lets through only what fits, in less than so many steps of the whole check.

    None where the schema says more than is understood here.
    """
    fits = _plain(schema)
    if fits is None:
        return None
    most = steps // (2 * _weight(schema))  # half is for what the values themselves weigh
    return lambda value: _has_at_most(most, value) and fits(value)


def _weight(schema: Any) -> int:
    """At least what it costs to hold one value against every part of this."""
    if isinstance(schema, dict):
        return 1 + sum(2 + _weight(value) for value in schema.values())
    if isinstance(schema, list):
        return 1 + sum(1 + _weight(value) for value in schema)
    return 1 + (len(schema) // 64 if isinstance(schema, str) else 0)


def _has_at_most(most: int, value: Any) -> bool:
    """Whether so many values are in this one, itself included."""
    left, waiting = most - 1, [value]
    while waiting and left >= 0:
        inside = waiting.pop()
        if type(inside) is dict:
            left -= len(inside)
            waiting.extend(inside.values() if left >= 0 else ())
        elif type(inside) is list:
            left -= len(inside)
            waiting.extend(inside if left >= 0 else ())
        elif type(inside) is str:
            left -= len(inside) // 1024
    return left >= 0


def _plain(schema: Any) -> Passes | None:
    if not isinstance(schema, dict) or schema.get("$schema", _DIALECT) != _DIALECT:
        return None
    make = _KINDS.get(schema["type"]) if isinstance(schema.get("type"), str) else None
    says = {name: value for name, value in schema.items() if name not in _SAYING_NOTHING}
    return None if make is None else make(says)


def _object(says: Mapping[str, Any]) -> Passes | None:
    named, required, more = says.get("properties", {}), says.get("required", []), says.get("additionalProperties", True)
    if says.keys() - {"properties", "required", "additionalProperties"} or not isinstance(more, bool):
        return None
    if not isinstance(named, dict) or not _is_words(required):
        return None
    inside = {name: _plain(schema) for name, schema in named.items()}
    passes = {name: check for name, check in inside.items() if check is not None}
    if len(passes) < len(inside):
        return None

    def fits(value: Any) -> bool:
        if type(value) is not dict or any(name not in value for name in required):
            return False
        for name, member in value.items():
            check = passes.get(name)
            if not more if check is None else not check(member):
                return False
        return True

    return fits


def _array(says: Mapping[str, Any]) -> Passes | None:
    if says.keys() != {"items"} or (check := _plain(says["items"])) is None:
        return None
    return lambda value: type(value) is list and all(map(check, value))


def _string(says: Mapping[str, Any]) -> Passes | None:
    least, most, words = says.get("minLength", 0), says.get("maxLength"), says.get("enum")
    if says.keys() - {"minLength", "maxLength", "enum"} or type(least) is not int:
        return None
    if not (most is None or type(most) is int) or not (words is None or _is_words(words)):
        return None
    among = None if words is None else frozenset(words)
    return lambda value: (
        type(value) is str
        and least <= len(value)
        and (most is None or len(value) <= most)
        and (among is None or value in among)
    )


def _integer(says: Mapping[str, Any]) -> Passes | None:
    return _within(says, frozenset({int}))  # 1.0 is one, too: that is left to the whole check


def _number(says: Mapping[str, Any]) -> Passes | None:
    return _within(says, frozenset({int, float}))


def _within(says: Mapping[str, Any], kinds: frozenset[type]) -> Passes | None:
    least, most = says.get("minimum"), says.get("maximum")
    if says.keys() - {"minimum", "maximum"} or not all(it is None or type(it) is int for it in (least, most)):
        return None
    return lambda value: type(value) in kinds and (least is None or least <= value) and (most is None or value <= most)


def _boolean(says: Mapping[str, Any]) -> Passes | None:
    return None if says else lambda value: type(value) is bool


def _is_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(it, str) for it in value)


_KINDS: Final[Mapping[str, Callable[[Mapping[str, Any]], Passes | None]]] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
}
