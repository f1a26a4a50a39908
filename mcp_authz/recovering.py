"""Calls whose process died while they ran: every other process notices, and nobody waits for them in vain."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import NoReturn

import anyio

from mcp_authz import limits
from mcp_authz.errors import StoreError
from mcp_authz.model import HeldCall
from mcp_authz.seldom import trouble
from mcp_authz.store.calls_port import Begun
from mcp_authz.store.ports import Clock, Event, Store


async def recover(store: Store, clock: Clock) -> None:
    """What a process that is gone had begun is `unknown`, on record, and runs no more by itself.

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
            trouble.error(error, "whether calls of another process were left behind cannot be told: %s", error)


def _interrupted(clock: Clock, left: HeldCall | Begun) -> Event:
    """The outcome of a call that was begun; of a hold that was claimed without one, such as by a task."""
    call, hold = (left.id, left.id) if isinstance(left, HeldCall) else (left.call, left.hold)
    fields = {
        "outcome": "unknown",
        "actor": f"agent:{left.actor}",
        "tool": left.tool,
        "ended_by": "crash",
        "summary": "the gateway stopped while this call ran; nobody can say whether it ran, it is not run again",
    }
    return Event(kind="outcome", at=clock(), call=call, fields=fields if hold is None else fields | {"hold": hold})
