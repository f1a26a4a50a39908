"""Durations as people write them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from mcp_authz.errors import InputError
from mcp_authz.rules.duration import parse_duration, shown_duration

YEAR = timedelta(days=365)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("90s", timedelta(seconds=90)),
        ("10m", timedelta(minutes=10)),
        ("2h", timedelta(hours=2)),
        ("90d", timedelta(days=90)),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, meant: timedelta) -> None:
    assert parse_duration(text, at_most=YEAR) == meant


@pytest.mark.parametrize(
    "text", ["", "10", "m", "-1m", "+1m", "1.5h", " 1h", "1h ", "1H", "1w", "1h30m", "\u0661h", "1" * 10 + "s"]
)
def test_anything_else_is_none(text: str) -> None:
    with pytest.raises(InputError, match="no duration"):
        parse_duration(text, at_most=YEAR)


def test_a_duration_keeps_its_bounds() -> None:
    assert parse_duration("1h", at_most=timedelta(hours=1)) == timedelta(hours=1)
    with pytest.raises(InputError, match="1s to 1h"):
        parse_duration("61m", at_most=timedelta(hours=1))
    with pytest.raises(InputError, match="1s to 1h"):
        parse_duration("0s", at_most=timedelta(hours=1))
    assert parse_duration("0m", at_least=timedelta(0), at_most=YEAR) == timedelta(0)
    with pytest.raises(InputError):
        parse_duration("999999999d", at_most=YEAR)


@pytest.mark.parametrize("text", ["90s", "10m", "2h", "90d", "0s"])
def test_what_is_shown_is_what_was_written(text: str) -> None:
    assert shown_duration(parse_duration(text, at_least=timedelta(0), at_most=YEAR)) == text
