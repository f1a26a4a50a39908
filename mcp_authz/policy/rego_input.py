"""The input document as the Rego library holds it without loss: what it would change becomes text, or is refused.

As in Cedar, an integer beyond 64 bits and a float that six digits after the point do not hold are text; comparing one
with a number is an error, and an error denies. Text with a NUL, which the library would cut there, is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any, Final

from mcp_authz.errors import PolicyError

_LONG: Final = range(-(2**63), 2**63)
_EXACT: Final = 2**53  # beyond it a float stands for several integers
_DIGITS: Final = 6  # after the point, that the library keeps


def rego_input(value: Any) -> Any:
    """Return the document with every value as the library holds it.

    Raises:
        PolicyError: it has text with a NUL or a lone surrogate, is nested too deeply, or is no JSON.
    """
    try:
        return _normal(value)
    except RecursionError:
        raise PolicyError("the input is nested too deeply") from None


def _normal(value: Any) -> Any:
    match value:
        case str():
            return _text(value)
        case None | bool():
            return value
        case int():
            return value if value in _LONG else str(value)
        case float():
            return _number(value)
        case Mapping():
            return {_text(name): _normal(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_normal(item) for item in value]
        case _:
            raise PolicyError("the input has something that is no JSON value")


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise PolicyError("the input has a name that is no text")
    if "\0" in value:
        raise PolicyError("the input has text with a NUL")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise PolicyError("the input has text that is not Unicode") from None
    return value


def _number(value: float) -> int | float | str:
    if not isfinite(value):
        raise PolicyError("the input has a number that is not finite")
    if value.is_integer() and abs(value) <= _EXACT:
        return int(value)
    exact = abs(value) <= _EXACT and float(f"{value:.{_DIGITS}f}") == value
    return value if exact else repr(value)
