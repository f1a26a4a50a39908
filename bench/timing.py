"""How long one step takes, by itself, one after the other."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

BATCHES: Final = 9


async def timed(step: Callable[[], Awaitable[Any]], calls: int) -> float:
    """Microseconds of one run, the median of some batches."""
    each = max(1, calls // BATCHES)
    taken = []
    for _ in range(BATCHES):
        began = time.perf_counter()
        for _ in range(each):
            await step()
        taken.append((time.perf_counter() - began) / each * 1e6)
    return statistics.median(taken)
