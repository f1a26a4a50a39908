"""`mcp-authz agent enrol`: where an agent runs, make its key and register it at a gateway by a one-time code."""

from __future__ import annotations

import os
import shlex
import sys
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from mcp_authz.cli.invocation import asynchronous, named_config
from mcp_authz.cli.options import Json
from mcp_authz.cli.output import next_step, print_json, say
from mcp_authz.client.enrolling import EnrolmentRefused, enrol_at
from mcp_authz.client.key_files import load_key, save_key
from mcp_authz.config import find_config, load_config, user_data_dir
from mcp_authz.errors import ConfigError
from mcp_authz.rules.keys import PrivateKey


@asynchronous
async def enrol(
    ctx: typer.Context,
    url: Annotated[str, typer.Argument(metavar="URL", help="The gateway.")],
    *,
    agent: Annotated[str, typer.Option(metavar="NAME", help="The agent, as it was announced there.")],
    code: Annotated[
        str | None, typer.Option(metavar="CODE", help="The one-time code. Else it is asked for, or read from stdin.")
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", readable=False, help="Where its private key is, or is made. Else where `connect` looks."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Make an agent's key here, and register it at a gateway by a one-time code."""
    path = kept_key(ctx, agent) if key is None else key.absolute()
    there = _is_there(path)
    try:
        enrolled = await enrol_at(url, agent, _code() if code is None else code.strip(), partial(_key, path))
    except EnrolmentRefused:  # where there was no answer the key stays: it may have been registered
        if not there:
            path.unlink(missing_ok=True)
        raise
    if json:
        print_json({"agent": agent, "key": enrolled.thumbprint, "file": str(path)})
        return
    say(f"agent {agent} is enrolled at {enrolled.issuer}, with key {enrolled.thumbprint}")
    say(f"its private half is in {path}")
    named = [] if key is None else ["--key", str(path)]
    next_step(shlex.join(["mcp-authz", "connect", enrolled.resource, "--agent", agent, *named]))


def kept_key(ctx: typer.Context, agent: str) -> Path:
    """Where `connect` looks for the key of an agent when it is told nothing else."""
    try:
        path = find_config(named_config(ctx))
    except ConfigError:  # a gateway elsewhere needs no configuration here
        return user_data_dir() / "agents" / f"{agent}.pem"
    return load_config(path).agent_key(agent)


def _is_there(path: Path) -> bool:
    return os.path.lexists(path)


def _code() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("the one-time code", hide_input=True)).strip()
    return sys.stdin.readline().strip()


def _key(path: Path) -> PrivateKey:
    """The key in the file, which is made when there is none."""
    if _is_there(path):
        return load_key(path)
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"`{path.parent}` cannot be made: {error.strerror}; name a file with --key") from None
    private = PrivateKey.generate()
    save_key(path, private, replace=False)
    return private
