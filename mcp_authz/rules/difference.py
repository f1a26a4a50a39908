"""How the arguments of one call differ from those of another, one top-level argument at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mcp_authz.rules.canonical import canonical


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One argument that only one of two calls has, or that is another in each; a 1-tuple holds a value, () is none."""

    name: str
    before: tuple[Any, ...]
    now: tuple[Any, ...]


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[Difference, ...]:
    """Return what differs, in the order of the newer call, what it left out at the end."""
    names = [*now, *(name for name in before if name not in now)]
    return tuple(
        Difference(name=name, before=_value(before, name), now=_value(now, name))
        for name in names
        if canonical(list(_value(before, name))) != canonical(list(_value(now, name)))
    )


def _value(arguments: Mapping[str, Any], name: str) -> tuple[Any, ...]:
    return (arguments[name],) if name in arguments else ()
