"""`mcp-authz init`: a first configuration, and the person who sits here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from mcp_authz.agents import People, person_name
from mcp_authz.cli.invocation import asynchronous, command_line, login_name, named_config, operator
from mcp_authz.cli.output import next_step, say
from mcp_authz.config import Config, load_config, user_config_dir
from mcp_authz.errors import ConfigError, InputError
from mcp_authz.installation import open_installation
from mcp_authz.model import PersonName

app = typer.Typer(rich_markup_mode=None, add_completion=False)

STARTER = """\
# mcp-authz: one gateway in front of your MCP tool servers.
# Every key has a default; an unknown key is an error. Relative paths start from this file's folder.

public_url = "http://localhost:8642"        # where clients reach the gateway; MCP clients connect to /mcp below it
policy = "builtin:scopes_and_hazard"        # or a list of Cedar files
# data_dir = "data"                         # store and keys; without it, your data directory

# Sets of scopes with a name: `mcp-authz agent add NAME --role reader`
[roles]
reader = ["files:read"]

# One table for each tool server: a program to start, or the URL of one that runs.
# What nothing classifies counts as destructive and waits for a person.
#
# [servers.files]
# command = ["npx", "-y", "@modelcontextprotocol/server-filesystem", "/home/you/project"]
# environment = "local"
# preset = "filesystem"                     # which of its tools read, write or destroy, and the scopes they take
# env = { PATH = "/usr/local/bin:/usr/bin:/bin" }   # a tool server gets nothing that is not written here
#
# [servers.tickets]
# url = "https://tickets.example.com/mcp"
# header_files = { Authorization = "tickets.token" }   # the agent never sees it
#
# [servers.tickets.tools.close_ticket]
# hazard = "write"                          # read, write or destructive
# scopes = ["tickets:close"]

# Who must agree before a destructive call runs.
[approval.destructive]
by = ["subject"]                            # subject, owner, group:NAME, user:NAME
assurance = "client"                        # or signed-in: a passphrase at a terminal (`mcp-authz user key`)
expires_minutes = 15
"""


@app.command()
@asynchronous
async def init(
    ctx: typer.Context,
    config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", readable=False, help="Where to write it. Else your configuration directory."),
    ] = None,
) -> None:
    """Write a first configuration, unless there is one, and register you as a person."""
    path = config or named_config(ctx) or _default()
    written = _write(path)
    say(f"configuration {path} {'is written; add your tool servers to it' if written else 'is there already'}")
    loaded = load_config(path)
    person = await _register(loaded)
    say(f"store and keys are in {loaded.data}")
    words = ("agent", "add", "AGENT", "--owner", person or "PERSON", "--new-key", "AGENT.pem", "--ceiling", "SCOPES")
    named = ["--config", str(path)] if config is not None else []
    next_step(command_line(ctx, *named, *words) if person else command_line(ctx, *named, "user", "add", "NAME"))


def _default() -> Path:
    named = os.environ.get("MCP_AUTHZ_CONFIG")
    return Path(named) if named else user_config_dir() / "gateway.toml"


def _write(path: Path) -> bool:
    """Whether the file was made; one that is there is left as it is."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(STARTER)
    except FileExistsError:
        return False
    except OSError as error:
        raise ConfigError(f"`{path}` cannot be written: {error.strerror}; name another file with --config") from None
    return True


async def _register(config: Config) -> PersonName | None:
    """The person of this login, registered; None when the login cannot be a person's name."""
    try:
        name = person_name(login_name())
    except InputError:
        return None
    async with open_installation(config) as here:
        if await here.store.person(name) is None:
            await People(here.store, here.clock).add(name, by=operator())
            say(f"person {name} is registered")
    return name
