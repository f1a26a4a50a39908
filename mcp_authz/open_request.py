"""A caller's own request, kept open while its call is held: its client is asked, or the verdict waited for."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import anyio

from mcp_authz.errors import DownstreamRefusal, StoreError
from mcp_authz.model import HeldCall, HoldState
from mcp_authz.relay import Channel
from mcp_authz.rules.approval_prompt import ELICIT
from mcp_authz.store.ports import Clock
from mcp_authz.waits import Waits

PROGRESS: Final = "notifications/progress"
COMPLETE: Final = "notifications/elicitation/complete"
REFUSED: Final = object()  # the client did not put the question to anybody
GONE: Final = object()  # it went away before it answered

_A_MOMENT: Final = timedelta(milliseconds=5)  # so that whoever waits for an end is not there just before it


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRequest:
    """One request that is not answered yet, and the hold that it is about.

    Nothing goes on for a client that has gone away: it makes the same call again, and joins.
    """

    channel: Channel
    held: HeldCall
    waits: Waits
    clock: Clock

    async def ask(self, question: Mapping[str, Any], *, until: frozenset[HoldState]) -> Any:
        """The client's answer, `REFUSED` or `GONE`; None when the hold is in one of `until`, or over, before that."""
        answer: Any = None
        await self.channel.decided()

        def settle(what: Any) -> None:
            nonlocal answer
            answer = what
            group.cancel_scope.cancel()

        async def ask() -> None:
            try:
                settle(await self.channel.ask(ELICIT, question))
            except DownstreamRefusal:
                settle(REFUSED)

        async with anyio.create_task_group() as group:
            self.channel.when_gone(lambda: settle(GONE))
            group.start_soon(ask)
            with suppress(StoreError):  # whoever looks at the hold next says so
                now = self.held
                while now.state not in until and (left := self._until_end(now)) > timedelta():
                    now = await self.waits.until_moved(now, left)
            group.cancel_scope.cancel()
        return answer

    async def wait(self, longest: timedelta, page: str) -> HeldCall:
        """The hold when it has settled, or when the time is up; as it was, when the client has gone away.

        The client hears that it waits, and that the hold is at `page`.
        """

        async def say(now: HeldCall, seconds: float) -> None:
            said = f"waits for a person, at {page}" if now.state is HoldState.PENDING else "was approved, and runs"
            # Less than the tool server's own progress, which follows under the same token and must not go back.
            await self.channel.notify(PROGRESS, {"progress": seconds / 1000, "message": f"hold {now.id} {said}"})

        if self.held.state is HoldState.PENDING:
            longest = min(longest, self._until_end(self.held))
        await self.channel.decided()
        with anyio.CancelScope() as here:
            self.channel.when_gone(here.cancel)
            return await self.waits.until_settled(self.held, longest, say)
        return self.held

    async def close_page(self) -> None:
        """The client knows that what its person was sent to the page for is over."""
        await self.channel.notify(COMPLETE, {"elicitationId": self.held.id})

    def _until_end(self, held: HeldCall) -> timedelta:
        """How long it takes until the hold reads as expired."""
        return held.expires_at - self.clock() + _A_MOMENT
