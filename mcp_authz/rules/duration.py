"""Durations as people write them on a command line: one number and one unit."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

from mcp_authz.errors import InputError

_FORM: Final = re.compile(r"([0-9]{1,9})([smhd])")
_UNITS: Final = {"d": timedelta(days=1), "h": timedelta(hours=1), "m": timedelta(minutes=1), "s": timedelta(seconds=1)}


def parse_duration(text: str, *, at_least: timedelta = _UNITS["s"], at_most: timedelta) -> timedelta:
    """Return the duration that `text` is: `90s`, `10m`, `2h`, `90d`.

    Raises:
        InputError: it is none, or shorter than `at_least`, or longer than `at_most`.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise InputError(f"`{text}` is no duration; write a number and one of s, m, h, d, such as 90s, 10m, 2h or 90d")
    number, unit = int(found[1]), _UNITS[found[2]]
    if not at_least <= number * unit <= at_most:
        raise InputError(f"`{text}` is out of bounds; give {shown_duration(at_least)} to {shown_duration(at_most)}")
    return number * unit


def shown_duration(duration: timedelta) -> str:
    """Return the duration in the largest unit that divides it; parts of a second are left out."""
    seconds = int(duration.total_seconds())
    for name, unit in _UNITS.items():
        size = int(unit.total_seconds())
        if seconds and seconds % size == 0:
            return f"{seconds // size}{name}"
    return "0s"
