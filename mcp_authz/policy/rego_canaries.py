"""Questions with known answers, put to the Rego library at each start: if one is answered otherwise, nothing starts.

The answers are OPA's. Each allowed builtin has one, and so has each thing the library does that a denial rests on:
that an error, a conflict and a comparison of two types are errors, and that nothing is not false.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any, Final

from mcp_authz.errors import ConfigError, PolicyError
from mcp_authz.policy import rego_plan
from mcp_authz.policy.rego_process import RegoProcess, compiler

_INPUT: Final[dict[str, Any]] = {
    "s": "Straße, a-b",
    "n": [1, 2, 3],
    "o": {"a": 1},
    "x": 3,
    "f": 2.5,
    "big": 9223372036854775807,
    "t": True,
    "none": None,
    "empty": [],
}

ANSWERS: Final[dict[str, Any]] = {
    "input.x > 2": True,
    "input.x >= 3": True,
    "input.x < 2": False,
    "input.x <= 3": True,
    "input.f > 2.4": True,
    'input.s > "Str"': True,
    '"é" < "z"': False,
    '"2026-10-19T09:30:00.000Z" < "2026-10-19T09:30:00.001Z"': True,
    "input.x == 3": True,
    "input.x == 3.0": True,
    'input.x == "3"': False,
    "input.t == 1": False,
    'input.t == "true"': False,
    "input.x != 3": False,
    "input.n == [1, 2, 3]": True,
    "input.n == [3, 2, 1]": False,
    "2 in input.n": True,
    "4 in input.n": False,
    "1, 2 in input.n": True,
    "input.x + 1": 4,
    "input.x - 1": 2,
    "{1, 2} - {2}": [1],
    "input.x * 2": 6,
    "input.x / 2": 1.5,
    "input.x % 2": 1,
    "input.big + 1": 9223372036854775808,
    "abs(0 - input.x)": 3,
    "ceil(input.f)": 3,
    "floor(input.f)": 2,
    "round(input.f)": 3,
    "sum(input.n)": 6,
    "count(input.n)": 3,
    "count(input.s)": 11,
    "is_array(input.n)": True,
    "is_boolean(input.t)": True,
    "is_null(input.none)": True,
    "is_number(input.x)": True,
    "is_object(input.o)": True,
    "is_set({1})": True,
    "is_string(input.s)": True,
    "type_name(input.s)": "string",
    'contains(input.s, "ß")': True,
    'startswith(input.s, "Str")': True,
    'endswith(input.s, "A-B")': False,
    'indexof(input.s, "a-b")': 8,
    "substring(input.s, 0, 5)": "Straß",
    'replace(input.s, "a", "o")': "Stroße, o-b",
    'split(input.s, ",")': ["Straße", " a-b"],
    'concat("/", ["a", input.s])': "a/Straße, a-b",
    'trim_prefix(input.s, "Stra")': "ße, a-b",
    'trim_suffix(input.s, "b")': "Straße, a-",
    'to_number("12")': 12,
    'glob.match("pr.*", ["."], "pr.create")': True,
    'glob.match("pr.*", ["."], "pr.create.x")': False,
    "{1, 2} & {2, 3}": [2],
    "{1, 2} | {3}": [1, 2, 3],
    "union({{1}, {2}})": [1, 2],
    "intersection({{1, 2}, {2}})": [2],
    "array.concat(input.n, [4])": [1, 2, 3, 4],
    'object.get(input.o, "z", 7)': 7,
    "object.keys(input.o)": ["a"],
    "[n | n := input.n[_]; n > 1]": [2, 3],
    "{name: n | n := input.o[name]}": {"a": 1},
    "input.nothing": None,  # undefined: the rule is not there
    "input.nothing == input.nothing": None,
    "input.empty[_]": None,
}
"""Rego expressions over `_INPUT`, with what they are; None: undefined."""

ERRORS: Final = (
    "input.s > 2",
    "2 < input.s",
    "input.t >= 2",
    "input.none <= 2",
    "count(input.x)",
    "startswith(input.x, input.s)",
    "1 / (input.x - 3)",
    "input.s + 1",
    'to_number("x")',
)
"""Expressions that must be errors, which deny, and not merely undefined, which a `not` would turn round."""

_LINES: Final = (
    "package canary",
    "import future.keywords.in",
    *(f"a{number} = v {{ input.ask == 0; v := {text} }}" for number, text in enumerate(ANSWERS)),
    *(f"e{number} = v {{ input.ask == {number + 1}; v := {text} }}" for number, text in enumerate(ERRORS)),
    f"conflict = 1 {{ input.ask == {len(ERRORS) + 1} }}",
    f"conflict = 2 {{ input.ask == {len(ERRORS) + 1} }}",
)


def require_known_answers(version: str) -> None:
    """Return once the library has given the known answers, through the machinery that every policy goes through.

    Raises:
        ConfigError: it does not; it is not the library that this gateway was tested with.
    """
    wrong = _wrong_answers(version)
    if wrong:
        raise ConfigError(
            f"regopy {version} does not answer as it should: {'; '.join(wrong[:3])}; "
            "install the version that `pip install 'mcp-authz[rego]'` takes, or use Cedar"
        )


@lru_cache(maxsize=1)
def _wrong_answers(version: str) -> tuple[str, ...]:
    """What is wrong with this version, once in the life of this process: its libraries do not change under it."""
    try:
        sources = {"canary.rego": "\n".join(_LINES), rego_plan.GUARD_FILE: rego_plan.GUARD_TEXT}
        with compiler() as compile_:
            process = RegoProcess(rego_plan.checked(compile_(sources, "x = data.canary"), {}))
        return (*_differing(process), *_no_errors(process))
    except PolicyError as error:
        return (str(error),)


def _differing(process: RegoProcess) -> list[str]:
    answered = json.loads(process.ask({**_INPUT, "ask": 0}) or "{}")
    got = answered.get("bindings", {}).get("x", {})
    return [text for number, (text, known) in enumerate(ANSWERS.items()) if not _same(got.get(f"a{number}"), known)]


def _no_errors(process: RegoProcess) -> list[str]:
    asked = [*ERRORS, "two values of one rule"]
    return [text for number, text in enumerate(asked, 1) if process.ask({**_INPUT, "ask": number}) is not None]


def _same(got: Any, known: Any) -> bool:
    return bool(type(got) is type(known) and got == known)
