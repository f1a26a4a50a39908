"""Checkpoints as the configuration has them: where they go, how often they are made, and the keys that they name."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio

from mcp_authz.checkpoint_sinks import FileSink, StandardOutputSink, UrlSink
from mcp_authz.checkpoints import Checkpoints, Sink
from mcp_authz.config import Config
from mcp_authz.posting import Poster
from mcp_authz.store.ports import Store
from mcp_authz.wiring import Running

FILE: Final = "checkpoints.txt"  # in the data directory
_LAST: Final = 5.0  # seconds for the last one: a gateway that is told to stop does not wait for a slow receiver


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
    """Checkpoints are made while the body runs, and one when it ends."""
    config = running.installation.config
    every = config.audit.checkpoint_every
    if every is None:
        yield
        return
    checkpoints = Checkpoints(
        store=running.installation.store,
        clock=running.installation.clock,
        issuer=config.public_url,
        signing=lambda: running.checkpoint_keys.signing,
        sinks=sinks_of(config),
    )
    async with anyio.create_task_group() as group:
        group.start_soon(checkpoints.run, every)
        try:
            yield
        finally:
            group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True), anyio.move_on_after(_LAST):
                await checkpoints.write_if_possible()


async def checkpoint_keys(store: Store) -> dict[str, Any]:
    """The public keys that the log names as those of its checkpoints, as a JWK Set (RFC 7517 section 5)."""
    found: dict[str, dict[str, Any]] = {}
    after = 0
    while records := await store.records(after=after, kind="checkpoint"):
        for record in records:
            after = record.sequence
            if "jwk" in record.event.fields:
                kid = str(record.event.fields["kid"])
                found[kid] = {**record.event.fields["jwk"], "kid": kid, "use": "sig", "alg": "EdDSA"}
    return {"keys": list(found.values())}
