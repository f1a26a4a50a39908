"""What client agents were sent back for: remembered for the page, and bounded so that nobody is worn out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from mcp_authz import limits
from mcp_authz.model import ToolName
from mcp_authz.principals import AgentName, SessionId
from mcp_authz.rules.scope import Scope
from mcp_authz.step_ups import StepUp, StepUps

START = datetime(2026, 11, 20, 9, tzinfo=UTC)
CURSOR = AgentName("cursor@alice")


class Clock:
    """Stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now


def asked(at: datetime = START, *, tool: str = "files__write", session: str = "s_1") -> StepUp:
    return StepUp(agent=CURSOR, session=SessionId(session), tool=ToolName(tool), scopes=(Scope("files:write"),), at=at)


def filled(at: datetime = START) -> StepUps:
    """A session that has sent its person back as often as it may."""
    step_ups = StepUps(lambda: at)
    assert all(step_ups.note(asked(at, tool=f"files__{n}")) for n in range(limits.STEP_UPS_PER_HOUR))
    return step_ups


def test_the_page_hears_of_the_last_call_that_asked() -> None:
    step_ups = StepUps(Clock())
    step_ups.note(asked(tool="files__read"))
    step_ups.note(asked(tool="files__write"))
    found = step_ups.of(CURSOR)
    assert found is not None and found.tool == "files__write" and step_ups.of(AgentName("cursor@bob")) is None


def test_what_nobody_came_for_is_forgotten_and_so_is_what_was_answered() -> None:
    clock = Clock()
    step_ups = StepUps(clock)
    step_ups.note(asked())
    clock.now += limits.STEP_UP_REMEMBERED
    assert step_ups.of(CURSOR) is None
    step_ups.note(asked(clock.now))
    step_ups.done(CURSOR)
    assert step_ups.of(CURSOR) is None


def test_a_session_sends_its_person_back_only_so_often_in_an_hour() -> None:
    step_ups = filled()
    assert not step_ups.note(asked(START + timedelta(minutes=59)))
    assert step_ups.note(asked(START + timedelta(minutes=60)))


def test_a_question_that_was_one_too_many_is_not_what_the_page_shows() -> None:
    step_ups = filled()
    assert not step_ups.note(asked(tool="files__last"))
    found = step_ups.of(CURSOR)
    assert found is not None and found.tool != "files__last"


def test_another_session_is_not_charged_for_it() -> None:
    assert filled().note(asked(session="s_2"))


def test_the_same_question_within_a_minute_counts_once() -> None:
    step_ups = StepUps(Clock())
    for n in range(limits.STEP_UPS_PER_HOUR):
        at = START + timedelta(seconds=n)
        assert step_ups.note(asked(at, tool=f"files__{n}")) and step_ups.note(asked(at, tool=f"files__{n}"))
    assert step_ups.note(asked(START + timedelta(seconds=30), tool="files__0"))
    assert not step_ups.note(asked(START + timedelta(seconds=60), tool="files__0"))


def test_the_same_question_within_a_minute_is_repeated_a_few_times_only() -> None:
    step_ups = StepUps(Clock())
    answers = [step_ups.note(asked(START + timedelta(seconds=n))) for n in range(limits.STEP_UP_REPEATED + 3)]
    assert answers == [True] * (1 + limits.STEP_UP_REPEATED) + [False] * 2
    assert step_ups.note(asked(START + timedelta(minutes=1)))


@pytest.mark.parametrize(
    "other", [{"tool": ToolName("files__read")}, {"scopes": ()}, {"max_age": timedelta(seconds=300)}], ids=str
)
def test_a_question_that_differs_in_anything_counts_for_itself(other: dict[str, object]) -> None:
    step_ups = StepUps(Clock())
    for n in range(limits.STEP_UPS_PER_HOUR - 1):
        step_ups.note(asked(tool=f"files__{n}"))
    assert step_ups.note(asked())
    assert step_ups.note(asked()) and not step_ups.note(replace(asked(), **other))  # type: ignore[arg-type]
