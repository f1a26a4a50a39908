"""Constraints as a person reads them: `repo is api`, `amount from 1 to 100`, `path under /srv`."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final, assert_never

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
    value_of,
)
from mcp_authz.rules.display import visible

_PLAIN: Final = re.compile(r"[A-Za-z_./@][A-Za-z0-9_./@:+-]*")
_OTHERWISE: Final = frozenset({"true", "false", "null"})  # as bare words they would be read as values that are no text


def tool_words(arguments: Mapping[str, Constraint]) -> str:
    """Return what the arguments of a tool have to be, in one line; those that may be anything come last."""
    if not arguments:
        return "any arguments"
    parts = [f"{_text(name)} {words(one)}" for name, one in arguments.items() if not _is_free(one)]
    free = [_text(name) for name, one in arguments.items() if _is_free(one)]
    if free:
        parts.append(f"{', '.join(free)} free")
    return "; ".join(parts)


def words(constraint: Constraint) -> str:
    """Return what the constraint says of a value, to be read after the argument's name."""
    match constraint:
        case Exact(value=value):
            return f"is {_value(value)}"
        case Range():
            return _range(constraint)
        case OneOf(values=values):
            return f"is {_listed(values, 'or')}" if values else "can be nothing"
        case NotOneOf(excluded=excluded):
            return f"is not {_listed(excluded, 'or')}" if excluded else "is anything"
        case Contains(required=required):
            return f"has {_listed(required, 'and')}" if required else "is a list"
        case Subset(allowed=allowed):
            return f"has only {_listed(allowed, 'and')}" if allowed else "is an empty list"
        case Wildcard():
            return "is anything"
        case AllOf(clauses=clauses):
            return _joined(clauses, "and")
        case AnyOf(clauses=clauses):
            return _joined(clauses, "or")
        case Optionally(constraint=inner):
            return f"{words(inner)}, or is left out"
        case Under():
            return f"under {_text(constraint.to_json()['root'])}"
        case _:
            assert_never(constraint)


def _range(constraint: Range) -> str:
    low, high = constraint.min, constraint.max
    if low is not None and high is not None and constraint.min_inclusive and constraint.max_inclusive:
        return f"from {low} to {high}"
    parts = []
    if low is not None:
        parts.append(f"{'at least' if constraint.min_inclusive else 'above'} {low}")
    if high is not None:
        parts.append(f"{'at most' if constraint.max_inclusive else 'below'} {high}")
    return " and ".join(parts) or "is a number"


def _joined(clauses: Sequence[Constraint], word: str) -> str:
    if len(clauses) == 1:
        return words(clauses[0])
    return f" {word} ".join(f"({words(one)})" if isinstance(one, AllOf | AnyOf) else words(one) for one in clauses)


def _listed(literals: Collection[bytes], word: str) -> str:
    *first, last = [_value(spelling) for spelling in sorted(literals)]
    return f"{', '.join(first)} {word} {last}" if first else last


def _value(spelling: bytes) -> str:
    value = value_of(spelling)
    return _text(value) if isinstance(value, str) else visible(json.dumps(value, ensure_ascii=False))


def _text(value: str) -> str:
    """Text bare where it can be nothing else, and in quotes where it could be; nothing in it is hidden."""
    if _PLAIN.fullmatch(value) and value not in _OTHERWISE:
        return value
    return f'"{visible(value).replace(chr(34), chr(92) + chr(34))}"'


def _is_free(constraint: Constraint) -> bool:
    return isinstance(constraint, Optionally) and isinstance(constraint.constraint, Wildcard)
