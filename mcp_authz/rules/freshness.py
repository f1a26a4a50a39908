"""How long ago a person may have signed in for a call, and whether that is so (RFC 9470)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from mcp_authz import limits
from mcp_authz.errors import InputError
from mcp_authz.model import Obligation
from mcp_authz.principals import Authentication

STEP_UP: Final = "step_up"
"""The obligation that demands it; its argument is `max_age` in seconds."""

_SECONDS: Final = re.compile(r"[1-9][0-9]{0,4}", re.ASCII)


def max_age(text: str) -> timedelta:
    """Return the longest time since a sign-in, of its one spelling in seconds: 1 to 86400.

    Raises:
        InputError: it is something else.
    """
    if not _SECONDS.fullmatch(text) or int(text) > limits.MAX_AGE_SECONDS:
        raise InputError(f"`{text[:32]}` is no number of seconds from 1 to {limits.MAX_AGE_SECONDS}")
    return timedelta(seconds=int(text))


def demanded(obligations: Iterable[Obligation]) -> timedelta | None:
    """Return the shortest time that any of them demands; None where none does.

    Raises:
        InputError: one does not say which.
    """
    return min((max_age(one.argument) for one in obligations if one.kind == STEP_UP), default=None)


def is_fresh(shown: Authentication | None, longest: timedelta, at: datetime) -> bool:
    """Whether the person is known to have signed in, no longer ago than that; what is of the future is not known."""
    return shown is not None and -limits.CLOCK_SKEW <= at - shown.at <= longest
