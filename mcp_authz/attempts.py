"""Attempts that are refused go on record; a flood of them does as a number, so that nobody fills the log by failing."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime

from mcp_authz import limits


@dataclass(slots=True, kw_only=True)
class _Left:
    records: float
    at: datetime
    untold: int = 0


class Attempts:
    """How many records each name may still cause by failing, and how many of its attempts have none yet."""

    def __init__(self, *, burst: float = limits.ATTEMPTS_BURST, per_second: float = limits.ATTEMPTS_PER_SECOND) -> None:
        self._burst = burst
        self._per_second = per_second
        self._left: OrderedDict[str, _Left] = OrderedDict()

    def count(self, name: str, now: datetime) -> int | None:
        """One more attempt: how many before it had no record, which its own says; None: it has none either."""
        left = self._left.setdefault(name, _Left(records=self._burst, at=now))
        self._left.move_to_end(name)
        while len(self._left) > limits.ATTEMPTS_OF:
            self._left.popitem(last=False)
        passed = max(0.0, (now - left.at).total_seconds())
        left.records, left.at = min(self._burst, left.records + passed * self._per_second), now
        if left.records < 1.0:
            left.untold += 1
            return None
        left.records -= 1.0
        untold, left.untold = left.untold, 0
        return untold
