"""What became of held calls, counted by tool, agent, rule or person: where are people asked in vain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import Final, Literal

from mcp_authz.model import HoldId, HoldState

By = Literal["tool", "agent", "rule", "person"]

OFTEN: Final = 5  # approvals in a row, without one no, that make a call look as if nobody had to be asked each time
_RAN: Final = frozenset({HoldState.CLAIMED, HoldState.DONE, HoldState.FAILED, HoldState.UNKNOWN})


@dataclass(frozen=True, slots=True, kw_only=True)
class HoldStory:
    """What there is to count of one held call."""

    id: HoldId
    tool: str
    agent: str
    rules: tuple[str, ...]
    call: tuple[str, str, bytes]  # session, agent and digest: whoever has the same makes the same call again
    state: HoldState
    asked_at: datetime
    people: tuple[str, ...] = ()  # who answered
    answered_at: datetime | None = None  # the last answer
    sent_back: bool = False
    narrowed: bool = False
    standing: bool = False  # approved beforehand, so that nobody was asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """The counts of one tool, agent, rule or person."""

    name: str
    held: int
    approved: int
    denied: int
    sent_back: int
    expired: int
    cancelled: int
    waiting: int
    standing: int  # of the approved ones, those that nobody was asked about
    came_again: int  # of the expired ones, those that were asked for again afterwards
    median: timedelta | None  # from the question to the last answer, of what people answered
    always_approved: HoldId | None  # the last one, where people approved all of at least `OFTEN` as they were


def hold_stats(stories: Sequence[HoldStory], by: By) -> tuple[Line, ...]:
    """Return a line for each name, the most often held first; `stories` are in the order in which they were asked."""
    again, groups = _came_again(stories), dict[str, list[HoldStory]]()
    for story in stories:
        for name in dict.fromkeys(_names(story, by)):
            groups.setdefault(name, []).append(story)
    lines = [_line(name, group, again) for name, group in groups.items()]
    return tuple(sorted(lines, key=lambda line: (-line.held, line.name)))


def _names(story: HoldStory, by: By) -> Iterable[str]:
    names: Mapping[By, Iterable[str]] = {
        "tool": (story.tool,),
        "agent": (story.agent,),
        "rule": story.rules,
        "person": story.people,
    }
    return names[by]


def _came_again(stories: Sequence[HoldStory]) -> frozenset[HoldId]:
    """The expired ones whose call was made again."""
    expired, found = dict[tuple[str, str, bytes], HoldId](), set[HoldId]()
    for story in stories:
        if (before := expired.pop(story.call, None)) is not None:
            found.add(before)
        if story.state is HoldState.EXPIRED:
            expired[story.call] = story.id
    return frozenset(found)


def _line(name: str, group: Sequence[HoldStory], again: frozenset[HoldId]) -> Line:
    answered = [one for one in group if not one.standing and _is_answered(one)]
    took = [(one.answered_at - one.asked_at).total_seconds() for one in answered if one.answered_at is not None]
    asked = [one for one in group if not one.standing]
    unchanged = len(asked) >= OFTEN and all(_is_approved(one) and not one.narrowed for one in asked)
    return Line(
        name=name,
        held=len(group),
        approved=sum(map(_is_approved, group)),
        denied=sum(one.state is HoldState.DENIED and not one.sent_back for one in group),
        sent_back=sum(one.state is HoldState.DENIED and one.sent_back for one in group),
        expired=sum(one.state is HoldState.EXPIRED for one in group),
        cancelled=sum(one.state is HoldState.CANCELLED for one in group),
        waiting=sum(one.state is HoldState.PENDING for one in group),
        standing=sum(one.standing for one in group),
        came_again=sum(one.id in again for one in group),
        median=timedelta(seconds=median(took)) if took else None,
        always_approved=asked[-1].id if unchanged else None,
    )


def _is_approved(story: HoldStory) -> bool:
    return story.state is HoldState.APPROVED or story.state in _RAN


def _is_answered(story: HoldStory) -> bool:
    return _is_approved(story) or story.state is HoldState.DENIED
