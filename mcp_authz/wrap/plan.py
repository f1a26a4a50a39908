"""The plan of a wrapping: which servers move, under which names, with which preset, and which stay where they are."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from mcp_authz.config import RESERVED_SERVERS, Config, ServerConfig, read_secret_file
from mcp_authz.errors import ConfigError
from mcp_authz.model import Classification, Hazard
from mcp_authz.rules.classify import ServerRules, classify
from mcp_authz.rules.definition import definition_digest
from mcp_authz.rules.proposal import Proposal
from mcp_authz.rules.scope import Scope, ScopeTemplate
from mcp_authz.settings import server_rules
from mcp_authz.wrap.classes import entry_to_write, fitting_preset, proposals, scope_words, scopes_to_use, tool_of
from mcp_authz.wrap.client_file import Where, slug
from mcp_authz.wrap.entry import Entry
from mcp_authz.wrap.starting import Listed

_LONGEST: Final = 20  # characters of a server's name
_SURROUNDINGS: Final = (
    "PATH",
    "HOME",
)  # what we write into `env` ourselves; it may differ from one terminal to another


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One server that moves from a client's file behind the gateway."""

    where: Where
    entry: Entry
    listed: Listed
    name: str  # in the configuration
    reused: bool  # whether the configuration has it already, from another client or an earlier time
    rules: ServerRules  # what is known of its tools, the preset included
    preset: str | None  # to be written for a new server
    spelled_out: bool  # whether the preset's entries are written one by one, with scopes of this server's own
    proposals: tuple[Proposal, ...]

    def classified(self, chosen: Mapping[str, Hazard]) -> Iterable[tuple[str, Classification]]:
        """What each tool will be classified as, once `chosen` is written."""
        for definition in self.listed.definitions:
            tool = definition["name"]
            said = classify(self.rules, tool, definition_digest(definition))
            yield tool, replace(said, hazard=chosen.get(tool, said.hazard))

    def scopes(self, chosen: Mapping[str, Hazard]) -> frozenset[Scope]:
        """What an agent needs to use all of its tools."""
        return scopes_to_use(self.name, (said for _, said in self.classified(chosen)))

    def tool_entries(
        self, chosen: Mapping[str, Hazard], tools: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, dict[str, Any]]:
        """The tables of tools that are to be written beside `tools`: what configuration and preset do not say already.

        A tool that is not in `chosen` gets none; without preset it stays unclassified, and destructive.
        """
        entries = {}
        for definition in self.listed.definitions:
            tool = definition["name"]
            said = classify(self.rules, tool, definition_digest(definition))
            hazard = chosen.get(tool)
            said_already = said.by != "nobody" and hazard is said.hazard and not self.spelled_out
            if hazard is not None and not said_already:
                entries[tool] = entry_to_write(hazard, said, tools, tool)
        return entries


def plan(entries: Iterable[tuple[Where, Entry, Listed]], config: Config | None, *, believe: bool) -> tuple[Move, ...]:
    """Return what would be done with the servers that started; nothing is written."""
    taken = {name: server_rules(name, server) for name, server in (config.servers if config else {}).items()}
    moves: list[Move] = []
    for where, entry, listed in entries:
        known = None if config is None else _same(entry, config)
        if known is None:
            move = _new(where, entry, listed, taken, believe=believe)
            taken[move.name] = move.rules
        else:
            move = Move(
                where=where,
                entry=entry,
                listed=listed,
                name=known,
                reused=True,
                rules=taken[known],
                preset=None,
                spelled_out=False,
                proposals=(),
            )
        moves.append(move)
    tools = {tool_of(move.name, definition) for move in moves for definition in move.listed.definitions}
    return tuple(
        replace(move, proposals=proposals(move.rules, move.listed.definitions, others=tools, believe=believe))
        for move in moves
    )


def _new(where: Where, entry: Entry, listed: Listed, taken: Mapping[str, ServerRules], *, believe: bool) -> Move:
    words = {word for rules in taken.values() for word in scope_words(rules)}
    name = server_name(entry.name, words | RESERVED_SERVERS)
    fitting = fitting_preset(entry.command, listed.definitions)
    # Anybody can list definitions that a preset knows: unless somebody looks, the command must name the package, too.
    preset = fitting.preset.name if fitting is not None and (fitting.named or believe) else None
    rules = server_rules(name, ServerConfig(command=("x",), preset=preset))
    clash = bool((scope_words(rules) - {name}) & words)
    if clash:
        own = {t: replace(known, classification=_own(known.classification, name)) for t, known in rules.preset.items()}
        rules = replace(rules, preset=own)
    return Move(
        where=where,
        entry=entry,
        listed=listed,
        name=name,
        reused=False,
        rules=rules,
        preset=preset,
        spelled_out=clash,
        proposals=(),
    )


def _own(classification: Classification, server: str) -> Classification:
    """The classification with scopes that begin with this server's name: an agent of another one has nothing of it."""
    scopes = (":".join([server, *str(scope).split(":")[1:]]) for scope in classification.scopes)
    return replace(classification, scopes=tuple(ScopeTemplate.parse(scope) for scope in scopes))


def server_name(text: str, taken: Collection[str]) -> str:
    """Return `text` as a name that a server can have, other than those `taken`; with a number where that is needed."""
    name = slug(text)[:_LONGEST].strip("-") or "server"
    number, candidate = 1, name
    while candidate in taken:
        number += 1
        candidate = f"{name[: _LONGEST - len(str(number)) - 1].rstrip('-')}-{number}"
    return candidate


def server_values(move: Move, secret_files: Mapping[str, str], chosen: Mapping[str, Hazard]) -> dict[str, Any]:
    """Return the table `[servers.NAME]` of a new server; `secret_files` are the files of its secrets by their names."""
    entry = move.entry
    values: dict[str, Any] = {}
    if entry.url is not None:
        values["url"] = entry.url
        values["header_files"] = dict(secret_files)
    else:
        values["command"] = list(entry.command)
        values["cwd"] = str(entry.cwd)
        values["env"] = {name: value for name, value in entry.env.items() if name not in entry.secrets}
        values["env_files"] = dict(secret_files)
    if move.preset is not None and not move.spelled_out:
        values["preset"] = move.preset
    values["tools"] = move.tool_entries(chosen, {})
    return {key: value for key, value in values.items() if value != {}}


def _same(entry: Entry, config: Config) -> str | None:
    """The configured server that is this one: same program or URL, folder, environment and secrets."""
    for name, server in config.servers.items():
        if entry.url is not None:
            same = server.url == entry.url and _values(config, server.headers, server.header_files) == entry.headers
        else:
            same = (
                server.command == entry.command
                and server.cwd == str(entry.cwd)
                and _without(_values(config, server.env, server.env_files)) == _without(entry.env)
            )
        if same:
            return name
    return None


def _values(config: Config, plain: Mapping[str, str], files: Mapping[str, str]) -> Mapping[str, str] | None:
    try:
        return {**plain, **{name: read_secret_file(config, file) for name, file in files.items()}}
    except ConfigError:
        return None


def _without(env: Mapping[str, str] | None) -> Mapping[str, str] | None:
    return None if env is None else {name: value for name, value in env.items() if name not in _SURROUNDINGS}


def shown_name(text: str) -> str:
    """Return a variable's or header's name as the end of a file's name."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)
