"""What the gateway asks of a store about calls that were begun: each ends on record, whatever happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mcp_authz.model import HeldCall, HoldId, HoldState
from mcp_authz.store.facts import Event


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """A call that was admitted, and of whose end nothing is on record."""

    call: str
    actor: str
    tool: str
    hold: HoldId | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a call ended: its outcome record, and where it ran under a hold what becomes of that."""

    call: str
    event: Event
    hold: HoldId | None = None
    to: HoldState | None = None  # None: the run goes on with the answer to a question
    result: Mapping[str, Any] | None = None


class Spare(Protocol):
    """Records that decisions go before."""

    async def append_spare(self, events: Sequence[Event]) -> bool:
        """Whether the events are on record; they are not where the disk, or the queue, is nearly full.

        Raises:
            StoreError: the store cannot be written.
        """


class Calls(Spare, Protocol):
    """Calls from their admission to their outcome."""

    async def end_call(self, ending: Ending) -> None:
        """The outcome is on record, and the hold that the call claimed has ended with it; once, however often tried.

        Where it cannot be written now it is written as soon as the store can be, before any other call is admitted;
        there is always room for it. Of a call that had ended on record already nothing more is written.

        Raises:
            StoreError: it is not on record yet.
        """

    async def under_way(self) -> tuple[str, ...]:
        """The ids of the calls that a living process admitted, on whatever open store, and that have not ended."""

    async def recover(self, event_for: Callable[[HeldCall | Begun], Event]) -> tuple[HoldId, ...]:
        """What processes that are gone had begun, or claimed, has ended: each call with the event made for it.

        Holds among it are `unknown`; their ids. What a living process has begun stays as it is, also in another
        process on the same store.
        """
