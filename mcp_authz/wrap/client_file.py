"""A client's file: where in its text the tool servers stand, and the same text with others in their place."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field
from itertools import chain, count
from pathlib import Path
from typing import Any, Final

from mcp_authz.errors import ConfigError, InputError
from mcp_authz.wrap import jsonc
from mcp_authz.wrap.known import OTHER, VSCODE, Client, client_of, project_of

OWN: Final = "mcp-authz"  # how our entry is called; in a project beside others, with the project's name
_LARGEST: Final = 64 * 1024 * 1024  # bytes; Claude Code keeps much else in its file

Where = tuple[str, ...]  # the names that lead from the top of the file to an object of servers


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One object of servers in a client's file."""

    where: Where
    project: Path | None  # whose folder it belongs to; None for the whole user
    node: jsonc.Node

    @property
    def servers(self) -> Mapping[str, Any]:
        """What stands there, by the names in the file."""
        servers: Mapping[str, Any] = self.node.value
        return servers

    @property
    def ours(self) -> frozenset[str]:
        """The names of entries that lead to the gateway already."""
        return frozenset(name for name, value in self.servers.items() if is_ours(value))

    def entry(self, moved: Set[str]) -> str:
        """The name that our entry gets there; a client would take one of two with the same name for the other."""
        name = f"{OWN}-{slug(self.project.name)}" if len(self.where) > 1 and self.project else OWN
        others = self.servers.keys() - moved - self.ours
        return next(n for n in chain([name], (f"{name}-{number}" for number in count(2))) if n not in others)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientFile:
    """A client's file as it was read; its path has no symbolic link in it."""

    path: Path
    client: Client
    raw: bytes = field(repr=False)
    text: str = field(repr=False)
    mode: int
    places: tuple[Place, ...]
    inputs: Mapping[str, Mapping[str, Any]]  # what VS Code asks the user for, by id


def is_ours(value: object) -> bool:
    """Whether an entry leads to the gateway already."""
    return agent_of(value) is not None


def agent_of(value: object) -> str | None:
    """Return the agent that an entry of ours is for; None when it is somebody else's."""
    args = value.get("args") if isinstance(value, dict) else None
    if not isinstance(args, list) or not all(isinstance(arg, str) for arg in args) or "connect" not in args:
        return None
    words = args[args.index("connect") + 1 :]
    return words[words.index("--agent") + 1] if "--agent" in words[:-1] else None


def slug(text: str) -> str:
    """Return `text` as a part of a name: lower-case letters, digits and single hyphens."""
    words = "".join(c if c.isascii() and c.isalnum() else "-" for c in text.lower()).split("-")
    return "-".join(word for word in words if word)


def read(path: Path) -> ClientFile:
    """Return the client's file with its places.

    Raises:
        ConfigError: it cannot be read, is no JSON, or has no servers in a form that is known.
    """
    try:
        path = path.resolve(strict=True)
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            raw = file.read(_LARGEST + 1)
        text = raw.decode("utf-8")
    except OSError as error:
        raise ConfigError(f"`{path}` cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"`{path}` is not UTF-8, so it is left as it is") from None
    if len(raw) > _LARGEST:
        raise ConfigError(f"`{path}` is larger than {_LARGEST} bytes, so it is left as it is")
    try:
        node = jsonc.parse(text)
    except InputError as error:
        raise ConfigError(f"`{path}` cannot be understood, so it is left as it is: {error}") from None
    places = tuple(_places(path, node))
    if not places:
        raise ConfigError(f"`{path}` names no tool servers: there is no object `mcpServers` or `servers` in it")
    client = client_of(path)
    if client is OTHER and any(place.where == ("servers",) for place in places):
        client = VSCODE  # of a profile, say: nobody else calls them so
    return ClientFile(path=path, client=client, raw=raw, text=text, mode=mode, places=places, inputs=_inputs(node))


def parse_places(path: Path, text: str) -> dict[Where, jsonc.Node]:
    """Return where the servers stand in a text of such a file."""
    return {place.where: place.node for place in _places(path, jsonc.parse(text))}


def _places(path: Path, top: jsonc.Node) -> Iterable[Place]:
    project = project_of(path)
    for name in ("mcpServers", "servers"):
        if (node := _servers(path, top, name)) is not None:
            yield Place(where=(name,), project=project, node=node)
    for of in getattr(jsonc.member(top, "projects"), "members", ()):
        if (node := _servers(path, of.node, "mcpServers")) is not None:
            yield Place(where=("projects", of.name, "mcpServers"), project=Path(of.name), node=node)


def _servers(path: Path, node: jsonc.Node, name: str) -> jsonc.Node | None:
    found = jsonc.member(node, name)
    if found is not None and not isinstance(found.value, dict):
        raise ConfigError(f"`{path}`: `{name}` is no object of servers, so the file is left as it is")
    return found


def _inputs(top: jsonc.Node) -> dict[str, Mapping[str, Any]]:
    found = jsonc.member(top, "inputs")
    items = found.value if found is not None and isinstance(found.value, list) else []
    return {item["id"]: item for item in items if isinstance(item, dict) and isinstance(item.get("id"), str)}


def replaced(file: ClientFile, entries: Mapping[Where, Mapping[str, Any]], wrapped: Mapping[Where, Set[str]]) -> str:
    """Return the file's text with `entries` in the place of the servers that were `wrapped`; all else is untouched."""
    text = file.text
    for place in sorted(file.places, key=lambda place: place.node.start, reverse=True):
        if place.where in entries:
            new = servers_text(text, place.node, entries[place.where], wrapped[place.where])
            text = text[: place.node.start] + new + text[place.node.end :]
    return text


def servers_text(text: str, node: jsonc.Node, add: Mapping[str, Any], remove: Set[str]) -> str:
    """Return one object of servers, laid out as it was: what stays is copied as it is, what is new comes first."""
    kept = [text[m.start : m.node.end] for m in node.members if m.name not in remove and m.name not in add]
    if "\n" not in text[node.start : node.end]:
        added = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in add.items()]
        return "{" + ", ".join([*added, *kept]) + "}"
    outer, inner = _indents(text, node)
    step = inner.removeprefix(outer) or "  "
    line_end = "\r\n" if "\r\n" in text[node.start : node.end] else "\n"
    added = [
        f"{json.dumps(name)}: {json.dumps(value, indent=step)}".replace("\n", line_end + inner)
        for name, value in add.items()
    ]
    return "{" + line_end + f",{line_end}".join(inner + one for one in [*added, *kept]) + line_end + outer + "}"


def _indents(text: str, node: jsonc.Node) -> tuple[str, str]:
    """What stands before the object's last line, and before its first member where that has a line of its own."""
    outer = _blank_before(text, node.end - 1)
    inner = _blank_before(text, node.members[0].start) if node.members else None
    if outer is None:
        line = text[text.rfind("\n", 0, node.start) + 1 : node.start]
        outer = line[: len(line) - len(line.lstrip())]
    return outer, inner if inner is not None and len(inner) > len(outer) else f"{outer}  "


def _blank_before(text: str, at: int) -> str | None:
    """The white space between the beginning of this line and `at`; None when something else stands there."""
    line = text[text.rfind("\n", 0, at) + 1 : at]
    return line if not line.strip() else None
