"""`mcp-authz init`: a first configuration, and the person who sits here."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer

from mcp_authz import limits
from mcp_authz.accounts import Accounts, invitation_link
from mcp_authz.agents import People, person_name
from mcp_authz.cli.invocation import asynchronous, command_line, login_name, named_config, operator
from mcp_authz.cli.output import next_step, say
from mcp_authz.config import Config, load_config, user_config_dir
from mcp_authz.errors import ConfigError
from mcp_authz.installation import Installation, open_installation
from mcp_authz.new_file import write_new
from mcp_authz.principals import Person, PersonName

app = typer.Typer(rich_markup_mode=None, add_completion=False)

_NO_NAME: Final = re.compile(r"[^a-z0-9._-]+")

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

# Programs that sign in by themselves, at the URL above with /mcp: Claude, VS Code, Cursor, an SDK.
# [clients]
# dynamic_registration = true               # for those that publish no document of their own, such as Cursor
#
# What people read where they agree to what such a program may do.
# [scopes]
# "files:read" = "read your files"

# Who sees everything on the page, and may stop anything there.
[administration]
admins = ["user:YOU"]

# Who must agree before a destructive call runs.
[approval.destructive]
by = ["subject"]                            # subject, owner, group:NAME, user:NAME
assurance = "client"                        # or signed-in, or passkey: not the client's own prompt
expires_minutes = 15
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Initialised:
    """An installation that can be used, and the person who sits here."""

    config: Config
    person: PersonName
    link: str | None  # where the person registers a first passkey; None when they have one, or may not
    written: bool  # whether the configuration was made just now


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
    path = config or named_config(ctx) or default_path()
    done = await initialise(path)
    say(f"configuration {path} {'is written; add your tool servers to it' if done.written else 'is there already'}")
    say(f"store and keys are in {done.config.data}")
    say(f"you are {done.person}: agents act for you, and you approve what they ask for")
    if done.link is not None:
        say()
        minutes = int(limits.INVITATION.total_seconds() // 60)
        say(f"register your passkey, while a gateway runs, within {minutes} minutes:")
        say(f"  {done.link}")
        say("a later `mcp-authz init` prints a new link")
        say()
    words = ("agent", "add", "AGENT", "--owner", done.person, "--new-key", "AGENT.pem", "--ceiling", "SCOPES")
    named = ["--config", str(path)] if config is not None else []
    say(f"for the MCP servers of a desktop client: {command_line(ctx, *named, 'wrap')}")
    say(f"for a client that signs in by itself: give it {done.config.resource}, while a gateway runs")
    next_step(command_line(ctx, *named, *words))


def default_path() -> Path:
    """Where a configuration is looked for when none was named on the command line."""
    named = os.environ.get("MCP_AUTHZ_CONFIG")
    return Path(named) if named else user_config_dir() / "gateway.toml"


async def initialise(path: Path) -> Initialised:
    """Configuration, keys and store are there, and the person of this login is registered; done again, nothing changes.

    Raises:
        ConfigError: the file cannot be written, or what is there cannot be used.
        StoreError: the store cannot be used.
    """
    written = _write(path)
    config = load_config(path)
    async with open_installation(config) as here:
        person = await _register(here)
        link = await fresh_link(here, person)
    return Initialised(config=config, person=person.name, link=link, written=written)


async def fresh_link(here: Installation, person: Person) -> str | None:
    """A one-time link for a first passkey, earlier links are over; None for whoever has one already, or is revoked."""
    accounts = Accounts(here.store, here.clock)
    has_one = any(passkey.status == "active" for passkey in await accounts.passkeys_of(person.name))
    if has_one or person.status != "active":
        return None
    return invitation_link(here.config.public_url, await accounts.invite(person.name, by=operator()))


def _write(path: Path) -> bool:
    """Whether the file was made, for this user only; one that is there is left as it is."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_new(path, STARTER.replace("user:YOU", f"user:{name_of(login_name())}"))
    except FileExistsError:
        return False
    except OSError as error:
        raise ConfigError(f"`{path}` cannot be written: {error.strerror}; name another file with --config") from None
    return True


async def _register(here: Installation) -> Person:
    """The person of this login, registered now or before."""
    name = name_of(login_name())
    known = await here.store.person(name)
    return known if known is not None else await People(here.store, here.clock).add(name, by=operator())


def name_of(login: str) -> PersonName:
    """The login as the name of a person: `Jane Doe` is `jane-doe`."""
    return person_name(_NO_NAME.sub("-", login.lower()).strip("-._")[: limits.NAME] or "me")
