"""The command line: it translates words into calls of agents, sessions, approvals and store, and answers into text."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from functools import partial
from importlib import import_module
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from typer.core import TyperGroup

from mcp_authz.errors import AuthzError

_INTERRUPTED: Final = 130  # the exit code after Ctrl-C, as shells have it
COMMANDS: Final = {
    "init": "Write a first configuration and register yourself.",
    "wrap": "Put the gateway between a client and its MCP servers.",
    "serve": "Run the gateway until Ctrl-C.",
    "connect": "Be the MCP server of a desktop client, before the gateway.",
    "login": "Sign in at a gateway, and let your own programs act for you.",
    "logout": "End what you agreed to with `login`.",
    "status": "Say what runs, what waits for a person, what happened last.",
    "doctor": "Look at every part, and say what to do where something is wrong.",
    "user": "People: who agents act for, who owns them, who approves.",
    "agent": "Agents: enrol them, look at them, rotate their keys.",
    "client": "Clients: the software that people sign in to.",
    "grant": "Grants: what a person lets an agent do for them.",
    "session": "Sessions: one use of a grant for one task.",
    "delegate": "Give an agent some of what another has, or look at a chain.",
    "holds": "Held calls: look at them, approve or deny them.",
    "webhooks": "Webhooks: who is told elsewhere that a call waits.",
    "tools": "Tools: what they are taken for, and changes to accept.",
    "policy": "Policies: test them, look for mistakes, see why a call is decided.",
    "keys": "The gateway's own signing keys: look at them, rotate them.",
    "audit": "The audit log: read it, follow it, export it, verify it.",
    "revoke": "Stop something, and all that descends from it.",
    "backup": "Copy the store into one file, or verify such a file.",
    "restore": "Put a backup in the store's place; what was open is void.",
    "stop-all": "Forward no calls any more, until `start-all`.",
    "start-all": "Forward calls again after `stop-all`.",
}


class Unloaded(TyperGroup):
    """A command of which only name and help are known yet."""


class Commands(TyperGroup):
    """The commands, each loaded when it is used: `--help` needs none of them."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        own = self.commands
        self.commands = {name: own.get(name) or Unloaded(name=name, help=help_) for name, help_ in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that `args` begin with, with everything that it has."""
        name, found, rest = super().resolve_command(ctx, args)
        return name, load(name) if name is not None and isinstance(found, Unloaded) else found, rest

    def invoke(self, ctx: Any) -> Any:
        """What the command returns; what is wrong with a value of its options is said without whose error it was."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")
            raise


def load(name: str) -> Any:
    """Return one of `COMMANDS` from its own module."""
    module = name.replace("-", "_")
    from mcp_authz.cli.reach import confined  # here: `--help` needs none of it

    return confined(typer.main.get_command(import_module(f"mcp_authz.cli.{module}").app), name)


app = typer.Typer(cls=Commands, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"mcp-authz {installed_version('mcp-authz')}")
        raise typer.Exit


@app.callback()
def options(
    config: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            readable=False,  # reading it says better what is wrong
            help="The configuration to use. Else $MCP_AUTHZ_CONFIG, else gateway.toml in your configuration directory.",
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Administer the gateway there, as whom you signed in with `login`, not the one here."
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """An authorization gateway for MCP: every tool call identified, checked, held when it must be, and recorded."""


@app.command(help=COMMANDS["serve"])
def serve(
    ctx: typer.Context,
    idle_minutes: Annotated[
        float | None, typer.Option(metavar="N", min=0, help="End when nobody has used it for so many minutes.")
    ] = None,
    beside: Annotated[
        int | None,
        typer.Option(metavar="PORT", min=1, max=65535, help="One more process of the gateway that runs, on this port."),
    ] = None,
) -> None:
    """The gateway has run until it was told to stop."""
    import anyio

    from mcp_authz.cli.invocation import config_of
    from mcp_authz.cli.serve import serve as run

    idle = None if idle_minutes is None else timedelta(minutes=idle_minutes)
    with suppress(KeyboardInterrupt):
        anyio.run(partial(run, config_of(ctx), idle=idle, port_beside=beside), backend_options={"use_uvloop": True})


def main() -> None:
    """The command line has run; whatever is known to go wrong is one sentence on stderr and exit code 1."""
    try:
        try:
            app(prog_name="mcp-authz")
        finally:
            sys.stdout.flush()
    except SystemExit as end:
        if end.code == _INTERRUPTED:
            _tell("interrupted before it was done")
        raise
    except BrokenPipeError:  # whoever read our output has had enough of it
        _forget_output()
    except OSError as error:
        _forget_output()
        _tell(f"{error.strerror}{f': {error.filename}' if error.filename else ''}")
    except AuthzError as error:
        _tell("; ".join([str(error), *getattr(error, "__notes__", ())]))
    except ExceptionGroup as group:  # what went wrong while other tasks of a gateway ran
        known, unknown = group.split(AuthzError)
        if known is None or unknown is not None:
            raise
        _tell("; ".join(str(error) for error in _each(known)))
    sys.exit(1)


def _each(group: BaseExceptionGroup[AuthzError]) -> Iterator[AuthzError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _each(error)
        else:
            yield error


def _tell(text: str) -> None:
    from mcp_authz.rules.display import visible

    sys.stderr.write(f"mcp-authz: {visible(' '.join(text.splitlines()))}\n")


def _forget_output() -> None:
    """What could not be written is not tried again when the process ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
