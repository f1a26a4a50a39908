"""Notices are bounded, waits are told in round numbers, and children count as whoever made them."""

from __future__ import annotations

import logging
import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_authz import limits
from mcp_authz.canary import _call, _caller
from mcp_authz.desktop import Desktop
from mcp_authz.model import Obligation, Permit, RuleId
from mcp_authz.obligations import Notices, Obligations, Redacting, about, paid, unpaid
from mcp_authz.principals import AgentName, Caller
from mcp_authz.relay import GovernedRelay
from mcp_authz.rules.budget import Budget
from mcp_authz.rules.obligation import Means
from mcp_authz.rules.redaction import read_redaction
from mcp_authz.store.ports import Rate
from tests.road.desktop_service import desktop

AT = datetime(2026, 11, 20, 23, 30, tzinfo=UTC)
OBLIGATIONS = Obligations(means=Means(budgets={"b": Budget(source=1, per_session=5, per_day=6)}), notices=Notices(None))
CALLER = _caller(lambda: AT)


def permit(*asked: Obligation) -> Permit:
    return Permit(call_digest=bytes(32), approval=None, because=(RuleId("p"),), obligations=asked)


def rates(caller: Caller, *asked: Obligation) -> tuple[Rate, ...]:
    return OBLIGATIONS.due(permit(*asked), _call("canary:sing"), {}, caller, at=AT).rates


def named(name: str, parent: str | None = None) -> Caller:
    agent = replace(CALLER.agent, name=AgentName(name), parent=None if parent is None else AgentName(parent))
    return replace(CALLER, agent=agent)


def test_children_share_the_limit_of_the_agent_that_made_them() -> None:
    limit = Obligation(kind="rate_limit", argument="10/m")
    own, one, two, other = (
        rates(caller, limit)
        for caller in (named("coder"), named("coder/1", "coder"), named("coder/2", "coder"), named("planner"))
    )
    assert own == one == two != other


def test_limits_of_two_rules_count_apart_and_one_that_is_said_twice_counts_once() -> None:
    a, b = (Obligation(kind="rate_limit", argument="10/m", rule=RuleId(rule)) for rule in "ab")
    assert len({rate.key for rate in rates(CALLER, a, b, a)}) == len(rates(CALLER, a, b, a)) == 2


def test_a_budget_has_an_account_for_the_session_and_one_for_the_persons_day() -> None:
    asked = permit(*[Obligation(kind="budget", argument="b")] * 2)
    due = OBLIGATIONS.due(asked, _call("canary:sing"), {}, CALLER, at=AT)
    assert [(one.account, one.amount, one.limit) for one in due.budgets] == [
        ("session authz-canary", 1, 5),
        ("day 2026-11-20 user:authz-canary", 1, 6),
    ]
    assert due.budgets[1].expires_at > AT + timedelta(days=1)


def test_what_a_run_has_paid_is_not_asked_for_again_and_anything_else_is() -> None:
    asked = (Obligation(kind="rate_limit", argument="1/h"), Obligation(kind="redact", argument="x"))
    more = Obligation(kind="budget", argument="b")
    assert unpaid(permit(*asked, more), paid(asked)) == (asked[1], more)


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(0.01, "5 seconds"), (5, "5 seconds"), (5.1, "10 seconds"), (60, "60 seconds"), (61, "2 minutes"),
     (3600, "60 minutes"), (3601, "2 hours"), (86400, "24 hours")],
)  # fmt: skip
def test_a_wait_is_rounded_up(seconds: float, told: str) -> None:
    assert about(timedelta(seconds=seconds)) == told


async def test_the_log_has_so_many_notices_a_minute_and_then_their_number(caplog: pytest.LogCaptureFixture) -> None:
    notices, now = Notices(None), 1000.0

    async def log(number: int) -> None:
        for each in range(number):
            notices.log("ops", f"call {each}")

    with caplog.at_level(logging.WARNING), pytest.MonkeyPatch.context() as patch:
        patch.setattr("mcp_authz.obligations.anyio.current_time", lambda: now)
        await log(limits.NOTICES_LOGGED + 7)
        now += 61
        await log(1)
    assert len(caplog.messages) == limits.NOTICES_LOGGED + 1
    assert caplog.messages[-1] == "notice `ops`: call 0 (7 more before)"


async def test_several_notices_for_the_desktop_are_one_and_it_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    store: Any = None
    shows = Desktop(store=store, clock=lambda: AT, public_url="http://localhost:1")
    with tempfile.TemporaryDirectory(prefix="bus") as place:
        async with desktop(Path(place), monkeypatch) as service, anyio.create_task_group() as group:
            for number in range(3):
                shows.say(f"coder runs tool {number}", "For alice.")
            monkeypatch.setattr(Desktop, "_withdraw", _never)
            group.start_soon(shows.run)
            (shown,) = await service.until(1)
            group.cancel_scope.cancel()
    assert shown.summary == "3 calls that you wanted to hear of"
    assert shows._shown == {}  # nothing will ever withdraw it


async def _never(*_: Any) -> None:
    await anyio.sleep_forever()


class Heard:
    """A channel that keeps what it was given."""

    def __init__(self) -> None:
        self.said: list[tuple[str, Any]] = []

    async def notify(self, method: str, params: Any) -> None:
        self.said.append((method, params))


async def test_a_notification_that_is_called_by_a_secret_or_cannot_be_searched_is_not_handed_on() -> None:
    channel: Any = Heard()
    keys = Redacting((read_redaction(["sk-[0-9]+"], []),), anyio.CapacityLimiter(1))
    relay = GovernedRelay(server="s", channel=channel, elicitation=True, redact=keys.members)
    deep: Any = {}
    for _ in range(100_000):
        deep = {"a": deep}
    await relay.notify("notifications/sk-1", {})
    await relay.notify("notifications/message", {"data": deep})
    await relay.notify("notifications/message", {"data": "sk-1"})
    assert channel.said == [("notifications/message", {"data": "[redacted]"})]
    while deep:  # unwound by hand: freeing it whole would recurse
        deep = deep["a"]
