"""Checkpoints and retention as the configuration has them, by exactly one of the processes that share a store."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import anyio

from mcp_authz.checkpoint_delivery import Sink
from mcp_authz.checkpoint_sinks import FileSink, StandardOutputSink, UrlSink
from mcp_authz.checkpoints import Checkpoints
from mcp_authz.config import Config
from mcp_authz.daily_pruning import keep_pruning
from mcp_authz.errors import ConfigError, Conflict
from mcp_authz.locking import locked
from mcp_authz.posting import Poster
from mcp_authz.store.copying import end_of
from mcp_authz.wiring import Running

log = logging.getLogger(__name__)

FILE: Final = "checkpoints.txt"  # in the data directory
LOCK: Final = "checkpoints.lock"  # whoever holds it makes them: they are numbered
_LAST: Final = 5.0  # seconds for the last one: a gateway that is told to stop does not wait for a slow receiver
_TURN: Final = 2.0  # seconds between two looks whether the process that makes them is still there


def sinks_of(config: Config) -> tuple[Sink, ...]:
    """The places that the configuration names."""
    return tuple(_sink(config, place) for place in config.audit.checkpoints)


def _sink(config: Config, place: str) -> Sink:
    if place == "stdout":
        return StandardOutputSink()
    if place.startswith("https://"):
        return UrlSink(url=place, poster=Poster())
    return FileSink(path=config.data / FILE if place == "file" else config.data / place.removeprefix("file:"))


@asynccontextmanager
async def checkpointing(running: Running) -> AsyncIterator[None]:
    """Checkpoints are made while the body runs, and one when it ends, unless another process makes them.

    The process that makes them also prunes the log, once a day. When it ends, in whatever way, another one goes on.
    """
    checkpoints = _checkpoints(running)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(_take_turns, running, checkpoints)
            try:
                yield
            finally:
                group.cancel_scope.cancel()
    finally:
        if checkpoints is not None:
            lock = locked(running.installation.config.data / LOCK, _note())  # where it is taken, another one goes on
            with anyio.CancelScope(shield=True), anyio.move_on_after(_LAST), suppress(Conflict, ConfigError), lock:
                await checkpoints.write_if_possible()


def _checkpoints(running: Running) -> Checkpoints | None:
    config = running.installation.config
    if config.audit.checkpoint_every is None:
        return None
    return Checkpoints(
        store=running.installation.store,
        clock=running.installation.clock,
        issuer=config.public_url,
        signing=lambda: running.checkpoint_keys.signing,
        sinks=sinks_of(config),
        epoch=end_of(config.data / "store.db").epoch,
    )


async def _take_turns(running: Running, checkpoints: Checkpoints | None) -> None:
    config = running.installation.config
    while True:
        try:
            with locked(config.data / LOCK, _note()):
                async with anyio.create_task_group() as group:
                    if checkpoints is not None and config.audit.checkpoint_every is not None:
                        group.start_soon(checkpoints.run, config.audit.checkpoint_every)
                    if config.audit.kept is not None:
                        group.start_soon(keep_pruning, running.installation, config.audit.kept)
                    await anyio.sleep_forever()
        except Conflict:
            pass  # another process makes them
        except ConfigError as error:
            log.error("no checkpoints are made here: %s", error)
        await anyio.sleep(_TURN)


def _note() -> str:
    return f"process {os.getpid()}"
