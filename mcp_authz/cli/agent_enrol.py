"""`mcp-authz agent enrol`: where an agent runs, make its key and register it at a gateway by a one-time code."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from mcp_authz.agents import agent_name
from mcp_authz.cli.invocation import advising, asynchronous
from mcp_authz.cli.kept_key import kept_key
from mcp_authz.cli.options import Json
from mcp_authz.cli.output import next_step, print_json, say
from mcp_authz.client.asking import Applicant
from mcp_authz.client.discovery import discover, endpoint
from mcp_authz.client.door import NoAnswer, SignInRefused
from mcp_authz.client.enrolling import enrolled
from mcp_authz.client.key_files import load_key, save_key
from mcp_authz.client.talk import carry, line
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
    path = kept_key(ctx, agent_name(agent)).path if key is None else key.absolute()
    there, resource = _is_there(path), endpoint(url)
    async with line(resource, None) as http:
        door = await discover(http, resource)
        who = Applicant(name=agent, key=_key(path), door=door)
        try:
            with advising(NoAnswer, f"run this again: the key stays in {path}"):
                await carry(http, enrolled(who, _code() if code is None else code.strip()))
        except SignInRefused:  # where there was no answer the key stays: it may have been registered
            if not there:
                path.unlink(missing_ok=True)
            raise
    thumbprint = who.key.public.thumbprint
    if json:
        print_json({"agent": agent, "key": thumbprint, "file": str(path)})
        return
    say(f"agent {agent} is enrolled at {door.issuer}, with key {thumbprint}")
    say(f"its private half is in {path}")
    named = [] if key is None else ["--key", str(path)]
    next_step(shlex.join(["mcp-authz", "connect", resource, "--agent", agent, *named]))


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
