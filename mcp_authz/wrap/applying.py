"""A plan carried out, the client's file last: whatever fails before leaves it as it was."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

from mcp_authz.catalog import Catalog
from mcp_authz.config import Config, load_config, user_data_dir
from mcp_authz.config_file import ConfigFile, replace_file
from mcp_authz.downstream import Downstream
from mcp_authz.errors import ConfigError, Conflict
from mcp_authz.installation import Installation, open_installation
from mcp_authz.model import Hazard
from mcp_authz.rules.scope import Scope
from mcp_authz.settings import server_rules
from mcp_authz.wrap import client_file, kept
from mcp_authz.wrap.client_file import ClientFile, Place, Where, slug
from mcp_authz.wrap.enrolment import Wanted, enrol, free_name
from mcp_authz.wrap.plan import Move, server_values, shown_name

SECRETS: Final = "secrets"

Chosen = Mapping[str, Mapping[str, Hazard]]  # configured server -> tool -> class


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a person has decided."""

    file: ClientFile
    moves: tuple[Move, ...]
    chosen: Chosen
    agent: str
    person: str
    interactive: bool | None  # None: as it is, and not for a new agent
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What has happened."""

    agents: tuple[Wanted, ...]
    secrets: tuple[Path, ...]
    kept: Path  # the folder with the old file


async def carry_out(order: Order, config: Config) -> Done:
    """The servers stand in the configuration, the agents are enrolled, and the client's file leads to the gateway.

    Raises:
        AuthzError: something could not be written; the client's file is as it was, and doing it again goes on.
    """
    secrets = _write_configuration(order, config)
    config = load_config(config.source)  # as it will be read: what cannot be used is found before anybody needs it
    async with open_installation(config) as here:
        await _pin(here, order.moves)
        wanted = {place.where: await _wanted(here, order, place) for place in _places(order)}
        for one in wanted.values():
            await enrol(here, one, by=order.by)
        entries = {where: connect_entry(config, agent, order.file.client.name) for where, agent in wanted.items()}
        old = _replace(order, entries, config, tuple(one.name for one in wanted.values()), here)
    return Done(agents=tuple(wanted.values()), secrets=secrets, kept=old.folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """A server as it was when it was started: all that a catalogue needs to pin its tools."""

    name: str
    definitions: tuple[Mapping[str, Any], ...]

    async def list_tools(self) -> tuple[Mapping[str, Any], ...]:
        return self.definitions


async def _pin(here: Installation, moves: Iterable[Move]) -> None:
    """What the person looked at is what counts: a definition that differs later is in quarantine."""
    rules = {name: server_rules(name, server) for name, server in here.config.servers.items()}
    catalog = Catalog(store=here.store, rules=rules, clock=here.clock)
    for name, definitions in {move.name: move.listed.definitions for move in moves}.items():
        await catalog.refresh(cast(Downstream, _Seen(name=name, definitions=definitions)))


def _places(order: Order) -> Iterable[Place]:
    wheres = {move.where for move in order.moves}
    return (place for place in order.file.places if place.where in wheres)


def _write_configuration(order: Order, config: Config) -> tuple[Path, ...]:
    file, written = ConfigFile(config.source), []
    for move in order.moves:
        chosen = order.chosen.get(move.name, {})
        if move.reused:
            tools = file.servers[move.name].get("tools", {})
            for tool, entry in move.tool_entries(chosen, tools).items():
                file.classify(move.name, tool, entry)
        else:
            files = {name: f"{SECRETS}/{move.name}.{shown_name(name)}" for name in sorted(move.entry.secrets)}
            given = {**move.entry.env, **move.entry.headers}
            for name, path in files.items():
                written.append(_write_secret(config.directory / path, given[name]))
            comment = f"from {order.file.client.title}, {order.file.path}"
            file.add_server(move.name, server_values(move, files, chosen), comment=comment)
    file.save()
    return tuple(written)


def _write_secret(path: Path, value: str) -> Path:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.parent.stat().st_mode & 0o077:
            path.parent.chmod(0o700)
        replace_file(path, value.encode(), mode=0o600)
    except OSError as error:
        raise ConfigError(f"secret file `{path}` cannot be written: {error.strerror}") from None
    return path


async def _wanted(here: Installation, order: Order, place: Place) -> Wanted:
    """The agent that the servers of one place need; one that our entry there names already gets what is added."""
    name = next(filter(None, map(client_file.agent_of, place.servers.values())), None) or order.agent
    if name == order.agent and len(place.where) > 1 and place.project is not None:
        name = f"{name}-{slug(place.project.name)}"[:63].rstrip("-")
    scopes: frozenset[Scope] = frozenset()
    for move in order.moves:
        if move.where == place.where:
            scopes |= move.scopes(order.chosen.get(move.name, {}))
    person = order.person
    return Wanted(name=await free_name(here, name, person), person=person, scopes=scopes, interactive=order.interactive)


def connect_entry(config: Config, agent: Wanted, client: str) -> dict[str, Any]:
    """Return what stands in a client's file for all servers behind the gateway: `connect`, by absolute path."""
    program = Path(sys.executable).with_name("mcp-authz")
    command = [str(program)] if os.access(program, os.X_OK) else [sys.executable, "-m", "mcp_authz.cli.main"]
    # A client that is started from a desktop does not have the variables of this terminal.
    usual = Path.home() / ".config" / "mcp-authz" / "gateway.toml"
    named = [] if config.source == usual.resolve() else ["--config", str(config.source)]
    args = [*command[1:], *named, "connect", "--agent", agent.name, "--for", agent.person]
    entry: dict[str, Any] = {"type": "stdio"} if client == "vscode" else {}
    entry |= {"command": command[0], "args": args}
    if config.data_dir is None and user_data_dir() != Path.home() / ".local" / "share" / "mcp-authz":
        entry["env"] = {"XDG_DATA_HOME": str(user_data_dir().parent)}
    return entry


def _replace(
    order: Order,
    entries: Mapping[Where, Mapping[str, Any]],
    config: Config,
    agents: tuple[str, ...],
    here: Installation,
) -> kept.Kept:
    """The client's file has our entries; what it was is kept."""
    file = _as_it_is_now(order.file)
    new, gone = {}, {}
    for place in file.places:
        if place.where in entries:
            moved = {move.entry.name for move in order.moves if move.where == place.where}
            new[place.where] = {place.entry(moved): entries[place.where]}
            gone[place.where] = moved | place.ours
    text = client_file.replaced(file, new, gone)
    old = kept.keep(config.data, file, text, agents, here.clock())
    try:
        replace_file(file.path, text.encode(), mode=file.mode)
    except OSError as error:
        kept.forget(old)
        raise ConfigError(f"`{file.path}` cannot be written: {error.strerror}; it is as it was") from None
    return old


def _as_it_is_now(file: ClientFile) -> ClientFile:
    """The file again: some clients write into it all the time, as long as it is not into their servers.

    Raises:
        Conflict: its servers are others than those that were looked at.
    """
    now = client_file.read(file.path)
    if {p.where: p.servers for p in now.places} != {p.where: p.servers for p in file.places}:
        raise Conflict(f"the servers in `{file.path}` were changed meanwhile; it is as it was, run this again")
    return replace(now, client=file.client)
