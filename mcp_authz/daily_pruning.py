"""The log of a gateway that runs is pruned once a day, by a clock that is believed.

One wrong reading of the clock must not cost what cannot be brought back. So it is believed when the log has lived by it
for a day, or this process has; until then nothing is pruned. One that is wrong by less than a week is not found out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

import anyio

from mcp_authz.audit_reading import newest
from mcp_authz.errors import AuthzError
from mcp_authz.installation import Installation
from mcp_authz.retention import Prunable, archive_name, prunable, prune, remove_pruned
from mcp_authz.rules.audit_filter import Filter
from mcp_authz.store.ports import Log

log = logging.getLogger(__name__)

_DAY: Final = timedelta(days=1)
_SLACK: Final = timedelta(days=7)  # a gateway that did nothing for longer waits a day; a machine that slept does not

Reading = tuple[datetime, float]  # of the clock, and of one that nobody sets, in seconds


async def keep_pruning(here: Installation, kept: timedelta, elapsed: Callable[[], float] = time.monotonic) -> None:
    """Once a day what is older than `kept` is pruned; without end. Why something is not is in the process's log."""
    last: Reading | None = None
    while True:
        now = here.clock(), elapsed()
        try:
            if is_steady(last, now) or await is_lived_by(here.store, now[0]):
                await prune_once(here, kept, now[0])
            elif isinstance(await prunable(here.store, kept, now[0]), Prunable):
                log.warning(
                    "the log is not pruned today: nothing on record bears out yet that it is %s; "
                    "once this gateway has run for a day, it is pruned",
                    now[0].date(),
                )
        except AuthzError as error:
            log.error("the log was not pruned: %s", error)
        last = now
        await anyio.sleep(_DAY.total_seconds())


async def prune_once(here: Installation, kept: timedelta, now: datetime) -> None:
    """What is older than `kept` is archived, where the configuration says so, and gone, as far as checkpoints go.

    Raises:
        AuthzError: it is not; the message says why.
    """
    await remove_pruned(here.store)  # what a process that was killed has left
    what = await prunable(here.store, kept, now)
    if isinstance(what, Prunable):
        archive = None if here.config.archive is None else here.config.archive / archive_name(what)
        path = here.config.data / "store.db"
        await prune(here.store, here.clock, what, path=path, by="gateway", archive=archive)
        await remove_pruned(here.store)


async def is_lived_by(log: Log, now: datetime) -> bool:
    """Whether the log has a checkpoint that is a day old by this clock, and not much older."""
    a_day_old = Filter(kind="checkpoint", since=now - _DAY - _SLACK, until=now - _DAY)
    return bool(await newest(log, a_day_old, 1))


def is_steady(last: Reading | None, now: Reading) -> bool:
    """Whether the clock went on since the last turn as time did."""
    if last is None:
        return False
    return abs((now[0] - last[0]) - timedelta(seconds=now[1] - last[1])) <= _SLACK
