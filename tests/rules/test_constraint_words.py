"""Constraints in words: short where they are simple, never to be taken for another value."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_authz.rules.condition import parse_where, read_constraint
from mcp_authz.rules.constraint import parse_constraint
from mcp_authz.rules.constraint_words import tool_words, words


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("repo=api", "is api"),
        ("repo=api|web|docs", "is api, docs or web"),
        ("branch!=main", "is not main"),
        ("branch!=main|dev", "is not dev or main"),
        ("path=under:/srv/app", "under /srv/app"),
        ("path=under:/srv/my app", 'under "/srv/my app"'),
        ("amount=1..100", "from 1 to 100"),
        ("amount=..100", "at most 100"),
        ("amount=1.5..", "at least 1.5"),
        ("title=*", "is anything"),
        ("draft?:=false", "is false, or is left out"),
        ("count:=3", "is 3"),
        ("count=3", 'is "3"'),
        ("flag=true", 'is "true"'),
        ("at:={\"line\":[1]}", 'is {"line": [1]}'),
        ('text:="\\u202eabc"', 'is "\\u{202e}abc"'),
        ('text:="a\\"b"', 'is "a\\"b"'),
        ('text:="\\u0430pi"', 'is "аpi"'),  # noqa: RUF001 - a Cyrillic letter, which is no reason to hide it
    ],
)  # fmt: skip
def test_a_condition_reads_as_it_was_meant(typed: str, said: str) -> None:
    assert words(read_constraint(parse_where(typed))) == said


@pytest.mark.parametrize(
    ("constraint", "said"),
    [
        ({"constraint_type": "range"}, "is a number"),
        ({"constraint_type": "range", "min": 1, "max": 5, "min_inclusive": False}, "above 1 and at most 5"),
        ({"constraint_type": "range", "max": 5, "max_inclusive": False}, "below 5"),
        ({"constraint_type": "one_of", "values": []}, "can be nothing"),
        ({"constraint_type": "not_one_of", "excluded": []}, "is anything"),
        ({"constraint_type": "contains", "required": ["a", "b"]}, "has a and b"),
        ({"constraint_type": "contains", "required": []}, "is a list"),
        ({"constraint_type": "subset", "allowed": ["a"]}, "has only a"),
        ({"constraint_type": "subset", "allowed": []}, "is an empty list"),
        (
            {
                "constraint_type": "all",
                "constraints": [
                    {"constraint_type": "range", "min": 1},
                    {
                        "constraint_type": "any",
                        "constraints": [
                            {"constraint_type": "exact", "value": 3},
                            {"constraint_type": "not_one_of", "excluded": [5]},
                        ],
                    },
                ],
            },
            "at least 1 and (is 3 or is not 5)",
        ),
        ({"constraint_type": "all", "constraints": [{"constraint_type": "wildcard"}]}, "is anything"),
    ],
)
def test_every_kind_has_words(constraint: dict[str, Any], said: str) -> None:
    assert words(parse_constraint(constraint)) == said


def test_the_arguments_of_a_tool_are_one_line_and_free_ones_come_last() -> None:
    typed = ["title?=*", "repo=api", "body?=*", "count:=3", "a b=x"]
    read = {parse_where(one).argument: read_constraint(parse_where(one)) for one in typed}
    assert tool_words(read) == 'repo is api; count is 3; "a b" is x; title, body free'
    assert tool_words({}) == "any arguments"
