"""The whole hash chain of a store, read page by page as it lies on the disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mcp_authz.rules.log import GENESIS, Break, Stored, first_break
from mcp_authz.store.offline import LogFile, log_file

_PAGE = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What became of a verification: how far the chain goes, and where it is broken, if it is."""

    records: int
    head: bytes
    broken: Break | None


def verify(path: Path, told: Callable[[int, int], None]) -> Verified:
    """Return whether every record of the log follows from the one before, up to where the log says that it ends.

    `told` hears how many records of how many were checked. A gateway may go on appending meanwhile.

    Raises:
        StoreError: `path` is no store, or cannot be read.
    """
    start = (0, GENESIS)
    with log_file(path) as log:
        while True:
            head = log.head()
            broken = first_break(_rows(log, start[0], head[0], told), head=head, start=start)
            if broken is not None or not log.after(head[0], 1):
                return Verified(records=head[0], head=head[1], broken=broken)
            if log.head() == head:  # head and record are written together, so this one was put there otherwise
                why = f"record {head[0] + 1} stands behind the end of the log"
                return Verified(records=head[0], head=head[1], broken=Break(sequence=head[0] + 1, why=why))
            start = head


def _rows(log: LogFile, after: int, until: int, told: Callable[[int, int], None]) -> Iterator[Stored]:
    while after < until:
        page = log.after(after, min(_PAGE, until - after))
        if not page:
            return
        yield from (row for row in page if row.sequence <= until)
        after = page[-1].sequence
        told(min(after, until), until)
