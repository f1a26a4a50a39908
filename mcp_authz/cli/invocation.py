"""What every command starts from: the configuration that was named, the installation, and who gives the command."""

from __future__ import annotations

import asyncio
import os
import pwd
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec

import anyio
import typer

from mcp_authz.config import Config, find_config, load_config
from mcp_authz.errors import AuthzError, ConfigError

if TYPE_CHECKING:
    from mcp_authz.installation import Installation

P = ParamSpec("P")


def asynchronous(command: Callable[P, Awaitable[None]]) -> Callable[P, None]:
    """Return the command as typer wants it: called, it runs to its end."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        anyio.run(partial(command, *args, **kwargs))

    return run


def until_interrupted(command: Callable[P, None]) -> Callable[P, None]:
    """Return a command that has no end of its own: Ctrl-C is how it ends well."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        with suppress(KeyboardInterrupt):
            command(*args, **kwargs)

    return run


def require_uninterrupted() -> None:
    """Return only where nobody pressed Ctrl-C: work that never waits has to ask, for asyncio cancels only what waits.

    Raises:
        KeyboardInterrupt: somebody did.
    """
    with suppress(RuntimeError):  # no loop runs in this thread
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            raise KeyboardInterrupt


def named_config(ctx: typer.Context) -> Path | None:
    """What `--config` said, before the command or after it."""
    named = ctx.find_root().params.get("config")
    return None if named is None else Path(named)


def named_gateway(ctx: typer.Context) -> str | None:
    """What `--at` said: the gateway elsewhere that the command is for; None for the installation here."""
    named = ctx.find_root().params.get("at")
    return None if named is None else str(named)


def config_of(ctx: typer.Context) -> Config:
    """The configuration of this command.

    Raises:
        ConfigError: there is none, or it cannot be used.
    """
    if named_gateway(ctx) is not None:
        raise ConfigError(f"`{ctx.command_path}` works on the machine of the gateway alone; leave out --at")
    with advising(ConfigError, "`mcp-authz init` writes a first one"):
        path = find_config(named_config(ctx))
    return load_config(path)


@asynccontextmanager
async def installation(ctx: typer.Context) -> AsyncIterator[Installation]:
    """The installation of this command's configuration is open.

    Raises:
        ConfigError, StoreError: it cannot be.
    """
    from mcp_authz.installation import open_installation  # here: `connect` starts without a store

    async with open_installation(config_of(ctx)) as opened:
        yield opened


def login_name() -> str:
    """The operating system's name for who runs this; the environment has no say in it."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return f"uid-{os.getuid()}"


def operator() -> str:
    """The principal that the audit log names for what this command changes."""
    return f"user:{login_name()}"


def command_line(ctx: typer.Context, *words: str) -> str:
    """A command as it can be pasted into this shell, with the configuration that was named for this one."""
    named, there = named_config(ctx), named_gateway(ctx)
    where = ["--at", there] if there is not None else [] if named is None else ["--config", str(named)]
    return shlex.join(["mcp-authz", *where, *words])


@contextmanager
def advising(kind: type[AuthzError], advice: str) -> Iterator[None]:
    """An error of this kind inside is said together with `advice`."""
    try:
        yield
    except kind as error:
        error.add_note(advice)
        raise
