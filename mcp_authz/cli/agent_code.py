"""`mcp-authz agent code` and `agent refresh`: how an agent that is elsewhere comes to its keys here."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from mcp_authz.cli.invocation import advising, asynchronous, command_line, config_of, installation, operator
from mcp_authz.cli.options import Json
from mcp_authz.cli.output import local, next_step, print_json, say
from mcp_authz.enrolment import Code, Codes
from mcp_authz.errors import NotFound
from mcp_authz.fetching import Fetcher
from mcp_authz.hosted import HostedAgents
from mcp_authz.principals import AgentName
from mcp_authz.rules.client_metadata import showable
from mcp_authz.rules.log import timestamp

Name = Annotated[str, typer.Argument(metavar="NAME", help="Its name.")]


@asynchronous
async def code(ctx: typer.Context, name: Name, json: Json = False) -> None:
    """Print a one-time code by which an agent without a key enrols from where it is."""
    async with installation(ctx) as here:
        if await here.store.agent(AgentName(name)) is None:
            raise NotFound(f"there is no agent `{name}`; the agents there are: {command_line(ctx, 'agent', 'list')}")
        made = await Codes(here.store, here.clock).make(AgentName(name), by=operator())
    if json:
        print_json(_facts(made, _command(ctx, made)))
    else:
        say_code(ctx, made)


@asynchronous
async def refresh(ctx: typer.Context, name: Name, json: Json = False) -> None:
    """Read the keys of an agent that is hosted elsewhere again, from its metadata document."""
    async with installation(ctx) as here:
        with advising(NotFound, f"the agents there are: {command_line(ctx, 'agent', 'list')}"):
            keys = await HostedAgents(here.store, here.clock, Fetcher()).refresh(name, by=operator())
        shown = [key.thumbprint for key in showable(keys, here.clock()) if key.retires_at is None]
    if json:
        print_json({"agent": name, "keys": shown})
        return
    say(f"agent {name} has {'one key' if len(shown) == 1 else f'{len(shown)} keys'} now: {', '.join(shown)}")
    next_step(command_line(ctx, "agent", "show", name))


def say_code(ctx: typer.Context, made: Code) -> None:
    """The code is printed with the command that uses it; it is nowhere else, so that nobody finds it later."""
    say(f"code {made.text}, good once, until {local(made.expires_at)}")
    say("where the agent runs:")
    next_step(_command(ctx, made))


def _command(ctx: typer.Context, made: Code) -> str:
    return f"mcp-authz agent enrol {config_of(ctx).public_url} --agent {made.agent} --code {made.text}"


def _facts(made: Code, command: str) -> dict[str, Any]:
    return {
        "agent": made.agent,
        "code": made.text,
        "expires_at": timestamp(made.expires_at),
        "command": command,
    }
