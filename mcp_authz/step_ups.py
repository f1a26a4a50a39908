"""What client agents were sent back to their people for: the call that asked, so that the page can name it.

Remembered in this process, and for a quarter of an hour: a person who comes later is asked all the same, without the
call. How often a session may send its person back is bounded, so that no model can wear anybody out.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from mcp_authz import limits
from mcp_authz.model import ToolName
from mcp_authz.principals import AgentName, SessionId
from mcp_authz.rules.scope import Scope
from mcp_authz.store.ports import Clock


@dataclass(frozen=True, slots=True, kw_only=True)
class StepUp:
    """One call that its client was sent back for."""

    agent: AgentName
    session: SessionId
    tool: ToolName
    scopes: tuple[Scope, ...] = ()  # what the call needs; empty where only the sign-in was not fresh enough
    max_age: timedelta | None = None  # how long ago the person may have signed in for it (RFC 9470)
    at: datetime
    repeated: int = 0  # how often the same was asked again within `limits.STEP_UP_ONCE`

    def is_of(self, other: StepUp) -> bool:
        """Whether both ask the person for the same."""
        return (self.tool, self.scopes, self.max_age) == (other.tool, other.scopes, other.max_age)


class StepUps:
    """The last call that each client agent was sent back for."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last: OrderedDict[AgentName, StepUp] = OrderedDict()
        self._counted: OrderedDict[SessionId, tuple[StepUp, ...]] = OrderedDict()

    def note(self, asked: StepUp) -> bool:
        """Whether the client is sent back: its session did not do that too often (`limits.STEP_UPS_PER_HOUR`).

        What is asked again within a minute counts once, and a few times at most: clients call in parallel, and retry.
        """
        lately = [one for one in self._counted.get(asked.session, ()) if asked.at - one.at < timedelta(hours=1)]
        again = [n for n, one in enumerate(lately) if one.is_of(asked) and asked.at - one.at < limits.STEP_UP_ONCE]
        if again and lately[again[-1]].repeated >= limits.STEP_UP_REPEATED:
            return False
        if again:
            lately[again[-1]] = replace(lately[again[-1]], repeated=lately[again[-1]].repeated + 1)
        elif len(lately) >= limits.STEP_UPS_PER_HOUR:
            return False
        else:
            lately.append(asked)
        self._counted[asked.session], self._last[asked.agent] = tuple(lately), asked
        self._counted.move_to_end(asked.session)
        self._last.move_to_end(asked.agent)
        _bound(self._counted)
        _bound(self._last)
        return True

    def of(self, agent: AgentName) -> StepUp | None:
        """What the agent was sent back for last, if that is not long ago."""
        found = self._last.get(agent)
        if found is None or self._clock() - found.at >= limits.STEP_UP_REMEMBERED:
            return None
        return found

    def waits_for_sign_in(self, agent: AgentName, session: SessionId) -> bool:
        """Whether this session was sent back for a fresh sign-in just now.

        A client that answers a 401 by renewing its token would come back with the same old sign-in.
        """
        found = self._last.get(agent)
        if found is None or found.session != session or found.max_age is None:
            return False
        return self._clock() - found.at < limits.STEP_UP_ONCE

    def done(self, agent: AgentName) -> None:
        """The person has answered: nothing is asked any more."""
        self._last.pop(agent, None)


def _bound(remembered: OrderedDict[AgentName, StepUp] | OrderedDict[SessionId, tuple[StepUp, ...]]) -> None:
    while len(remembered) > limits.STEP_UPS:
        remembered.popitem(last=False)
