"""Strict JSON: bytes that are accepted here mean the same to every later reader.

Whatever two parsers could read differently is refused instead of repaired (RFC 8259 sections 4, 6, 8 and 9; RFC 7493).
"""

from __future__ import annotations

import json
import re
from itertools import accumulate, count
from operator import sub
from typing import Any, Final

from mcp_authz import limits
from mcp_authz.errors import InputError

JsonObject = dict[str, Any]

_STRING: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_STEPS: Final = bytes.maketrans(b"[{]}", b"\2\2\0\0")
_NOT_BRACKETS: Final = bytes(set(range(256)) - set(b"[]{}"))

# Text whose every escape is whole: no NUL, and each surrogate stands in a pair. Possessive, so memory stays flat.
_WHOLE_ESCAPES: Final = re.compile(
    r"(?:[^\\]++"
    r"|\\[^u]"
    r"|\\u(?!0000|[dD][89a-fA-F])[0-9a-fA-F]{4}"
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r")*+"
)


def parse_object(raw: bytes, *, max_bytes: int = limits.BODY_BYTES, max_depth: int = limits.JSON_DEPTH) -> JsonObject:
    """Return the one JSON object that `raw` is, read in the only way it can be read.

    Raises:
        InputError: `raw` is no JSON object, or breaks a rule of `parse_value`.
    """
    value = parse_value(raw, max_bytes=max_bytes, max_depth=max_depth)
    if not isinstance(value, dict):
        raise InputError("expected a JSON object, not another JSON value")
    return value


def parse_value(raw: bytes, *, max_bytes: int = limits.BODY_BYTES, max_depth: int = limits.JSON_DEPTH) -> Any:
    """Return the one JSON value that `raw` is: UTF-8, bounded, no key twice, no number or text of two readings.

    Raises:
        InputError: a rule is broken; the message says which, and never repeats a value.
    """
    if len(raw) > max_bytes:
        raise InputError(f"the JSON text is longer than {max_bytes} bytes")
    text = _text(raw)
    _require_shallow(raw, max_depth)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise InputError(_explanation(error)) from None  # the cause would carry the whole text
    if "\\u" in text and not _WHOLE_ESCAPES.fullmatch(text):
        raise InputError("a string has a NUL character or half of a surrogate pair")
    return value


def dump(value: Any) -> bytes:
    """Return `value` as compact UTF-8 JSON, members in their order.

    Raises:
        InputError: the value is not JSON, or has a number or text that JSON cannot carry.
    """
    try:
        return _ENCODER.encode(value).encode()
    except (TypeError, ValueError, RecursionError):
        raise InputError("the value cannot be written as JSON") from None


def _text(raw: bytes) -> str:
    if raw.startswith(b"\xef\xbb\xbf"):
        raise InputError("the JSON text starts with a byte order mark; leave it out")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"the JSON text is not UTF-8 at byte {error.start}") from None


def _require_shallow(raw: bytes, max_depth: int) -> None:
    """Know, without recursion, that the parser will not have more than `max_depth` brackets open at once."""
    if raw.count(b"{") + raw.count(b"[") <= max_depth:
        return
    steps = _STRING.sub(b"", raw).translate(_STEPS, _NOT_BRACKETS)
    depth = max(map(sub, accumulate(steps), count(1)), default=0)  # a step is 2 up or 0 down, less 1 each time
    if depth > max_depth:
        raise InputError(f"the JSON text is nested deeper than {max_depth} levels")


def _members(pairs: list[tuple[str, Any]]) -> JsonObject:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise InputError("an object has the same key twice")
    return members


def _integer(digits: str) -> int:
    if len(digits) > 17 or abs(number := int(digits)) > limits.JSON_INTEGER:
        raise InputError("an integer is beyond 2^53-1, where readers differ; send it as a string")
    return number


def _float(digits: str) -> float:
    number = float(digits)
    if not abs(number) <= limits.JSON_INTEGER:  # every float beyond is integral; infinity is one of them
        raise InputError("a number is beyond 2^53-1, where readers differ; send it as a string")
    return number


def _constant(_: str) -> float:
    raise InputError("a number is NaN or infinite, which JSON does not have")


def _explanation(error: json.JSONDecodeError) -> str:
    where = f"line {error.lineno}, column {error.colno}"
    if error.msg == "Extra data":
        return f"something follows the JSON value at {where}"
    if error.msg.startswith("Invalid control character"):
        return f"a string has an unescaped control character at {where}"
    return f"the text is not valid JSON at {where}"


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_members, parse_int=_integer, parse_float=_float, parse_constant=_constant
)
_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":"))
