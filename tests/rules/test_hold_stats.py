"""What is counted of held calls."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from mcp_authz.model import HoldId, HoldState
from mcp_authz.rules.hold_stats import OFTEN, HoldStory, hold_stats

AT = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
YES = HoldStory(
    id=HoldId("h_1"),
    tool="acme__deploy",
    agent="coder",
    rules=("destructive", "release"),
    call=("s_1", "coder", b"1"),
    state=HoldState.DONE,
    asked_at=AT,
    people=("alice", "bob"),
    answered_at=AT + timedelta(minutes=3),
)
NO = replace(YES, id=HoldId("h_2"), state=HoldState.DENIED, people=("bob",), answered_at=AT + timedelta(minutes=1))


def test_each_hold_counts_once_for_each_name_that_it_has() -> None:
    stories = [YES, NO, replace(NO, id=HoldId("h_3"), sent_back=True), replace(YES, state=HoldState.CANCELLED)]
    (line,) = hold_stats(stories, "tool")
    assert (line.held, line.approved, line.denied, line.sent_back, line.cancelled) == (4, 1, 1, 1, 1)
    assert line.median == timedelta(minutes=1)
    assert [(one.name, one.held) for one in hold_stats(stories, "person")] == [("bob", 4), ("alice", 2)]
    assert {one.name for one in hold_stats(stories, "rule")} == {"destructive", "release"}


def test_only_what_people_approved_every_time_as_it_was_is_always_approved() -> None:
    always = [YES] * OFTEN
    for stories, found in (
        (always, True),
        (always[1:], False),
        ([*always, NO], False),
        ([*always, replace(YES, narrowed=True)], False),
        ([*always, replace(YES, state=HoldState.EXPIRED)], False),
        ([*always[1:], replace(YES, standing=True)], False),  # nobody was asked
        ([*always, replace(YES, standing=True)], True),
    ):
        (line,) = hold_stats(stories, "tool")
        assert (line.always_approved is not None) is found


def test_an_expired_call_that_is_made_again_is_seen() -> None:
    late = replace(YES, id=HoldId("h_late"), state=HoldState.EXPIRED)
    other = replace(YES, call=("s_2", "coder", b"1"))
    assert [line.came_again for line in hold_stats([late, other], "tool")] == [0]
    assert [line.came_again for line in hold_stats([late, other, YES], "tool")] == [1]
    assert [line.came_again for line in hold_stats([YES, late], "tool")] == [0]
