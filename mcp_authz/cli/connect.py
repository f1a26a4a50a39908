"""`mcp-authz connect`: the stdio MCP server that a desktop client starts; it holds the agent's key and passes on."""

from __future__ import annotations

import os
import signal
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Annotated, Final

import anyio
import typer
from anyio.abc import TaskStatus

from mcp_authz import limits
from mcp_authz.cli.invocation import advising, asynchronous, named_config
from mcp_authz.cli.kept_key import kept_key
from mcp_authz.cli.kept_login import person_auth
from mcp_authz.client.agent_tokens import AgentTokens
from mcp_authz.client.bridge import Bridge
from mcp_authz.client.discovery import endpoint
from mcp_authz.client.key_files import load_key
from mcp_authz.client.known import Known, file_name
from mcp_authz.client.local import Local
from mcp_authz.client.login_tokens import LoginTokens
from mcp_authz.client.place import Elsewhere, Place, Reached
from mcp_authz.client.rotation import keep_fresh
from mcp_authz.client.stdio import Lines, Output
from mcp_authz.client.tokens import Purse
from mcp_authz.client.wire import Wire
from mcp_authz.config import find_config, load_config, user_data_dir
from mcp_authz.errors import ConfigError, InputError
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.signed_link import parse_chain, write_chain

_AT_LAST: Final = 2.0  # seconds from being told to end to the end

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
@asynchronous
async def connect(
    ctx: typer.Context,
    url: Annotated[
        str | None,
        typer.Argument(metavar="[URL]", help="The gateway. Else the local one, which is started if none runs."),
    ] = None,
    *,
    agent: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The agent that the client is. Else what `login URL` made it for you."),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", readable=False, help="Its private key. Else agents/NAME.pem in the data directory."
        ),
    ] = None,
    person: Annotated[
        str | None, typer.Option("--for", metavar="PERSON", help="Work only in sessions for this person.")
    ] = None,
    session: Annotated[str | None, typer.Option(metavar="ID", help="Work in this session.")] = None,
    chain: Annotated[
        Path | None,
        typer.Option(metavar="FILE", readable=False, help="Work in the delegation that this signed chain gives."),
    ] = None,
) -> None:
    """Be the MCP server of a client that speaks stdio, and pass everything on to the gateway."""
    if chain is not None and (person is not None or session is not None):
        raise InputError("a chain says for whom and in which session; leave out --for and --session")
    if agent is None and (key, person, session, chain) != (None, None, None, None):
        raise InputError("name the agent that these are of: --agent NAME")
    if agent is None and url is None:
        raise InputError("say as whom: --agent NAME, or the URL that you signed in to with `mcp-authz login URL`")
    place: Place = Local(_configured(ctx), load_config) if url is None else Elsewhere(endpoint(url))
    purse: Purse
    if agent is not None:
        purse = AgentTokens(
            place,
            agent,
            partial(_key, ctx, key, agent),
            person=None if person is None else f"user:{person}",
            session=session,
            chain=None if chain is None else partial(_chain, chain.absolute()),
            # A chain was given to one key, and a key in a file of somebody's choice is theirs to replace.
            fresh=partial(_fresh, ctx, agent) if key is None and chain is None else None,
        )
    else:
        purse = LoginTokens(person_auth(place.name), "mcp-authz", "login", place.name)
    whose = (person, session) if chain is None else (person, session, str(chain.absolute()))
    known = Known(user_data_dir() / "connect" / file_name(place.name, agent, *whose))
    wire = Wire(place, purse)
    bridge = Bridge(wire, known, Lines(sys.stdin.fileno()), Output(sys.stdout.fileno()))
    if sys.stdin.isatty():
        sys.stderr.write(
            "mcp-authz: this speaks MCP, not with people: a client starts it; `mcp-authz wrap` tells yours to\n"
        )
    async with anyio.create_task_group() as group:
        await group.start(_until_told, group.cancel_scope)
        try:
            await bridge.run()
        except* (BrokenPipeError, anyio.BrokenResourceError):  # the client is gone
            pass
        finally:
            await wire.aclose()
        group.cancel_scope.cancel()


async def _until_told(scope: anyio.CancelScope, *, task_status: TaskStatus[None]) -> None:
    """Ctrl-C and SIGTERM end everything, soon: also when a client takes nothing any more, and a write never ends."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for _ in signals:
            end = threading.Timer(_AT_LAST, os._exit, (0,))
            end.daemon = True
            end.start()
            scope.cancel()
            return


def _configured(ctx: typer.Context) -> Path:
    """The configuration file that every command uses, by its absolute path; what is in it is read when it is needed.

    Raises:
        ConfigError: there is none.
    """
    with advising(ConfigError, "`mcp-authz init` writes a first one"):
        path = find_config(named_config(ctx)).absolute()
        if not path.exists():
            raise ConfigError(f"configuration file `{path}` does not exist")
    return path


def _key(ctx: typer.Context, named: Path | None, agent: str) -> PrivateKey:
    """The agent's key, read each time it is needed: it may be there later, or be another."""
    return load_key(named.absolute() if named is not None else kept_key(ctx, agent).path)


async def _fresh(ctx: typer.Context, agent: str, reached: Reached) -> None:
    """The key that we keep is not older than the configuration wants it, as far as that can be had now."""
    kept = kept_key(ctx, agent)
    await keep_fresh(reached.http, reached.door, agent, kept.path, older_than=kept.rotate_after)


def _chain(path: Path) -> str:
    """The text of a signed chain, read each time it is redeemed: it may be another by then.

    Raises:
        ConfigError: the file cannot be read.
        SignatureRefused: it holds no chain.
    """
    try:
        with path.open("rb") as file:
            text = file.read(limits.CHAIN_BYTES + 1).decode("utf-8", "replace")
    except OSError as error:
        raise ConfigError(f"chain file `{path}` cannot be read: {error.strerror}") from None
    return write_chain(parse_chain(text))
