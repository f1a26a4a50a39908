"""`mcp-authz tools review`: servers are started once, and what nothing classifies is classified by a person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import anyio
import typer

from mcp_authz.cli import classes
from mcp_authz.cli.asking import someone_is_here
from mcp_authz.cli.invocation import command_line, config_of
from mcp_authz.cli.output import print_json, say
from mcp_authz.cli.starting import list_with_progress
from mcp_authz.config import Config, ServerConfig, read_secret_file
from mcp_authz.config_file import ConfigFile
from mcp_authz.downstreams import make_downstream
from mcp_authz.errors import ConfigError, NotFound
from mcp_authz.rules.classify import classify
from mcp_authz.rules.definition import definition_digest
from mcp_authz.rules.display import visible
from mcp_authz.rules.proposal import Proposal
from mcp_authz.settings import server_rules
from mcp_authz.wrap.classes import entry_to_write, fitting_preset, proposals, tool_of
from mcp_authz.wrap.starting import Candidate, Listed, Silent


@dataclass(frozen=True, slots=True, kw_only=True)
class Reviewed:
    """Servers that were started: what they list and what is proposed, and why others could not be asked."""

    listed: Mapping[str, Listed]
    proposed: Mapping[str, tuple[Proposal, ...]]
    left: Mapping[str, str]


def review(ctx: typer.Context, server: str | None, *, everything: bool, yes: bool, believe: bool, json: bool) -> None:
    """The classes that were accepted stand in the configuration.

    Raises:
        AuthzError: nobody can be asked, they stopped, or the configuration cannot be written.
    """
    if not yes and (json or not someone_is_here()):
        raise ConfigError("nobody can be asked here; run it in a terminal, or add --yes to take what presets say")
    config = config_of(ctx)
    found = _reviewed(config, _asked(config, server), everything=everything, believe=believe)
    if not json:
        for name, because in found.left.items():
            say(f"left as it is: {name}: {visible(because)}")
    if not any(found.proposed.values()) and not json:
        say("nothing to review: every tool of the servers that answered is classified; --all shows them")
        return
    chosen = classes.unattended(found.proposed) if yes else classes.decide(found.proposed)
    if yes and not json:
        classes.show(found.proposed)
    written = _write(config, found, chosen)
    if json:
        print_json(_view(found, chosen, written))
    elif written:
        say(f"{written} tools are classified in {config.source}")
        say("a gateway that runs reads it when it is started again")
        say(f"next: {command_line(ctx, 'tools', 'list')}")
    else:
        say("nothing was to be written")


def _asked(config: Config, server: str | None) -> dict[str, ServerConfig]:
    if server is None:
        return dict(config.servers)
    if server not in config.servers:
        known = ", ".join(sorted(config.servers)) or "none"
        raise NotFound(f"there is no server `{server}` in `{config.source}`; there are: {known}")
    return {server: config.servers[server]}


def _reviewed(config: Config, asked: Mapping[str, ServerConfig], *, everything: bool, believe: bool) -> Reviewed:
    candidates, left = {}, {}
    for name, server in asked.items():
        try:
            candidates[name] = _candidate(name, server, config)
        except ConfigError as error:
            left[name] = str(error)
    answers = anyio.run(list_with_progress, candidates, {name: name for name in candidates})
    listed = {name: answer for name, answer in answers.items() if isinstance(answer, Listed)}
    left |= {name: answer.because for name, answer in answers.items() if isinstance(answer, Silent)}
    tools = {tool_of(name, definition) for name, answer in listed.items() for definition in answer.definitions}
    proposed = {}
    for name, answer in listed.items():
        server = asked[name]
        fitting = fitting_preset(server.command or (), answer.definitions)
        preset = fitting.preset if fitting is not None and (fitting.named or believe) else None
        rules = server_rules(name, server)
        proposed[name] = tuple(
            one
            for one in proposals(rules, answer.definitions, preset=preset, others=tools, believe=believe)
            if everything or _unclassified(config, name, answer, one.tool)
        )
    return Reviewed(listed=listed, proposed=proposed, left=left)


def _candidate(name: str, server: ServerConfig, config: Config) -> Candidate:
    files = [*server.env_files.values(), *server.header_files.values()]
    hidden = tuple(read_secret_file(config, file) for file in files)
    return Candidate(downstream=make_downstream(name, server, config), hidden=hidden)


def _unclassified(config: Config, server: str, listed: Listed, tool: str) -> bool:
    rules = server_rules(server, config.servers[server])
    definition = next(one for one in listed.definitions if one["name"] == tool)
    return classify(rules, tool, definition_digest(definition)).by == "nobody"


def _write(config: Config, found: Reviewed, chosen: classes.Chosen) -> int:
    """How many tools have another entry than before."""
    file, written = ConfigFile(config.source), 0
    for name, listed in found.listed.items():
        rules = server_rules(name, config.servers[name])
        for definition in listed.definitions:
            tool = definition["name"]
            hazard = chosen.get(name, {}).get(tool)
            said = classify(rules, tool, definition_digest(definition))
            if hazard is None or (said.by != "nobody" and said.hazard is hazard):
                continue
            entry = entry_to_write(hazard, said, file.servers[name].get("tools", {}), tool)
            file.classify(name, tool, entry)
            written += 1
    file.save()
    return written


def _view(found: Reviewed, chosen: classes.Chosen, written: int) -> dict[str, Any]:
    return {
        "servers": [
            {"name": name, "tools": classes.views(tools, chosen.get(name, {}))}
            for name, tools in found.proposed.items()
        ],
        "left": [{"name": name, "because": because} for name, because in found.left.items()],
        "written": written,
    }
