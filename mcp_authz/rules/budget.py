"""How much one call takes from a budget, in exact decimal numbers: millionths as integers, never floats."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from mcp_authz.errors import ConfigError, InputError

SCALE: Final = 1_000_000  # what an amount is multiplied with to be an integer: six decimal places
_MOST: Final = 1_000_000_000_000  # of anything; a thousand times that still fits into the store's 64 bits
_AMOUNT: Final = re.compile(r"(0|[1-9][0-9]{0,12})(?:\.([0-9]{1,6}))?", re.ASCII)
_SOURCE: Final = re.compile(r"\{([A-Za-z0-9_.$-]{1,128})\}", re.ASCII)
_RESOURCE: Final = "resource."


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a call takes, and how much there is: for one call, one session, and one person's day in UTC."""

    source: str | int  # an argument's name, `resource.` and an attribute's name, or millionths that each call takes
    per_call: int | None = None
    per_session: int | None = None
    per_day: int | None = None

    def amount(self, arguments: Mapping[str, Any], resource: Mapping[str, Any]) -> int:
        """Return what a call with these arguments takes, in millionths.

        Raises:
            InputError: there is nothing to read, or it is no amount. It names members, never values.
        """
        if isinstance(self.source, int):
            return self.source
        name = self.source.removeprefix(_RESOURCE)
        found = resource.get(name) if self.source.startswith(_RESOURCE) else arguments.get(name)
        if found is None:
            raise InputError(f"`{self.source}` is missing, and says how much the call takes")
        try:
            return read_amount(found)
        except InputError as error:
            raise InputError(f"`{self.source}`: {error}") from None

    def refuses(self, arguments: Mapping[str, Any], resource: Mapping[str, Any]) -> str | None:
        """Return why not even an untouched budget has room for the call; None when it may have.

        Raises:
            InputError: how much the call takes cannot be read.
        """
        amount = self.amount(arguments, resource)
        limits = {"call": self.per_call, "session": self.per_session, "day": self.per_day}
        for what, most in limits.items():
            if most is not None and amount > most:
                return f"more than {written(most)} for one {what}"
        return None


def read_amount(value: object) -> int:
    """Return an amount in millionths: of an integer that is not negative, or of its one decimal spelling as text.

    Raises:
        InputError: it is something else: negative, beyond a million millions, a float, more than six decimal places.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise InputError("an amount is an integer, or a decimal number as text such as `12.50`")
    found = _AMOUNT.fullmatch(str(value)) if isinstance(value, str) or 0 <= value <= _MOST else None
    if found is None:
        raise InputError("an amount is not negative, has at most six decimal places, and is written like `12.50`")
    amount = int(found[1]) * SCALE + int((found[2] or "").ljust(6, "0"))
    if amount > _MOST * SCALE:
        raise InputError("the amount is too large")
    return amount


def read_source(text: str) -> str | int:
    """Return where an amount is read, of a template: `{argument}`, `{resource.attribute}`, or a number.

    Raises:
        ConfigError: it is none of these.
    """
    if found := _SOURCE.fullmatch(text):
        return found[1]
    try:
        return read_amount(text)
    except InputError:
        raise ConfigError(f"`{text}` is no `{{argument}}`, no `{{resource.attribute}}`, and no number") from None


def written(amount: int) -> str:
    """Return millionths as people write them."""
    whole, rest = divmod(amount, SCALE)
    return f"{whole}.{rest:06d}".rstrip("0").rstrip(".") if rest else str(whole)
