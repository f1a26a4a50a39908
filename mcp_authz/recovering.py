"""Held calls whose process died while they ran: every other process notices, and nobody waits for them in vain."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial
from typing import NoReturn

import anyio

from mcp_authz import limits
from mcp_authz.errors import StoreError
from mcp_authz.model import HeldCall
from mcp_authz.store.ports import Clock, Event, Store

log = logging.getLogger(__name__)


async def recover(store: Store, clock: Clock) -> None:
    """What a process that is gone had claimed is `unknown`, on record, and runs no more by itself.

    Raises:
        StoreError: the store cannot be read or written.
    """
    await store.recover(partial(_interrupted, clock))


async def keep_recovering(store: Store, clock: Clock, give_up: Callable[[], Awaitable[None]]) -> NoReturn:
    """Recover within seconds of the end of any process, and `give_up` what waits in vain in this one; without end.

    A process that lives is asked nothing.
    """
    while True:
        await anyio.sleep(limits.RECOVERED.total_seconds())
        try:
            await recover(store, clock)
            await give_up()
        except StoreError as error:
            log.error("whether calls of another process were left behind cannot be told: %s", error)


def _interrupted(clock: Clock, held: HeldCall) -> Event:
    fields = {
        "outcome": "unknown",
        "actor": f"agent:{held.actor}",
        "tool": held.tool,
        "hold": held.id,
        "summary": "the gateway stopped while this call ran; nobody can say whether it ran, it is not run again",
    }
    return Event(kind="outcome", at=clock(), call=held.id, fields=fields)
