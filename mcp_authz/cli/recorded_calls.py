"""The calls whose input is kept, for commands that look at many: page by page, and what is left out is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rich.console import Console
from rich.progress import Progress

from mcp_authz.errors import InputError
from mcp_authz.inputs import Kept, read_kept
from mcp_authz.rules import session_request
from mcp_authz.store.ports import Record, Store

LONG: Final = 2000  # records; fewer are looked at before a progress bar could be read
_PAGE: Final = 200

Tell = Callable[[int, int], None]
"""Is told how many records were looked at, and of how many."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which calls are asked for; None is all that are kept."""

    agent: str | None = None
    tool: str | None = None
    since: datetime | None = None

    def has(self, record: Record) -> bool:
        """Whether this decision is about one of them."""
        event = record.event
        if event.fields.get("tool") == session_request.NAME or (self.since is not None and event.at < self.since):
            return False
        if self.agent is not None and event.fields.get("actor") != f"agent:{self.agent}":
            return False
        return self.tool is None or event.fields.get("tool") == self.tool


class RecordedCalls:
    """The wanted calls in the order of the log; `left_out` counts, by decision, those without a recorded input."""

    def __init__(self, store: Store, wanted: Wanted) -> None:
        self._store = store
        self._wanted = wanted
        self.left_out: Counter[str] = Counter()

    async def each(self, tell: Tell) -> AsyncIterator[tuple[Record, Kept]]:
        """Yield each with its record; no more than a page of them is held at once."""
        first = after = await self._store.decisions_before(self._wanted.since)
        until, _ = await self._store.head()  # what is decided meanwhile is not looked at
        while page := await self._store.decisions(after=after, limit=_PAGE):
            for one in page:
                after = one.record.sequence
                if after > until:
                    return
                if not self._wanted.has(one.record):
                    continue
                kept = _readable(one.input)
                if kept is None:
                    self.left_out[str(one.record.event.fields.get("decision"))] += 1
                else:
                    yield one.record, kept
            tell(after - first, until - first)

    def said(self) -> str | None:
        """What was left out, as a sentence; None where nothing was."""
        if not self.left_out:
            return None
        denied, others = self.left_out["deny"], self.left_out.total() - self.left_out["deny"]
        told = [f"{denied} denied before policy was asked or without a recorded input"] if denied else []
        told += [f"{others} permitted or held without a recorded input"] if others else []
        return f"not looked at: {', '.join(told)} (kept for [audit] inputs_days)"


def _readable(value: object) -> Kept | None:
    if not isinstance(value, dict):
        return None
    try:
        return read_kept(value)
    except InputError:
        return None


@contextmanager
def progress() -> Iterator[Tell]:
    """A bar on the terminal, while something long goes on."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as drawn:
        bar = drawn.add_task("records", total=None, visible=False)
        yield lambda done, of: drawn.update(bar, completed=done, total=of, visible=of >= LONG)
