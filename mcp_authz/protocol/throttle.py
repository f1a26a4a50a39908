"""Sources that nobody has identified yet: how many requests they may make, and how often they were refused."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Network, ip_address
from typing import Final

from mcp_authz import limits

_MANY: Final = "many sources"


class Throttle:
    """A token bucket for each source; the oldest source is forgotten when there are too many."""

    def __init__(self, *, burst: float = limits.SOURCE_BURST, per_second: float = limits.SOURCE_PER_SECOND) -> None:
        self._burst = burst
        self._per_second = per_second
        self._sources: OrderedDict[str, tuple[float, float]] = OrderedDict()  # tokens left, and when that was true

    def allows(self, source: str, now: float) -> bool:
        """Whether this source may still make a request at `now` (monotonic seconds): it has not spent its failures."""
        return self._left(source, now) >= 1.0

    def charge(self, source: str, now: float) -> None:
        """One more request of this source was refused before its sender was known."""
        self._sources[source] = (max(0.0, self._left(source, now) - 1.0), now)
        self._sources.move_to_end(source)
        while len(self._sources) > limits.SOURCES:
            self._sources.popitem(last=False)

    def _left(self, source: str, now: float) -> float:
        left, then = self._sources.get(source, (self._burst, now))
        return min(self._burst, left + (now - then) * self._per_second)


class Refusals:
    """Refusals before identity, counted by reason and source; a bounded table, emptied into the log once a minute."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str]] = Counter()

    def count(self, reason: str, source: str) -> None:
        """One more; when the table is full, what is new in it is counted together."""
        self._add(reason, source, 1)

    def take(self) -> list[tuple[str, str, int]]:
        """What was counted since the last time, as (reason, source, count)."""
        taken = [(reason, source, count) for (reason, source), count in sorted(self._counts.items())]
        self._counts.clear()
        return taken

    def put_back(self, taken: Iterable[tuple[str, str, int]]) -> None:
        """What was taken and could not be recorded is counted still, within the same bound."""
        for reason, source, count in taken:
            self._add(reason, source, count)

    def _add(self, reason: str, source: str, count: int) -> None:
        key = (reason, source)
        if key not in self._counts and len(self._counts) >= limits.REFUSAL_KINDS:
            key = ("other", _MANY)
        self._counts[key] += count


def summed_up(counts: Sequence[tuple[str, str, int]]) -> list[tuple[str, str, int]]:
    """The same with so many sources named as are recorded in one minute, those refused most; the rest by reason."""
    most = sorted(counts, key=lambda it: it[2], reverse=True)
    rest: Counter[str] = Counter()
    for reason, _, count in most[limits.REFUSALS_RECORDED :]:
        rest[reason] += count
    return sorted(most[: limits.REFUSALS_RECORDED]) + [(reason, _MANY, count) for reason, count in sorted(rest.items())]


@lru_cache(maxsize=1024)
def source(address: str) -> str:
    """The network that an address counts as: itself, or the /64 of IPv6, all of which one host may use (RFC 6177)."""
    try:
        read = ip_address(address)
    except ValueError:
        return "unknown"
    if isinstance(read, IPv4Address):
        return str(read)
    return str(read.ipv4_mapped or IPv6Network((int(read), 64), strict=False))
