"""Where a gateway listens: one gateway on a data directory, its port, and the Unix socket for its own user.

Further processes of the same gateway may run beside the one that holds the directory, each on a port alone.
"""

from __future__ import annotations

import os
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from mcp_authz import unix_socket
from mcp_authz.config import Config
from mcp_authz.errors import ConfigError, Conflict
from mcp_authz.locking import is_locked, locked, note_of

_PATIENCE = 1.0  # seconds: somebody who looks whether a gateway runs lets go of the lock by then
_DRAINED = 10.0  # seconds: a gateway that was told to stop lets go of it by then
_UNATTENDED = re.compile(r"\(process (\d+), for clients\)")


@contextmanager
def the_only_one(config: Config, *, unattended: bool = False) -> Iterator[None]:
    """No other gateway works on this data directory while the body runs.

    An unattended one is started by clients and ends for want of use; it waits for one that is just ending.

    Raises:
        ConfigError: one does; the message says where.
    """
    try:
        config.data.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"data directory `{config.data}` cannot be used: {error.strerror}; set `data_dir`") from None
    with ExitStack() as stack:
        until = time.monotonic() + (_DRAINED if unattended else _PATIENCE)
        note = f"at {config.resource} (process {os.getpid()}{', for clients' if unattended else ''})"
        while True:
            try:
                stack.enter_context(locked(config.lock, note))
                break
            except Conflict:
                if time.monotonic() > until:
                    raise ConfigError(_runs_already(config)) from None
                time.sleep(0.05)
        yield


def stop_unattended(config: Config) -> bool:
    """Whether a gateway ran that clients had started: it is told to end, and their next call starts another."""
    found = _UNATTENDED.search(note_of(config.lock)) if is_locked(config.lock) else None
    if found is None:
        return False
    with suppress(ProcessLookupError):
        os.kill(int(found[1]), signal.SIGTERM)
    return True


@contextmanager
def listeners(config: Config) -> Iterator[list[socket.socket]]:
    """The port and the Unix socket are ours while the body runs; afterwards both are gone.

    Raises:
        ConfigError: one of them cannot be had.
    """
    with _port(config, config.listen_port) as port, unix_socket.listen(config.socket) as local:
        try:
            yield [port, local]
        finally:
            with suppress(FileNotFoundError):
                config.socket.unlink()


@contextmanager
def beside(config: Config, port: int) -> Iterator[list[socket.socket]]:
    """This port is ours while the body runs, whoever else works on the data directory.

    Raises:
        ConfigError: it cannot be had.
    """
    with _port(config, port) as listener:
        yield [listener]


def _port(config: Config, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        return socket.create_server((config.host, port), family=family, backlog=unix_socket.BACKLOG)
    except OSError as error:
        why = os.strerror(error.errno or 0)
        raise ConfigError(
            f"cannot listen on {config.host}:{port} ({why}); is a gateway running already? "
            + ("set `host` and `port`" if port == config.listen_port else "name another port")
        ) from None


def _runs_already(config: Config) -> str:
    where = note_of(config.lock)
    return (
        f"a gateway runs here already{f', {where}' if where else ''}; stop it first, or set another `data_dir` "
        "(`mcp-authz serve --beside PORT` runs one more process of it)"
    )
