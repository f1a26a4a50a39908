"""When a server that does not answer is asked again: after some failures not at all, then by one question at a time.

Each failure of that one question doubles the pause, up to a bound. Time is an argument: seconds that only go on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final, NewType

from mcp_authz import limits

Period = NewType("Period", int)
"""The stretch between two openings in which a question began; what it learns counts for that stretch only."""

_FIRST: Final = limits.PDP_PAUSE_FIRST.total_seconds()
_LONGEST: Final = limits.PDP_PAUSE_LONGEST.total_seconds()


@dataclass(frozen=True, slots=True, kw_only=True)
class Circuit:
    """Whether a server is asked: closed while it answers, open for `pause` seconds, then half open for one question."""

    period: Period = Period(0)
    failures: int = 0  # in a row
    pause: float = 0.0  # how long it is open this time; 0 while it is closed
    again_at: float = 0.0
    probing: bool = False  # the one question of a half-open circuit is under way

    @property
    def is_open(self) -> bool:
        """Whether the server counts as away, the one question that may be under way included."""
        return self.pause > 0

    def remaining(self, now: float) -> timedelta:
        """How long nothing will be asked."""
        return timedelta(seconds=max(0.0, self.again_at - now) if self.is_open else 0.0)

    def admits(self, now: float) -> bool:
        """Whether a question may be asked now."""
        return not self.is_open or (now >= self.again_at and not self.probing)

    def asked(self) -> Circuit:
        """What it is once an admitted question is under way."""
        return replace(self, probing=self.is_open)

    def answered(self, period: Period) -> Circuit:
        """What it is after an answer to a question of `period`; one from before it opened changes nothing."""
        return self if period != self.period else Circuit(period=period)

    def failed(self, period: Period, now: float) -> Circuit:
        """What it is after a failure of a question of `period`."""
        if period != self.period:
            return self
        failures = self.failures + 1
        if not self.is_open and failures < limits.PDP_FAILURES:
            return replace(self, failures=failures)
        pause = min(self.pause * 2, _LONGEST) if self.is_open else _FIRST
        return Circuit(period=Period(period + 1), failures=failures, pause=pause, again_at=now + pause)

    def abandoned(self, period: Period) -> Circuit:
        """What it is after nobody waited for the answer: nothing is known, and another question may find out."""
        return self if period != self.period else replace(self, probing=False)
