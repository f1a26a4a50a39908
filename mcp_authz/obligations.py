"""What goes along with a permit: counted and spent in the admission, told after it, redacted on the way back."""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import anyio
import anyio.to_thread

from mcp_authz import limits
from mcp_authz.model import Hold, Obligation, Permit, ToolCall
from mcp_authz.principals import Caller
from mcp_authz.rules.canonical import digest_b64url
from mcp_authz.rules.display import visible
from mcp_authz.rules.obligation import BUDGET, NOTIFY, RATE_LIMIT, REDACT, Means, named, read_rate
from mcp_authz.rules.redaction import Redaction, Redactor
from mcp_authz.store.ports import Lost, LostReason, Rate, Spending

log = logging.getLogger(__name__)

SHOWN: Final = 80  # characters of one attribute of the resource
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """What one permitted call is counted as, and takes, when it is admitted."""

    rates: tuple[Rate, ...] = ()
    budgets: tuple[Spending, ...] = ()


class Redacting:
    """Redacts what a tool server says of one call, without keeping the gateway busy, and counts what it took out."""

    def __init__(self, redactions: tuple[Redaction, ...], threads: anyio.CapacityLimiter) -> None:
        self._redactions = redactions
        self._threads = threads
        self.count = 0

    async def members(self, value: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return an object as the caller may see it.

        Raises:
            Withheld: not all of it could be searched.
        """
        redacted: Mapping[str, Any] = await self.value(value)
        return redacted

    async def value(self, value: Any) -> Any:
        """Return any JSON value as the caller may see it.

        Raises:
            Withheld: not all of it could be searched.
        """
        redacted, count = await anyio.to_thread.run_sync(self._redacted, value, limiter=self._threads)
        self.count += count
        return redacted

    def _redacted(self, value: Any) -> tuple[Any, int]:
        until = time.monotonic() + limits.REDACTION_TIME.total_seconds()
        redactor = Redactor(self._redactions, lambda: time.monotonic() < until)
        return redactor.value(value), redactor.count


class Obligations:
    """Carries out what permits ask for, with what the configuration has."""

    def __init__(self, *, means: Means, notices: Notices) -> None:
        self._means = means
        self._notices = notices
        self._threads = anyio.CapacityLimiter(limits.REDACTIONS)

    def due(self, permit: Permit, call: ToolCall, resource: Mapping[str, Any], caller: Caller, *, at: datetime) -> Due:
        """Return what the call is counted as and takes.

        Raises:
            InputError: that cannot be said; the evaluation would have denied the call.
        """
        session = caller.session
        assert session is not None  # noqa: S101 - no call without a session is permitted
        subject = session.principal
        limited = (one for one in permit.obligations if one.kind == RATE_LIMIT)
        rates = {rate.key: rate for rate in (_rate(one, call, caller, subject) for one in limited)}
        spendings = []
        for name in named(permit.obligations, BUDGET):
            budget = self._means.budgets[name]
            amount = budget.amount(call.arguments, resource)
            today = at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
            accounts = (
                (f"session {session.id}", budget.per_session, session.expires_at),
                (f"day {today:%Y-%m-%d} {subject}", budget.per_day, today + 2 * _DAY),
            )
            spendings += [
                Spending(budget=name, account=account, amount=amount, limit=most, expires_at=ends)
                for account, most, ends in accounts
                if most is not None
            ]
        return Due(rates=tuple(rates.values()), budgets=tuple(spendings))

    def redacting(self, permit: Permit | Hold) -> Redacting | None:
        """Return what redacts all that is said of the call; None where nothing is to be redacted."""
        names = named(permit.obligations, REDACT)
        return Redacting(tuple(self._means.redactions[name] for name in names), self._threads) if names else None

    def tell(self, permit: Permit, call: ToolCall, resource: Mapping[str, Any], caller: Caller) -> None:
        """Whoever wants to hear of such a call does so soon; returns at once, and never fails."""
        ways = dict.fromkeys((name, self._means.notices[name]) for name in named(permit.obligations, NOTIFY))
        for name, way in ways:
            if way == "desktop":
                self._notices.show(_title(call, caller), _whom(caller))
            else:
                self._notices.log(name, f"{_title(call, caller)}{_attributes(resource)}. {_whom(caller)}")


class Notices:
    """Tells people of calls: bounded, and without anybody waiting for it."""

    def __init__(self, show: Callable[[str, str], None] | None) -> None:
        self._show = show
        self._recent: deque[float] = deque([-math.inf] * limits.NOTICES_LOGGED, maxlen=limits.NOTICES_LOGGED)
        self._left_out = 0

    def show(self, title: str, message: str) -> None:
        """The desktop shows this soon, where there is one."""
        if self._show is not None:
            self._show(title, message)

    def log(self, name: str, text: str) -> None:
        """The log has this line, unless it had too many in the last minute; then the next one says how many."""
        now = anyio.current_time()
        if now - self._recent[0] < 60:
            self._left_out += 1
            return
        self._recent.append(now)
        more = f" ({self._left_out} more before)" if self._left_out else ""
        self._left_out = 0
        log.warning("notice `%s`: %s%s", name, text, more)


def paid(obligations: tuple[Obligation, ...]) -> tuple[str, ...]:
    """Return what a call has been counted and has paid for, so that answering its server's question is no new call."""
    return tuple(f"{one.kind} {one.argument}" for one in obligations if one.kind in (RATE_LIMIT, BUDGET))


def unpaid(permit: Permit, already: tuple[str, ...]) -> tuple[Obligation, ...]:
    """Return what the permit asks for beyond what is paid already."""
    return tuple(one for one in permit.obligations if f"{one.kind} {one.argument}" not in already)


LOST: Final[Mapping[LostReason, str]] = {
    "revoked": "revoked",
    "expired": "session_over",
    "session": "session_over",
    "budget": "budget",
    "replayed": "replayed",
    "claimed": "approval_used",
    "definition": "changed",
    "rate": "rate_limited",
    "spent": "spent",
    "stopped": "stopped",
}
"""Which reason code a lost race is told with."""


def why_lost(lost: Lost) -> str:
    """Return what can be said of a limit that had no room: when to try again, or which budget it was."""
    if lost.wait is not None:
        return f"try again in {about(lost.wait)}"
    return f"budget `{lost.budget}` has not so much left" if lost.budget else ""


def about(wait: timedelta) -> str:
    """Return a time to wait, rounded up so that it is over by then: 5 seconds, whole minutes, or whole hours."""
    seconds = max(1, math.ceil(wait.total_seconds()))
    if seconds <= 60:
        return f"{5 * math.ceil(seconds / 5)} seconds"
    if seconds <= 3600:
        return f"{math.ceil(seconds / 60)} minutes"
    return f"{math.ceil(seconds / 3600)} hours"


def _rate(obligation: Obligation, call: ToolCall, caller: Caller, subject: str) -> Rate:
    limit = read_rate(obligation.argument)
    agent = caller.agent.parent or caller.agent.name  # else whoever makes children would have a limit for each
    counted = [obligation.rule, obligation.argument, agent, subject, call.tool.classification.action]
    return Rate(key=digest_b64url(counted), count=limit.count, per=limit.per)


def _title(call: ToolCall, caller: Caller) -> str:
    return f"{caller.agent.name} runs {visible(call.tool.name)[:SHOWN]}"


def _whom(caller: Caller) -> str:
    return "For itself." if caller.person is None else f"For {caller.person.name}."


def _attributes(resource: Mapping[str, Any]) -> str:
    told = (f"{name} {visible(str(value))[:SHOWN]}" for name, value in sorted(resource.items()))
    return f" ({', '.join(told)})" if resource else ""
