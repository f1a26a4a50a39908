"""What people type of arguments, and what it means."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_authz.errors import ConstraintError
from mcp_authz.rules.condition import parse_where, read_constraint
from mcp_authz.rules.constraint import Constraint, parse_tools, permits_call, to_json, tools_narrow
from mcp_authz.rules.where import ArgumentsUnknown, closed_shape, exact_tools_map, tools_map

SCHEMA = {
    "repo": {"type": "string"},
    "amount": {"type": "number"},
    "count": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
    "draft": {"type": ["boolean", "null"]},
    "labels": {"type": "array", "items": {"type": "string"}},
    "numbers": {"type": "array", "items": {"type": "integer"}},
    "either": {"type": ["string", "integer"]},
    "number": {"type": ["integer", "number"]},
}
ANYTHING: dict[str, Any] = {"constraint_type": "optional", "constraint": {"constraint_type": "wildcard"}}

SUBSET = 'labels:={"constraint_type":"subset","allowed":["a","b"]}'
ALL = 'x:={"constraint_type":"all","constraints":[{"constraint_type":"range","min":1}]}'


def read(text: str, schema: object = None, had: Constraint | None = None) -> dict[str, Any]:
    return read_constraint(parse_where(text), schema, had).to_json()


def exact(value: object) -> dict[str, Any]:
    return {"constraint_type": "exact", "value": value}


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("repo=api", exact("api")),
        ("repo=3", exact("3")),
        ("repo=a=b", exact("a=b")),
        ("repo=..", exact("..")),
        ("repo=main..dev", exact("main..dev")),
        ("repo=api|web", {"constraint_type": "one_of", "values": ["api", "web"]}),
        ("branch!=main", {"constraint_type": "not_one_of", "excluded": ["main"]}),
        ("branch!=main|dev", {"constraint_type": "not_one_of", "excluded": ["dev", "main"]}),
        ("path=under:/srv/app", {"constraint_type": "under", "root": "/srv/app"}),
        ("amount=1..100", {"constraint_type": "range", "min": 1, "max": 100}),
        ("amount=..100", {"constraint_type": "range", "max": 100}),
        ("amount=-1.5..", {"constraint_type": "range", "min": -1.5}),
        ("title=*", {"constraint_type": "wildcard"}),
        ("title?=*", ANYTHING),
        ("draft?:=false", {"constraint_type": "optional", "constraint": exact(False)}),
        ("count:=3", exact(3)),
        ('repo:="a|b*"', exact("a|b*")),
        ('at:={"line":1}', exact({"line": 1})),
        (
            'labels:={"constraint_type":"contains","required":["x"]}',
            {"constraint_type": "contains", "required": ["x"]},
        ),
    ],
)
def test_a_condition_means_what_it_looks_like(typed: str, meant: dict[str, Any]) -> None:
    assert read(typed) == meant


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("repo=3", exact("3")),
        ("amount=1.5", exact(1.5)),
        ("count=3", exact(3)),
        ("count=1|2", {"constraint_type": "one_of", "values": [1, 2]}),
        ("draft=false", exact(False)),
        ("labels=bug|docs", {"constraint_type": "subset", "allowed": ["bug", "docs"]}),
        ("labels=bug", {"constraint_type": "subset", "allowed": ["bug"]}),
        ("labels=*", {"constraint_type": "wildcard"}),
        ("labels=1..3", {"constraint_type": "subset", "allowed": ["1..3"]}),
        ("numbers=1|2", {"constraint_type": "subset", "allowed": [1, 2]}),
        ("either=3", exact("3")),
        ("number!=3", {"constraint_type": "not_one_of", "excluded": [3]}),
    ],
)
def test_the_schema_says_what_a_value_is(typed: str, meant: dict[str, Any]) -> None:
    assert read(typed, SCHEMA[parse_where(typed).argument]) == meant


@pytest.mark.parametrize(
    ("had", "typed", "meant"),
    [
        ("count=1..5", "count=3", exact(3)),
        ("count?:=3", "count=3", exact(3)),
        ("draft:=true", "draft=true", exact(True)),
        (SUBSET, "labels=a", {"constraint_type": "subset", "allowed": ["a"]}),
        ("repo=3|4", "repo=3", exact("3")),
        (ALL, "x=3", exact(3)),
        ("count=1..5", "count=..3", {"constraint_type": "range", "min": 1, "max": 3}),
        ("count?=1..5", "count=2..", {"constraint_type": "range", "min": 2, "max": 5}),
        ("branch!=main", "branch!=dev", {"constraint_type": "not_one_of", "excluded": ["dev", "main"]}),
    ],
)
def test_what_was_there_before_says_what_a_value_is_and_stays_where_nothing_else_is_said(
    had: str, typed: str, meant: dict[str, Any]
) -> None:
    assert read(typed, None, read_constraint(parse_where(had))) == meant


@pytest.mark.parametrize(
    ("typed", "schema", "say"),
    [
        ("repo", None, "write one such as repo=api"),
        ("", None, "write one such as"),
        ("=api", None, "write one such as"),
        ("?=api", None, "write one such as"),
        ("repo=", None, """write repo:='""' if that is meant"""),
        ("repo=api|", None, "empty value"),
        ("repo=api*", None, "stands alone"),
        ("path=under:", None, "argument `path`"),
        ("path=under:/a/../b", None, "argument `path`"),
        ("amount=5..1", None, "lower end first"),
        ("amount=1..99999999999999999999", None, "no call can have"),
        ("count=99999999999999999999", SCHEMA["count"], "no call can have"),
        ("numbers=a", SCHEMA["numbers"], "cannot be `a`"),
        ("repo=1..5", SCHEMA["repo"], 'write repo:="1..5"'),
        ("count=many", SCHEMA["count"], "write count=3"),
        ("count=1.5", SCHEMA["count"], "write count=3"),
        ("amount=x", SCHEMA["amount"], "write amount=1.5"),
        ("draft=no", SCHEMA["draft"], "write draft=true or false"),
        ("labels!=bug", SCHEMA["labels"], "write what it may hold"),
        ("repo:=api", None, "write repo=api"),
        ('repo:={"constraint_type":"regex"}', None, "unknown constraint_type"),
        (f"repo?:={json.dumps(ANYTHING)}", None, "leave the `?` away"),
    ],
)
def test_what_cannot_be_read_is_answered_with_what_to_write(typed: str, schema: object, say: str) -> None:
    with pytest.raises(ConstraintError) as refused:
        read(typed, schema)
    assert say in str(refused.value)


def test_arguments_that_nobody_named_may_be_anything_or_absent() -> None:
    found = tools_map(["acme__open"], ["repo=api"], {"acme__open": {"repo": {}, "title": {}}})
    assert to_json(found) == {"acme__open": {"repo": exact("api"), "title": ANYTHING}}
    assert permits_call(found, "acme__open", {"repo": "api"}) is None
    assert permits_call(found, "acme__open", {"repo": "api", "title": [1]}) is None
    assert permits_call(found, "acme__open", {"title": "x"}) is not None
    assert permits_call(found, "acme__open", {"repo": "api", "other": 1}) is not None


def test_without_a_condition_a_tool_takes_any_arguments() -> None:
    assert tools_map(["acme__open", "acme__list"], [], {}) == {"acme__open": {}, "acme__list": {}}


def test_a_condition_is_for_every_tool_or_for_the_one_it_names() -> None:
    schemas: dict[str, dict[str, Any]] = {
        "acme__open": {"repo": {}},
        "acme__list": {"repo": {}, "count": {"type": "integer"}},
    }
    found = tools_map(["acme__open", "acme__list"], ["repo=api", "acme__list.count=..5"], schemas)
    assert to_json(found) == {
        "acme__open": {"repo": exact("api")},
        "acme__list": {"repo": exact("api"), "count": {"constraint_type": "range", "max": 5}},
    }


def test_in_a_shape_that_was_closed_before_the_rest_stays_as_it_was() -> None:
    had = parse_tools({"t": {"owner": exact("acme"), "repo": ANYTHING}, "u": {}})
    found = tools_map(["t"], ["repo=api"], {}, had=had)
    assert to_json(found) == {"t": {"owner": exact("acme"), "repo": exact("api")}}
    tools_narrow(found, had)
    assert tools_map(["t", "u"], [], {}, had=had) == had


@pytest.mark.parametrize(
    ("tools", "where", "say"),
    [
        (["t"], ["branch=main"], "tool `t`: it has no argument `branch`; it has `count`, `repo`"),
        (["u"], ["repo=api"], "tool `u`: its arguments are not known here"),
        (["t"], ["repo=api", "repo!=web"], "argument `repo` has two conditions"),
        (["t"], ["count=x"], "tool `t`: argument `count` cannot be `x`"),
        ([], ["repo=api"], "name them"),
    ],
)
def test_a_refusal_names_tool_and_argument(tools: list[str], where: list[str], say: str) -> None:
    with pytest.raises(ConstraintError, match=say):
        tools_map(tools, where, {"t": {"repo": {}, "count": {"type": "integer"}}})


def test_a_tool_that_nobody_knows_is_told_from_a_condition_that_is_wrong() -> None:
    with pytest.raises(ArgumentsUnknown):
        tools_map(["t", "u"], ["repo=api"], {"t": {"repo": {}}})
    with pytest.raises(ConstraintError) as refused:
        tools_map(["t"], ["branch=main"], {"t": {"repo": {}}})
    assert not isinstance(refused.value, ArgumentsUnknown)


def test_a_shape_can_be_closed_exactly_as_typed_where_no_schema_is_known() -> None:
    found = exact_tools_map(["t"], ["repo=api", "title?=*"], {})
    assert to_json(found) == {"t": {"repo": exact("api"), "title": ANYTHING}}
    with pytest.raises(ConstraintError, match="tool `t`: argument `repo` has two"):
        exact_tools_map(["t"], ["repo=a", "repo=b"], {})


names = st.sampled_from(["repo", "title", "count", "path"])


@given(st.sets(names, min_size=1), st.sets(names))
def test_a_closed_shape_names_every_argument_of_the_tool_and_constrains_those_that_were_named(
    properties: set[str], named: set[str]
) -> None:
    constraints = {name: read_constraint(parse_where(f"{name}=x")) for name in named & properties}
    shape = closed_shape(constraints, properties)
    assert set(shape) == (properties if constraints else set())
    assert all(shape[name] == constraint for name, constraint in constraints.items())


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused_with_advice(text: str) -> None:
    try:
        read(text)
    except ConstraintError as error:
        assert str(error)
