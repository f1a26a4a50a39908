"""What a call acts upon: the resource attributes that a tool's entry takes from the arguments (DESIGN section 8).

`{name}` alone gives the argument's own JSON value; where the argument is absent, so is the attribute.

A mixed template such as `{owner}/{repo}` gives text, and no two different sets of arguments give the same text: each
value is a string or an integer of A-Z a-z 0-9 . _ - (the characters that scopes allow), so `acme/api` cannot pass
for an owner, and between two arguments stands a character that no value can hold. An absent argument is an error,
because half a name is the name of something else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from mcp_authz.errors import ConfigError, InputError

_VARIABLE: Final = re.compile(r"\{([A-Za-z0-9_.$-]{1,128})\}")
_VALUE: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_SEPARATOR: Final = re.compile(r"[^A-Za-z0-9._-]")


def resource_attributes(templates: Mapping[str, str], arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the attributes of the resource that a call with these arguments acts upon.

    Raises:
        InputError: an argument of a mixed template is absent, or is not a word that can stand in it.
        ConfigError: a template is malformed, or two arguments stand in it without a separator.
    """
    attributes: dict[str, Any] = {}
    for name, template in templates.items():
        pieces = parse_template(template)
        if len(pieces) == 3 and not pieces[0] and not pieces[2]:
            if pieces[1] in arguments:
                attributes[name] = arguments[pieces[1]]
        else:
            attributes[name] = _filled(pieces, arguments)
    return attributes


@lru_cache(maxsize=1024)
def parse_template(template: str) -> tuple[str, ...]:
    """Return literal text and argument names in turn; the first and the last piece are literal text, perhaps empty.

    Raises:
        ConfigError: a brace stands outside `{argument}`, or nothing separates two arguments for certain.
    """
    pieces = _VARIABLE.split(template)
    literals = pieces[::2]
    if any("{" in text or "}" in text for text in literals):
        raise ConfigError(f"resource template `{template}`: a brace stands only around an argument's name")
    if not all(_SEPARATOR.search(text) for text in literals[1:-1]):
        raise ConfigError(
            f"resource template `{template}`: put a character such as `/` or `:` between two arguments, "
            "one that their values cannot hold"
        )
    return tuple(pieces)


def _filled(pieces: tuple[str, ...], arguments: Mapping[str, Any]) -> str:
    return "".join(_word(piece, arguments) if index % 2 else piece for index, piece in enumerate(pieces))


def _word(name: str, arguments: Mapping[str, Any]) -> str:
    if name not in arguments:
        raise InputError(f"argument `{name}` is missing, and what this call acts upon depends on it")
    value = arguments[name]
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise InputError(f"argument `{name}` must be a string or an integer, because it names what the call acts upon")
    text = str(value)
    if not _VALUE.fullmatch(text) or text in (".", ".."):
        raise InputError(f"argument `{name}` must be 1 to 128 of A-Z a-z 0-9 . _ - and not `.` or `..`")
    return text
