"""The way back to whoever polls for a task, while the poll runs its call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, Final

from mcp_authz.errors import DownstreamRefusal
from mcp_authz.relay import METHOD_NOT_FOUND, Channel

_FORM: Final = frozenset({"form"})


class PollChannel:
    """Nobody is asked during the run, and nobody waits: what has to be asked is asked by the task.

    Progress and log entries are not supported on tasks, so that they end here.
    """

    can_be_asked = False
    can_return = False
    can_do_tasks = False
    longest_wait = timedelta()

    def __init__(self, poll: Channel) -> None:
        self._poll = poll
        self._decided = False

    @property
    def can_elicit(self) -> frozenset[str]:
        """What a tool server may ask by its result; before it is called, our own questions have been the task's."""
        return self._poll.can_elicit & _FORM if self._decided else frozenset()

    @property
    def is_gone(self) -> bool:
        """Whether the poll's caller has gone away, which ends the run."""
        return self._poll.is_gone

    def disagreement(self, schema: Any, arguments: Mapping[str, Any]) -> str | None:
        """Nothing: the headers of the call were compared when it came, those of a poll are the poll's."""
        return None

    async def decided(self) -> None:
        """The poll's status and headers may go out."""
        self._decided = True
        await self._poll.decided()

    def when_gone(self, do: Callable[[], None]) -> None:
        """Done when the poll's caller has gone away."""
        self._poll.when_gone(do)

    async def notify(self, method: str, params: Mapping[str, Any]) -> None:
        """Nothing: no notification belongs to a poll."""

    async def ask(self, method: str, params: Mapping[str, Any]) -> Mapping[str, Any]:
        """There is no way to ask during a poll."""
        raise DownstreamRefusal(METHOD_NOT_FOUND, f"{method} is not possible during a call")
