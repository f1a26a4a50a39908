"""Which records a URL's query asks for: the same parameters on the page and in the administration API."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Final

from mcp_authz.errors import InputError
from mcp_authz.rules.audit_filter import Filter

DECISIONS: Final = ("permit", "hold", "deny", "replay")
_TEXTS: Final = frozenset({"agent", "person", "session", "tool", "text", "call"})
_KNOWN: Final = _TEXTS | {"decision", "kind", "since", "until", "observed"}
_NUMBER: Final = 15  # digits of a record's number
_KIND: Final = 40  # characters


def asked_for(query: Mapping[str, str], kinds: tuple[str, ...]) -> Filter:
    """Return what the query asks for; a parameter without a value asks for nothing.

    `since` and `until` are days in UTC, both among what is asked for, or times of RFC 3339.

    Raises:
        InputError: a parameter is unknown, or not what it should be.
    """
    asked = {name: value for name, value in query.items() if value}
    if unknown := asked.keys() - _KNOWN:
        raise InputError(f"`{min(unknown)[:_KIND]}` is no parameter here; there are {', '.join(sorted(_KNOWN))}")
    return Filter(
        agent=_bare(asked.get("agent"), "agent:"),
        person=_bare(asked.get("person"), "user:"),
        session=asked.get("session"),
        tool=asked.get("tool"),
        text=asked.get("text"),
        call=asked.get("call"),
        decision=_one_of("decision", asked.get("decision"), DECISIONS),
        kind=_one_of("kind", asked.get("kind"), kinds),
        since=moment(asked.get("since")),
        until=moment(asked.get("until"), days=1),
        observed=_one_of("observed", asked.get("observed"), ("true",)) is not None,
    )


def number(name: str, text: str | None) -> int | None:
    """Return a parameter that is a number.

    Raises:
        InputError: it is none.
    """
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _NUMBER):
        raise InputError(f"`{name}` is a number")
    return int(text)


def _bare(name: str | None, prefix: str) -> str | None:
    return None if name is None else name.removeprefix(prefix)


def _one_of(name: str, value: str | None, values: tuple[str, ...]) -> str | None:
    if value is not None and value not in values:
        raise InputError(f"`{name}` is one of: {', '.join(values)}")
    return value


def moment(text: str | None, *, days: int = 0) -> datetime | None:
    """The moment; a day is its beginning, so many days later."""
    if text is None:
        return None
    try:
        if "T" not in text:
            return datetime.combine(date.fromisoformat(text), time(), UTC) + timedelta(days=days)
        at = datetime.fromisoformat(text)
        if at.tzinfo is not None:
            return at.astimezone(UTC)
    except (ValueError, OverflowError):
        pass
    raise InputError("a day is written like 2026-01-31, a time like 2026-01-31T12:00:00Z")
