"""`mcp-authz wrap --undo`: a client's file is put back as it was."""

from __future__ import annotations

from pathlib import Path

import typer

from mcp_authz.cli.init import default_path
from mcp_authz.cli.invocation import command_line, named_config
from mcp_authz.cli.output import print_json, say
from mcp_authz.config import load_config, user_data_dir
from mcp_authz.errors import ConfigError, Conflict
from mcp_authz.wrap import kept


def undo(ctx: typer.Context, path: Path | None, *, force: bool, json: bool) -> None:
    """The file is as it was, or a sentence says why it is not.

    Raises:
        AuthzError: nothing of it is kept, it was changed since, or it cannot be written.
    """
    configured = named_config(ctx) or default_path()
    data = load_config(configured).data if configured.exists() else user_data_dir()
    old = kept.find(data, path) if path is not None else _only_kept(ctx, data)
    how = kept.put_back(old, force=force)
    kept.forget(old)
    if json:
        print_json({"file": str(old.path), "put_back": how, "agents": list(old.agents)})
        return
    match how:
        case "whole":
            say(f"{old.path} is as it was, letter by letter")
        case "by force":
            say(f"{old.path} is as it was, letter by letter")
            say(f"what was there instead is in {old.replaced}")
        case "servers":
            say(f"{old.path} has its servers back; what else was changed in it since stays")
        case "nothing to do":
            say(f"{old.path} is already as it was")
    say("the gateway's configuration, agents and secrets stay")
    for agent in old.agents:
        say(f"to stop the agent: {command_line(ctx, 'revoke', 'agent', agent, '--reason', 'unwrapped')}")


def _only_kept(ctx: typer.Context, data: Path) -> kept.Kept:
    """The one file that is wrapped.

    Raises:
        Conflict, ConfigError: there is none, or there are several.
    """
    paths = {one.path: one for one in kept.all_kept(data)}
    if len(paths) == 1:
        return next(iter(paths.values()))
    if not paths:
        raise ConfigError("no file is wrapped, so there is nothing to undo")
    names = "; ".join(command_line(ctx, "wrap", str(path), "--undo") for path in sorted(paths))
    raise Conflict(f"several files are wrapped, say which: {names}")
