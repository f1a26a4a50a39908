"""What a gateway process says of itself in the log: that it started, with what, and that it stopped in order.

A process that was killed, or that lost its store, says no word of its end: of its start there is a record without the
other one.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from importlib.metadata import version
from typing import Final

import anyio

from mcp_authz.errors import StoreError
from mcp_authz.installation import Installation
from mcp_authz.observing import observed_servers
from mcp_authz.rules.canonical import digest_b64url
from mcp_authz.store.ports import Event

log = logging.getLogger(__name__)

_PATIENCE: Final = 5.0  # seconds: a gateway that is told to stop does not wait for a store that does not answer


def started(here: Installation, policy: str) -> Event:
    """The record of a start; `policy` is the policy's digest."""
    config = here.config
    observed = observed_servers(config)
    fields = {
        "policy": policy,
        "settings": digest_b64url(config.model_dump(mode="json")),
        "version": version("mcp-authz"),
        "instance": here.instance,
        "observing": list(observed),
        "summary": f"gateway started at {config.public_url} with policy {', '.join(config.policy)}"
        + (f"; only observing {', '.join(observed)}" if observed else ""),
    }
    return Event(kind="configuration", at=here.clock(), fields=fields)


class Leaving:
    """How many calls ran when a gateway was told to stop, and the record of that."""

    def __init__(self, here: Installation, running: Callable[[], int]) -> None:
        self._here = here
        self._count = running
        self._running = 0

    def begins(self) -> None:
        """From now on nothing new is taken; what runs now is what the record counts."""
        self._running = self._count()

    async def record(self) -> None:
        """The end is on record, if that is quick; a store that cannot be written keeps nobody from stopping."""
        config, n = self._here.config, self._running
        was = f"{n} call{'s'[: n != 1]} {'was' if n == 1 else 'were'} running" if n else "no call was running"
        fields = {
            "instance": self._here.instance,
            "running": n,
            "summary": f"gateway at {config.public_url} stopped; {was} when it was told to",
        }
        try:
            with anyio.CancelScope(shield=True), anyio.move_on_after(_PATIENCE):
                await self._here.store.append(Event(kind="configuration", at=self._here.clock(), fields=fields))
        except StoreError as error:
            log.error("that the gateway stopped is not on record: %s", error)
