"""What a record shows of the values of arguments: those that are short, and of others a keyed digest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mcp_authz import limits
from mcp_authz.rules.canonical import canonical


def short_values(arguments: Mapping[str, Any], digest: Callable[[object], str]) -> dict[str, Any]:
    """The arguments, each value as it is where it is short and flat enough and there is room for it, else its digest.

    No value is shortened: of half a secret nobody could tell that it is one. Names are those that records have.
    """
    shown: dict[str, Any] = {}
    room = limits.VALUES_RECORDED
    for name in sorted(name for name in arguments if len(name) <= limits.NAME)[: limits.NAMES_RECORDED]:
        value = arguments[name]
        size = len(canonical(value)) if _depth_at_most(value, limits.VALUE_DEPTH) else limits.VALUE_RECORDED + 1
        fits = size <= min(room, limits.VALUE_RECORDED)
        shown[name] = value if fits else f"digest:{digest(value)}"
        room -= size if fits else 0
    return shown


def _depth_at_most(value: Any, most: int) -> bool:
    match value:
        case Mapping():
            return most > 0 and all(_depth_at_most(inner, most - 1) for inner in value.values())
        case list() | tuple():
            return most > 0 and all(_depth_at_most(inner, most - 1) for inner in value)
    return True
