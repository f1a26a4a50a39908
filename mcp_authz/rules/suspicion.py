"""What a person should look at in a tool's definition before they trust it: warnings, which by themselves stop nothing.

A definition is read by a model, and whoever wrote it may hope that nobody else reads it. Looked at is every text of
it that a model is shown: names, titles, descriptions, values and defaults of its schemas, at every depth.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mcp_authz.rules.display import visible
from mcp_authz.rules.hidden_text import hidden_characters, is_padded, spelled
from mcp_authz.rules.lookalike import folded, is_compound, is_disguised, skeleton
from mcp_authz.rules.orders import calls_out, is_encoded, names_secrets, orders

MEMBERS: Final = ("name", "title", "description", "inputSchema", "outputSchema", "annotations")
LONG: Final = 4096  # characters of one text; published servers stay below a third of it
FOUND: Final = 8  # warnings for one tool; whoever reads eight looks for themselves
SHOWN: Final = 64  # characters of a name or a hidden text that a warning repeats
TEXTS: Final = 20_000  # texts of one definition that are looked at

OURS: Final = ("authz", "mcpauthz")


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspicion:
    """One thing in a definition that a person should look at."""

    code: str  # hidden, orders, secrets, encoded, calls-out, long, disguised, imitates, shadows, mentions
    text: str  # one short sentence about the tool, without a full stop; safe to print


def suspicions(definition: Mapping[str, Any], *, server: str, others: Collection[str]) -> tuple[Suspicion, ...]:
    """Return what is suspicious about the definition of a tool of `server`, the same thing once, `FOUND` at most.

    `others` are the tools of all servers, as `server__tool`; those of `server` are known to be its own.
    """
    found: dict[tuple[str, str], Suspicion] = {}
    for suspicion in _all(definition, server, others):
        found.setdefault((suspicion.code, suspicion.text), suspicion)
        if len(found) == FOUND:
            break
    return tuple(found.values())


def _all(definition: Mapping[str, Any], server: str, others: Collection[str]) -> Iterator[Suspicion]:
    name = definition.get("name")
    if isinstance(name, str):
        yield from _of_name(name, server, others)
    texts = list(_texts(definition))
    for where, text in texts:
        yield from _of_text(where, text)
    own = {tool for owner, tool in map(_parts, others) if owner == server} | {name}
    yield from _mentions(" \n ".join(text for _, text in texts), own, server, others)


def _of_name(name: str, server: str, others: Collection[str]) -> Iterator[Suspicion]:
    if is_disguised(name):
        yield Suspicion(code="disguised", text=f"its name {_short(name)} is written with letters that look like others")
    looks = skeleton(name)
    if looks.startswith(tuple(skeleton(own) for own in OURS)) or "authz__" in folded(name):
        yield Suspicion(code="imitates", text=f"its name {_short(name)} looks like one of the gateway's own")
    for other in sorted(others):
        owner, tool = _parts(other)
        if owner == server or skeleton(tool) != looks:
            continue
        if tool != name:
            yield Suspicion(code="shadows", text=f"its name {_short(name)} can be taken for {_short(other)}")
        elif is_compound(tool):
            yield Suspicion(code="shadows", text=f"it has the same name as {_short(other)}")


def _of_text(where: str, text: str) -> Iterator[Suspicion]:
    if hidden := hidden_characters(text):
        kinds = ", ".join(f"U+{ord(character):04X}" for character in sorted(set(hidden))[:3])
        says = f" that spell {_short(spelled(hidden))}" if spelled(hidden) else ""
        yield Suspicion(code="hidden", text=f"{where} hides {len(hidden)} characters ({kinds}){says}")
    if is_padded(text):
        yield Suspicion(code="hidden", text=f"{where} has text behind so much white space that it is out of sight")
    for says in orders(text):
        yield Suspicion(code="orders", text=f"{where} {says}")
    if names_secrets(text):
        yield Suspicion(code="secrets", text=f"{where} names a place where keys or passwords are kept")
    if is_encoded(text):
        yield Suspicion(code="encoded", text=f"{where} has a long piece that nobody can read")
    if calls_out(text):
        yield Suspicion(code="calls-out", text=f"{where} has something that is loaded or run where it is shown")
    if len(text) > LONG:
        yield Suspicion(code="long", text=f"{where} is {len(text)} characters long")
    if "mcp-authz" in folded(text) or "authz__" in folded(text):
        yield Suspicion(code="imitates", text=f"{where} speaks of the gateway")


def _mentions(text: str, own: Collection[object], server: str, others: Collection[str]) -> Iterator[Suspicion]:
    """Tools of other servers that the definition names: it may want to be called in their place, or to steer them."""
    words = _words(text)
    for other in sorted(others):
        owner, tool = _parts(other)
        if owner != server and is_compound(tool) and tool not in own and not words.isdisjoint((tool, other)):
            yield Suspicion(code="mentions", text=f"it speaks of {_short(other)}, a tool of another server")


def _words(text: str) -> frozenset[str]:
    return frozenset("".join(c if c.isalnum() or c in "_-." else " " for c in text).replace(". ", " ").split())


def _parts(other: str) -> tuple[str, str]:
    owner, found, tool = other.partition("__")
    return (owner, tool) if found else ("", other)


def _texts(definition: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Every text a model is shown, with the words for where it stands; names of arguments are texts as well."""
    waiting: list[tuple[str, Any]] = [(member, definition[member]) for member in MEMBERS if member in definition]
    left = TEXTS
    while waiting and left:
        path, value = waiting.pop(0) if len(waiting) < 2 else waiting.pop()
        if isinstance(value, str):
            left -= 1
            yield _where(path), value
        elif isinstance(value, Mapping):
            for key, inner in value.items():
                left -= 1
                yield _where(f"{path}, a name in it"), key
                waiting.append((f"{path}.{key}" if len(path) < SHOWN else path, inner))
        elif isinstance(value, list):
            waiting.extend((path, inner) for inner in value)


def _where(path: str) -> str:
    return f"its {visible(path)[: 2 * SHOWN]}"


def _short(name: str) -> str:
    shown = visible(name)
    return f"`{shown if len(shown) <= SHOWN else shown[:SHOWN] + '...'}`"
