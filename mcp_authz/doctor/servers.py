"""Tool servers: found, started once, listed, and each of their tools known for what it does."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import anyio

from mcp_authz.config import ServerConfig
from mcp_authz.doctor.finding import Case, Finding, broken, fine, named, note
from mcp_authz.downstream import Downstream
from mcp_authz.downstreams import make_downstream
from mcp_authz.errors import ConfigError
from mcp_authz.observing import loud_line
from mcp_authz.rules.classify import ServerRules, classify, tool_name
from mcp_authz.rules.definition import definition_digest
from mcp_authz.rules.suspicion import suspicions
from mcp_authz.settings import server_rules
from mcp_authz.store.ports import Pin
from mcp_authz.wrap.starting import Candidate, Listed, Silent, list_once

PATIENCE = timedelta(seconds=20)  # to start and list them all; package runners download first


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ready:
    """A server whose configuration can be used."""

    rules: ServerRules
    downstream: Downstream


async def check_servers(case: Case) -> tuple[Finding, ...]:
    """Every server is started once, listed, and stopped, all at the same time."""
    ready = {name: _prepare(case, name, server) for name, server in case.config.servers.items()}
    answers: dict[str, Listed | Silent] = {}
    with anyio.move_on_after(PATIENCE.total_seconds()):
        startable = {name: Candidate(downstream=it.downstream) for name, it in ready.items() if isinstance(it, _Ready)}
        await list_once(startable, answers.__setitem__)
    others = [
        tool_name(name, definition["name"], definition_digest(definition))
        for name, answer in answers.items()
        if isinstance(answer, Listed)
        for definition in answer.definitions
    ]
    found: list[Finding] = []
    for name, it in ready.items():
        found.extend(_observed(case, name))
        if isinstance(it, _Ready):
            found.extend(_listing(case, it.rules, answers.get(name), others))
        elif it is not None:
            found.append(it)
    return tuple(found)


def _prepare(case: Case, name: str, server: ServerConfig) -> _Ready | Finding | None:
    """None for a server whose secrets are missing: that is said already."""
    files = (*server.env_files.values(), *server.header_files.values())
    if not all((case.config.directory / file).exists() for file in files):
        return None
    try:
        return _Ready(rules=server_rules(name, server), downstream=make_downstream(name, server, case.config))
    except ConfigError as error:
        return broken(_part(name), str(error), f"correct {case.config.source}")


def _part(name: str) -> str:
    return f"server {name}"


def _observed(case: Case, name: str) -> Iterator[Finding]:
    if case.config.servers[name].mode == "observe":
        yield note(_part(name), loud_line(case.config, name), case.command("audit", "list", "--observed"))


def _listing(
    case: Case, rules: ServerRules, answer: Listed | Silent | None, others: Collection[str]
) -> Iterator[Finding]:
    match answer:
        case Listed(definitions=definitions, unreadable=unreadable):
            yield from _tools(case, rules, definitions, others)
            if unreadable:
                yield note(
                    _part(rules.server), f"{unreadable} of what it lists cannot be read as tools and is left out"
                )
        case Silent(because=because):
            yield _silent(case, rules.server, because)
        case None:
            yield _silent(case, rules.server, f"no answer within {PATIENCE.total_seconds():.0f} seconds")


def _silent(case: Case, name: str, because: str) -> Finding:
    server = case.config.servers[name]
    how = server.url or shlex.join(server.command or ())
    return broken(_part(name), f"its tools cannot be listed: {because}", f"try it yourself: {how}")


def _tools(
    case: Case, rules: ServerRules, definitions: tuple[Mapping[str, Any], ...], others: Collection[str]
) -> Iterator[Finding]:
    part = _part(rules.server)
    digests = {str(definition["name"]): definition_digest(definition) for definition in definitions}
    yield fine(part, f"it starts, and lists {len(digests)} tool{'s'[: len(digests) != 1]}")
    yield from _changed(case, rules, digests)
    yield from _unclassified(case, rules, digests)
    for definition in definitions:
        for suspicion in suspicions(definition, server=rules.server, others=others):
            yield note(part, f"{definition['name']}: {suspicion.text}", case.command("tools", "list"))


def _changed(case: Case, rules: ServerRules, digests: Mapping[str, bytes]) -> Iterator[Finding]:
    for pin in _pins(case, rules.server):
        full = tool_name(rules.server, pin.tool, pin.digest)
        listed = digests.get(pin.tool, pin.changed_digest or pin.digest)
        if listed != pin.digest:
            said = f"{full} is in quarantine: its definition changed since it was accepted"
            yield note(_part(rules.server), said, case.command("tools", "diff", full))


def _pins(case: Case, server: str) -> tuple[Pin, ...]:
    return tuple(pin for pin in case.inside.pins if pin.server == server) if case.inside is not None else ()


def _unclassified(case: Case, rules: ServerRules, digests: Mapping[str, bytes]) -> Iterator[Finding]:
    part, review = _part(rules.server), case.command("tools", "review", rules.server)
    unknown = {tool for tool, digest in digests.items() if classify(rules, tool, digest).by == "nobody"}
    if drifted := sorted(unknown & rules.preset.keys()):
        preset = case.config.servers[rules.server].preset
        yield note(part, f"preset {preset} does not know this version of {named(drifted)}: held as destructive", review)
    if rest := sorted(unknown - rules.preset.keys()):
        yield note(part, f"nobody classified {named(rest)}: held as destructive", review)
