"""Floods: attempts beyond a few are counted and not recorded, and whoever asks for much waits for themselves alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import anyio
import pytest

from mcp_authz import limits
from mcp_authz.attempts import Attempts
from mcp_authz.turns import SlowDown, Turns

AT = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)


def test_a_flood_of_attempts_is_told_as_a_number_once() -> None:
    attempts = Attempts(burst=2, per_second=1)
    told = [attempts.count("mallory", AT) for _ in range(7)]
    assert told == [0, 0, None, None, None, None, None]
    assert attempts.count("alice", AT) == 0  # nobody pays for others
    assert attempts.count("mallory", AT + SECOND) == 5
    assert [attempts.count("mallory", AT + 2 * SECOND), attempts.count("mallory", AT + 2 * SECOND)] == [0, None]


def test_who_waits_long_has_no_more_than_the_first_few_again() -> None:
    attempts = Attempts(burst=2, per_second=1)
    assert attempts.count("mallory", AT) == 0
    assert [attempts.count("mallory", AT + 3600 * SECOND) for _ in range(3)] == [0, 0, None]


def test_a_clock_that_goes_back_takes_nothing_away() -> None:
    attempts = Attempts(burst=2, per_second=1)
    assert attempts.count("mallory", AT) == 0
    assert attempts.count("mallory", AT - 3600 * SECOND) == 0


def test_names_are_forgotten_in_the_order_in_which_they_were_heard_of_last() -> None:
    attempts = Attempts(burst=1, per_second=0)
    assert attempts.count("mallory", AT) == 0
    for number in range(limits.ATTEMPTS_OF - 1):
        attempts.count(f"n{number}", AT)
    assert attempts.count("mallory", AT) is None
    attempts.count("one more", AT)
    assert attempts.count("mallory", AT) is None  # heard of lately, so somebody else was forgotten
    assert attempts.count("n0", AT) == 0


async def test_turns_are_taken_one_by_one_for_each_name_and_beyond_a_few_refused() -> None:
    turns, running, most_at_once = Turns(most=2), list[str](), list[int]()
    leave = anyio.Event()

    async def take(name: str) -> None:
        async with turns.turn(name):
            running.append(name)
            most_at_once.append(running.count(name))
            await leave.wait()
            running.remove(name)

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            for name in ("alice", "alice", "bob"):
                group.start_soon(take, name)
            await anyio.wait_all_tasks_blocked()
            assert sorted(running) == ["alice", "bob"]
            with pytest.raises(SlowDown, match="2 of your requests wait"):
                async with turns.turn("alice"):
                    pass
            leave.set()
    assert most_at_once == [1, 1, 1]
    assert not turns._lines  # a name without a line is not remembered
    async with turns.turn("alice"):
        pass
