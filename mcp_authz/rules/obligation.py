"""What a permit may ask for: every kind of obligation, read strictly, and whether the configuration can carry it out.

`approval("RULE")` and `step_up("SECONDS")` are met before a call is permitted (`rules.decision`, `rules.freshness`).
The others go along with the permit: `rate_limit("10/m")`, `budget("NAME")`, `notify("NAME")`, `redact("NAME")`.
Several count together, also of one kind. What is not known or cannot be read is a denial.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Literal

from mcp_authz.errors import InputError
from mcp_authz.model import Decision, Deny, Obligation
from mcp_authz.rules.budget import Budget
from mcp_authz.rules.freshness import STEP_UP, max_age
from mcp_authz.rules.redaction import Redaction

RATE_LIMIT: Final = "rate_limit"
BUDGET: Final = "budget"
NOTIFY: Final = "notify"
REDACT: Final = "redact"
NAMED: Final = frozenset({BUDGET, NOTIFY, REDACT})
"""The kinds whose argument is a name of the configuration."""

KNOWN_OBLIGATIONS: Final = frozenset({"approval", STEP_UP, RATE_LIMIT, *NAMED})
"""What this gateway can carry out; every other obligation is a denial."""

_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
_RATE: Final = re.compile(r"([1-9][0-9]{0,4})/([smhd])", re.ASCII)
_MOST: Final = 10_000
_PERIODS: Final = {
    "s": timedelta(seconds=1),
    "m": timedelta(minutes=1),
    "h": timedelta(hours=1),
    "d": timedelta(days=1),
}

Names = Mapping[str, Collection[str]]
"""For each kind of `NAMED`, the names that the configuration has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """At most `count` calls within any stretch of time as long as `per`."""

    count: int
    per: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """What the configuration has to carry out obligations with, each by its name."""

    budgets: Mapping[str, Budget] = field(default_factory=dict)
    notices: Mapping[str, Literal["desktop", "log"]] = field(default_factory=dict)
    redactions: Mapping[str, Redaction] = field(default_factory=dict)

    @property
    def names(self) -> Names:
        """The names that obligations may use."""
        return {BUDGET: self.budgets.keys(), NOTIFY: self.notices.keys(), REDACT: self.redactions.keys()}


def read_rate(text: str) -> RateLimit:
    """Return the limit, of its one spelling: 1 to 10000, a slash, and one of s, m, h and d.

    Raises:
        InputError: it is something else.
    """
    found = _RATE.fullmatch(text)
    if found is None or int(found[1]) > _MOST:
        raise InputError(f"`{text[:32]}` is no limit such as `10/m`: 1 to {_MOST}, a slash, and s, m, h or d")
    return RateLimit(count=int(found[1]), per=_PERIODS[found[2]])


def require_readable(obligation: Obligation) -> None:
    """Return once the obligation is known to be of a kind there is, with an argument that says what it asks for.

    Raises:
        InputError: it is not.
    """
    match obligation.kind:
        case kind if kind not in KNOWN_OBLIGATIONS:
            raise InputError(f"there is no obligation `{str(kind)[:32]}`")
        case kind if kind == RATE_LIMIT:
            read_rate(obligation.argument)
        case kind if kind == STEP_UP:
            max_age(obligation.argument)
        case _ if not is_name(obligation.argument):
            raise InputError(f"`{obligation.argument[:32]}` is no name of letters, digits, `.`, `_` and `-`")


def is_name(text: str) -> bool:
    """Whether the configuration can have this name for something that an obligation asks for."""
    return _NAME.fullmatch(text) is not None


def unreadable(obligations: Iterable[Obligation]) -> str | None:
    """Return what is wrong with the first obligation that is not known or cannot be read; None where all can."""
    for one in obligations:
        try:
            require_readable(one)
        except InputError as error:
            return f"{one.kind[:32]}: {error}"
    return None


def unknown_names(obligations: Iterable[Obligation], names: Names) -> tuple[str, ...]:
    """Return what these ask for by a name that the configuration does not have, such as `[budgets.spending]`."""
    missing = (one for one in obligations if one.kind in NAMED and one.argument not in names.get(one.kind, ()))
    return tuple(dict.fromkeys(f"[{TABLES[one.kind]}.{one.argument}]" for one in missing))


TABLES: Final = {BUDGET: "budgets", NOTIFY: "notices", REDACT: "redact"}
"""The table of the configuration that has the names of each kind."""


def named(obligations: Iterable[Obligation], kind: str) -> tuple[str, ...]:
    """Return the arguments of this kind, each once, in their order."""
    return tuple(dict.fromkeys(one.argument for one in obligations if one.kind == kind))


def within_means(
    decision: Decision, means: Means, *, arguments: Mapping[str, Any], resource: Mapping[str, Any]
) -> Decision:
    """Return the decision, once what it asks for is known to be possible; else the denial.

    Nobody is asked to approve a call that no budget has room for, or that asks for what nobody configured.
    """
    if isinstance(decision, Deny):
        return decision
    if missing := unknown_names(decision.obligations, means.names):
        detail = f"not configured: {', '.join(missing)}"
        return Deny(code="obligation", because=decision.because, detail=detail)
    for name in named(decision.obligations, BUDGET):
        try:
            too_much = means.budgets[name].refuses(arguments, resource)
        except InputError as error:
            return Deny(code="obligation", because=decision.because, detail=f"budget `{name}`: {error}")
        if too_much:
            return Deny(code="spent", because=decision.because, detail=f"budget `{name}`: {too_much}")
    return decision


def carried_out(obligations: Iterable[Obligation]) -> tuple[Obligation, ...]:
    """Return those that go along with a permit; who approved and who signed in was known before it."""
    return tuple(one for one in obligations if one.kind not in {"approval", STEP_UP})
