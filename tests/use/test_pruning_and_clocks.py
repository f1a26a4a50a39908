"""A clock that was wrong: what is younger is not pruned by it, and the daily pruning waits for one that is believed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from mcp_authz.daily_pruning import is_lived_by, is_steady
from mcp_authz.errors import StoreError
from mcp_authz.retention import Kept, Prunable, prunable
from tests.store.world import Time, event
from tests.use.test_retention import MONTH, a_place

DAY = timedelta(days=1)


async def test_what_is_younger_is_kept_where_a_clock_that_was_set_back_dated_the_checkpoint_behind_it(
    tmp_path: Path,
) -> None:
    async with a_place(tmp_path) as place:
        await place.store.append(replace(event(), at=place.clock()))
        place.clock.pass_(-12 * MONTH)
        await place.month(records=1)
        place.clock.pass_(11 * MONTH + DAY)  # right again, the first record is a day old
        with pytest.raises(StoreError, match="record 1 is younger than 30d"):
            await place.prune("one.jsonl")
        assert (await place.store.log_base()).sequence == 0 and not (tmp_path / "one.jsonl").exists()
        place.clock.pass_(MONTH)
        await place.prune("one.jsonl")
        assert (await place.store.log_base()).sequence == 3


async def test_a_checkpoint_from_the_future_holds_up_no_pruning_of_what_is_old(tmp_path: Path) -> None:
    async with a_place(tmp_path) as place:
        await place.month()
        place.clock.pass_(12 * MONTH)
        await place.month()
        place.clock.pass_(-13 * MONTH)  # right again
        await place.month()
        place.clock.pass_(DAY)
        what = await prunable(place.store, MONTH, place.clock())
        assert isinstance(what, Prunable) and what.number == 3
        place.clock.pass_(-2 * DAY)  # two days slow: nothing more is old by it
        what = await prunable(place.store, MONTH, place.clock())
        assert isinstance(what, Prunable) and what.number == 1
        place.clock.pass_(-2 * MONTH)
        assert isinstance(await prunable(place.store, MONTH, place.clock()), Kept)


async def test_a_clock_is_believed_once_the_log_has_lived_by_it_for_a_day(tmp_path: Path) -> None:
    async with a_place(tmp_path) as place:
        assert not await is_lived_by(place.store, place.clock())
        await place.month()
        now = place.clock() - MONTH
        for later, believed in [(timedelta(), False), (DAY, True), (8 * DAY, True), (9 * DAY, False)]:
            assert await is_lived_by(place.store, now + later) is believed, later
        place.clock.pass_(12 * MONTH)  # the clock jumps, and what is written now has its time
        await place.month()
        assert not await is_lived_by(place.store, place.clock() - MONTH)


def test_a_clock_is_steady_that_went_on_as_time_did() -> None:
    now = Time()()
    assert not is_steady(None, (now, 0.0))
    assert is_steady((now, 0.0), (now + DAY, DAY.total_seconds()))
    assert is_steady((now, 0.0), (now + 2 * DAY, DAY.total_seconds()))  # the machine slept
    assert not is_steady((now, 0.0), (now + 365 * DAY, DAY.total_seconds()))
    assert not is_steady((now, 0.0), (now - 365 * DAY, DAY.total_seconds()))
