"""Writes Cedar: permits for exactly what is named, as text that `CedarEngine.load` takes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mcp_authz.model import Obligation

Plain = str | int
"""A value that is compared as it is; a boolean is an integer to Python, and stays a boolean here."""

_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_WORDS: Final = frozenset({"true", "false", "if", "then", "else", "in", "is", "like", "has", "__cedar"})
_NO_ID: Final = re.compile(r"[^A-Za-z0-9._-]+", re.ASCII)
_ID: Final = 100  # characters, so that a number fits behind them


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """What an attribute may be: one of these, or absent where that was seen too."""

    values: frozenset[Plain]
    absent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Permitted:
    """One action with one tool by one agent, with these attributes, and what goes along with it."""

    agent: str
    action: str
    tool: str
    attributes: Mapping[str, Values]
    asks: Sequence[Obligation] = ()


def permits(all_: Sequence[Permitted]) -> str:
    """Return the policies, each with an id of its own."""
    taken: set[str] = set()
    return "\n".join(text for one in all_ for text in _policies(one, taken))


def _policies(it: Permitted, taken: set[str]) -> Iterator[str]:
    """One policy; and another for each obligation of a kind that it has already, for an annotation stands once."""
    left = list(dict.fromkeys(it.asks))
    while True:
        now = {one.kind: one for one in reversed(left)}
        left = [one for one in left if one not in now.values()]
        annotations = [("id", _new_id(f"{it.agent}.{it.action}", taken))]
        annotations += [(one.kind, one.argument) for one in now.values()]
        yield "".join(f"@{name}({quoted(value)})\n" for name, value in annotations) + _permit(it)
        if not left:
            return


def _permit(it: Permitted) -> str:
    head = (
        f"permit (principal == Agent::{quoted(it.agent)}, action == Action::{quoted(it.action)}, "
        f"resource == Tool::{quoted(it.tool)})"
    )
    conditions = [_condition(name, values) for name, values in sorted(it.attributes.items())]
    if not conditions:
        return f"{head};\n"
    joined = " &&\n  ".join(conditions)
    return f"{head}\nwhen {{\n  {joined}\n}};\n"


def _condition(name: str, it: Values) -> str:
    plain = _IDENTIFIER.fullmatch(name) is not None and name not in _WORDS
    read = f"resource.{name}" if plain else f"resource[{quoted(name)}]"
    has = f"resource has {name if plain else quoted(name)}"
    if not it.values:  # no call had it
        return f"!({has})"
    literals = sorted(map(_literal, it.values))
    one_of = f"{read} == {literals[0]}" if len(literals) == 1 else f"[{', '.join(literals)}].contains({read})"
    # The validator does not take `!has || read`: each read stands behind its own `has`.
    return f"(!({has}) || ({has} && {one_of}))" if it.absent else f"{has} && {one_of}"


def _literal(value: Plain) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int) else quoted(value)


def quoted(text: str) -> str:
    """Return a Cedar string: whatever is in it stays text, and on one line."""
    return '"' + "".join(_character(one) for one in text) + '"'


def _character(one: str) -> str:
    if one in ('"', "\\"):
        return f"\\{one}"
    return one if one.isprintable() else f"\\u{{{ord(one):x}}}"


def _new_id(wanted: str, taken: set[str]) -> str:
    base = _NO_ID.sub("-", wanted)[:_ID]
    found, number = base, 1
    while found in taken:
        number += 1
        found = f"{base}.{number}"
    taken.add(found)
    return found
