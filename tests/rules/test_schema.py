"""What arguments may be, and that no schema and no arguments keep the gateway busy."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from mcp_authz import limits
from mcp_authz.rules.offered import fits_template
from mcp_authz.rules.plain_schema import plain
from mcp_authz.rules.schema import ArgumentSchema

SMALL = st.integers(0, 2)
NAMES = st.sampled_from("ab")
DIALECTS = [
    "https://json-schema.org/draft/2020-12/schema",
    "https://json-schema.org/draft/2019-09/schema",
    "http://json-schema.org/draft-07/schema#",
    "http://json-schema.org/draft-04/schema#",
]


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Interrupt what takes more time of the processor; a busy machine takes nothing from it."""

    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def accepts(schema: dict[str, Any], value: Any) -> bool:
    return ArgumentSchema({"type": "object", "properties": {"a": schema}}).problem({"a": value}) is None


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"pattern": "^a+$"}, "aaa", "aab"),
        ({"pattern": "b"}, "abc", "acd"),  # a pattern is searched for, not matched from the start
        ({"pattern": "^a$"}, "a", "a\n"),
        ({"pattern": "^a$"}, 5, "b"),  # of a number it says nothing
        ({"patternProperties": {"^x-": {"type": "string"}}}, {"x-a": "b", "y": 1}, {"x-a": 1}),
        ({"patternProperties": {"^x-": {}}, "additionalProperties": False}, {"x-a": 1}, {"y": 1}),
        ({"properties": {"b": {}}, "additionalProperties": False}, {"b": 1}, {"c": 1}),
        ({"additionalProperties": {"type": "string"}}, {"c": "d"}, {"c": 1}),
        ({"uniqueItems": True}, [1, "1", True, [1], {"a": 1}], [1, 1.0]),
        ({"uniqueItems": True}, [0, False], [{"a": 1, "b": 2}, {"b": 2, "a": 1}]),
        ({"uniqueItems": False}, [1, 1], None),
        ({"unevaluatedProperties": False, "allOf": [{"properties": {"b": {}}}]}, {"b": 1}, {"c": 1}),
    ],
)
def test_keywords_mean_what_the_standard_says(schema: dict[str, Any], good: Any, bad: Any) -> None:
    assert accepts(schema, good)
    assert bad is None or not accepts(schema, bad)


def test_a_pattern_that_needs_backtracking_is_left_to_the_tool_server() -> None:
    assert accepts({"pattern": "^(?!x)"}, "x")


def test_what_is_wrong_is_said_without_the_value() -> None:
    schema = {"type": "object", "properties": {"a": {"pattern": "^a$"}, "b": {"uniqueItems": True}}}
    said = str(ArgumentSchema(schema).problem({"a": "CANARY"})) + str(ArgumentSchema(schema).problem({"b": ["C", "C"]}))
    assert "`a` must satisfy pattern ^a$" in said and "`b` must satisfy uniqueItems" in said and "CANARY" not in said


EVIL = "^(a+)+$"
BUSY: dict[str, tuple[dict[str, Any], Any]] = {
    "a pattern": ({"pattern": EVIL}, "a" * 60 + "b"),
    "a pattern over a long text": ({"pattern": "(a|a)*b|c.*d.*e"}, "a" * 4_000_000),
    "many patterns": ({"allOf": [{"pattern": f"a.*{n}"} for n in range(5000)]}, "a" * 1_000_000),
    "a pattern of names": ({"patternProperties": {EVIL: {}}}, {"a" * 60 + "b": 1}),
    "a pattern of other names": ({"patternProperties": {EVIL: {}}, "additionalProperties": False}, {"a" * 60 + "b": 1}),
    "a pattern of names left over": (
        {"patternProperties": {EVIL: {}}, "unevaluatedProperties": False},
        {"a" * 60 + "b": 1},
    ),
    "many names and many patterns": (
        {"patternProperties": {f"^{n}a": {} for n in range(5000)}},
        {f"x{n}": 1 for n in range(100_000)},
    ),
    "items of many kinds": ({"uniqueItems": True}, [x for n in range(60_000) for x in (n, str(n))]),
    "many items": ({"items": {"type": "integer", "minimum": 0}}, list(range(1_000_000))),
    "many values": ({"items": {"enum": [*range(20_000)]}}, [-1] * 100_000),
}


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("what", BUSY)
def test_no_arguments_keep_the_gateway_busy(what: str, dialect: str) -> None:
    schema, value = BUSY[what]
    with within(5):
        ArgumentSchema({"$schema": dialect, "properties": {"a": schema}}).problem({"a": value})


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_part_that_names_its_own_dialect_is_bounded_too(dialect: str) -> None:
    inner = {"$schema": dialect, "allOf": [{"pattern": EVIL}]}
    with within(5):
        ArgumentSchema({"properties": {"a": inner}}).problem({"a": "a" * 60 + "b"})


@pytest.mark.parametrize("keyword", ["anyOf", "allOf", "oneOf"])
def test_references_that_double_at_each_step_come_to_an_end(keyword: str) -> None:
    steps = {str(n): {keyword: [{"$ref": f"#/$defs/{n + 1}"}] * 2} for n in range(40)}
    schema = {"$defs": {**steps, "40": {"type": "string"}}, "properties": {"a": {"$ref": "#/$defs/0"}}}
    with within(10):
        said = ArgumentSchema(schema).problem({"a": "x" if keyword == "allOf" else 1})
    assert said is not None and "too large to be checked" in said


def test_a_schema_that_refers_to_itself_or_abroad_is_refused_without_a_request() -> None:
    for reference in ("#", "#/properties/a", "http://127.0.0.1:1/schema.json", "file:///etc/passwd"):
        with within(5):
            assert not accepts({"$ref": reference}, 1) or reference.startswith("#")


def test_each_call_has_the_whole_budget() -> None:
    schema = ArgumentSchema({"properties": {"a": {"items": {"type": "integer"}}}})
    for _ in range(5):
        assert schema.problem({"a": [1] * 20_000}) is None


@pytest.mark.parametrize(
    ("uri", "template", "fits"),
    [
        ("file:///a", "file:///{name}", True),
        ("file:///a/b", "file:///{name}", False),
        ("file:///a/b", "file:///{+path}", True),
        ("file:///", "file:///{name}", False),
        ("file:///", "file:///{+path}", True),
        ("db://t/1/c", "db://{t}/{id}/c", True),
        ("db://t/1/d", "db://{t}/{id}/c", False),
        ("a.b", "a{x}b", True),
        ("axb", "a.b", False),
        ("x" * 5000, "{+all}", False),
        ("", "", True),
    ],
)
def test_a_uri_fits_a_template_segment_by_segment(uri: str, template: str, fits: bool) -> None:
    assert fits_template(uri, template) is fits


def test_no_template_keeps_the_gateway_busy() -> None:
    with within(5):
        for variable in ("{+a}", "{a}", "a{+a}"):
            assert not fits_template("a" * 2000 + "/", variable * 8 + "b")


_PLAIN = st.recursive(
    st.one_of(
        st.fixed_dictionaries({"type": st.just("string")}, optional={"minLength": SMALL, "maxLength": SMALL}),
        st.fixed_dictionaries({"type": st.just("string"), "enum": st.lists(st.sampled_from("ab"), min_size=1)}),
        st.fixed_dictionaries(
            {"type": st.sampled_from(["integer", "number"])}, optional={"minimum": SMALL, "maximum": SMALL}
        ),
        st.just({"type": "boolean"}),
    ),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"type": st.just("array"), "items": inner}),
        st.fixed_dictionaries(
            {"type": st.just("object"), "properties": st.dictionaries(NAMES, inner)},
            optional={"required": st.lists(NAMES, unique=True), "additionalProperties": st.booleans()},
        ),
    ),
    max_leaves=4,
)
_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), SMALL, st.sampled_from([0.0, 1.0, 1.5, "", "a", "b", "ab"])),
    lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(NAMES, inner, max_size=2)),
    max_leaves=4,
)


@given(_PLAIN, _VALUES)
def test_whatever_the_short_check_of_a_plain_schema_lets_through_fits(schema: dict[str, Any], value: Any) -> None:
    passes = plain(schema, steps=limits.SCHEMA_STEPS)
    assert passes is not None
    if passes(value):
        Draft202012Validator(schema).validate(value)


@pytest.mark.parametrize("value", [{"a": 1, "b": "x"}, {"a": 0, "b": "xyz", "c": [True]}])
def test_the_short_check_lets_ordinary_calls_through(value: dict[str, Any]) -> None:
    named = {
        "a": {"type": "integer", "minimum": 0, "description": "how many"},
        "b": {"type": "string", "maxLength": 3},
        "c": {"type": "array", "items": {"type": "boolean"}},
    }
    said = {"type": "object", "properties": named, "required": ["a"], "additionalProperties": False}
    passes = plain(said, steps=limits.SCHEMA_STEPS)
    assert passes is not None and passes(value)
    assert not any(map(passes, ({**value, "a": True}, {**value, "b": "wxyz"}, {**value, "d": 1}, {"b": "x"}, [value])))


@pytest.mark.parametrize(
    "schema",
    [
        {},
        True,
        {"type": ["string", "null"]},
        {"type": "string", "pattern": "a"},
        {"type": "object", "properties": {"a": {"$ref": "#"}}},
        {"type": "object", "additionalProperties": {"type": "string"}},
        {"type": "integer", "minimum": 0.5},
        {"type": "string", "$schema": "http://json-schema.org/draft-04/schema#"},
        {"type": "string", "new": 1},
    ],
)
def test_a_schema_that_says_more_is_left_to_the_whole_check(schema: Any) -> None:
    assert plain(schema, steps=limits.SCHEMA_STEPS) is None


def test_what_is_too_much_for_the_whole_check_is_too_much_for_the_short_one() -> None:
    words = [f"w{number}" for number in range(5_000)]
    cases = [
        (
            {"type": "array", "items": {"type": "array", "items": {"type": "string", "enum": words}}},
            [[words[-1]] * 100] * 20,
        ),
        ({"type": "array", "items": {"type": "integer"}}, [1] * limits.SCHEMA_STEPS),
        ({"type": "object", "required": words}, dict.fromkeys(words, 1)),
    ]
    for schema, value in cases:
        passes = plain(schema, steps=limits.SCHEMA_STEPS)
        with within(1):
            assert passes is not None and not passes(value)
            told = ArgumentSchema({"type": "object", "properties": {"a": schema}}).problem({"a": value})
        assert told is None or "too large" in told


@given(_PLAIN, _VALUES)
def test_the_short_check_never_takes_more_than_the_budget_of_the_whole_one(schema: dict[str, Any], value: Any) -> None:
    passes, whole = plain(schema, steps=60), ArgumentSchema({"type": "object", "properties": {"a": schema}})
    if passes is not None and passes(value):
        whole._passes = None
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(limits, "SCHEMA_STEPS", 60 + 10)  # what is around it
            assert whole.problem({"a": value}) is None
