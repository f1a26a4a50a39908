"""What a delegation permits of arguments, and that it only ever shrinks along a chain."""

from __future__ import annotations

import json
import re
from itertools import permutations
from time import process_time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcp_authz import limits
from mcp_authz.errors import ConstraintError, DelegationError
from mcp_authz.rules import constraint_kinds
from mcp_authz.rules.canonical import canonical
from mcp_authz.rules.constraint import (
    AllOf,
    Constraint,
    OneOf,
    Optionally,
    ToolsMap,
    Wildcard,
    narrows,
    parse_constraint,
    parse_tools,
    permits_call,
    require_bounded,
    to_json,
    tools_narrow,
)
from tests.rules.drawn import (
    WILDCARD,
    Json,
    all_of,
    any_of,
    arguments,
    constraints,
    contains,
    exact,
    leaves,
    narrower,
    near,
    not_one_of,
    one_of,
    optional,
    subset,
    under,
    within,
    words,
)


@settings(max_examples=120, deadline=None)
@given(constraints, constraints, st.lists(arguments, min_size=10, max_size=10))
def test_what_a_narrowing_child_permits_its_parent_permits(
    child: Constraint, parent: Constraint, values: list[object]
) -> None:
    if narrows(child, parent):
        assert not isinstance(child, Optionally) or isinstance(parent, Optionally)  # nor may the argument go missing
        assert all(parent.permits(value) for value in values if child.permits(value))


@settings(max_examples=120, deadline=None)
@given(constraints, st.data())
def test_what_is_made_narrower_narrows(constraint: Constraint, data: st.DataObject) -> None:
    assert narrows(narrower(constraint, data), constraint)


@settings(max_examples=120, deadline=None)
@given(constraints, st.lists(arguments, min_size=6, max_size=6), st.data())
def test_what_the_leaf_of_a_chain_permits_every_ancestor_permits(
    root: Constraint, values: list[object], data: st.DataObject
) -> None:
    chain = [root]
    for _ in range(3):
        chain.append(narrower(chain[-1], data))
    for value in [*values, *(one for link in chain for one in near(link))]:
        if chain[-1].permits(value):
            assert all(link.permits(value) for link in chain)


@settings(max_examples=120, deadline=None)
@given(constraints, constraints)
def test_nothing_narrows_what_does_not_permit_the_values_that_it_names(child: Constraint, parent: Constraint) -> None:
    if any(child.permits(value) and not parent.permits(value) for value in near(child)):
        assert not narrows(child, parent)


@given(constraints)
def test_every_constraint_narrows_itself(constraint: Constraint) -> None:
    assert narrows(constraint, constraint)


@given(constraints)
def test_a_constraint_is_written_as_it_is_read(constraint: Constraint) -> None:
    assert parse_constraint(constraint.to_json()) == constraint
    assert hash(constraint) == hash(parse_constraint(constraint.to_json()))


def test_whether_a_missing_bound_is_inclusive_means_nothing() -> None:
    assert parse_constraint(within(min=0, max_inclusive=False)) == parse_constraint(within(min=0))


PERMITS: list[tuple[Json, list[object], list[object]]] = [
    (exact(1), [1, 1.0], [True, "1", 2, None, [1]]),
    (exact(True), [True], [1, "true", False]),
    (exact(0), [0, 0.0, -0.0], [False, None, ""]),
    (exact("\u00e9"), ["\u00e9"], ["e\u0301", "\u00c9"]),
    (exact({"a": [1, {"b": None}]}), [{"a": [1.0, {"b": None}]}], [{"a": [True, {"b": None}]}, {}, {"a": [1]}]),
    (exact(None), [None], [False, 0, ""]),
    (within(min=1, max=3), [1, 3, 2.5, 1.0], [0.999, 3.001, True, "2", None, float("nan"), float("inf"), [2]]),
    (within(min=1, min_inclusive=False), [1.001, 10], [1, 1.0, 0]),
    (within(max=3, max_inclusive=False), [2.999, -10], [3, 3.0, 4]),
    (within(), [0, -1.5, 2**53 - 1], [True, None, "0", float("nan"), float("-inf")]),
    (one_of("a", 1), ["a", 1.0], ["A", True, "1", None, ["a"]]),
    (one_of(), [], ["a", None, []]),
    (not_one_of("a", 1), ["b", True, None, ["a"]], ["a", 1, 1.0, float("nan"), "\ud800", 2**60]),
    (contains("a", 1), [["a", 1], [1.0, "x", "a"]], [["a"], ["a", True], "a1", {"a": 1}, None]),
    (contains(), [[], ["x"]], ["", {}, None]),
    (subset("a", 1), [[], ["a"], [1.0, 1, "a"]], [["b"], ["a", True], "a", None, {}]),
    (subset(), [[]], [["a"], None]),
    (WILDCARD, [None, True, 1, "x", [], {}], []),
    (all_of(within(min=1), within(max=3)), [2], [0, 4, "2"]),
    (any_of(exact("a"), within(min=1)), ["a", 1], ["b", 0]),
    (all_of(not_one_of("a"), WILDCARD), ["b", None], ["a"]),
    (optional(exact("a")), ["a"], ["b", None]),
    (
        under("/repo"),
        ["/repo", "/repo/", "/repo/a", "/repo/a/../b", "/repo//a", "/./repo/a", "/x/../repo", "/repo/..a", "/../repo"],
        [
            "/repository",
            "/repo/..",
            "/repo/../etc",
            "/",
            "",
            "repo/a",
            "./repo",
            "../repo",
            "/Repo",
            "//repo/a",
            None,
            "/repo\\..\\x",
            "/repo/a\x00",
            "~/repo",
            "file:///repo/a",
            "C:/repo",
            ["/repo"],
            1,
            "/repo/a/../../x",
        ],
    ),
    (under("/"), ["/", "/etc", "/.."], ["", "etc", "\\", "//x"]),
    (
        under("docs"),
        ["docs", "docs/a", "./docs/a", "docs/../docs/a", "x/../docs", "docs/~a", "docs/a:b"],
        ["/docs", "doc", "docs2", "docs/..", "../docs", "docs/../../docs", "~/docs", "a:/../docs", "", "."],
    ),
    (under("."), [".", "a", "a/..", "./a/b"], ["/", "/a", "..", "a/../..", "~", "~root/x", "C:/x", "file:///x", ""]),
]


@pytest.mark.parametrize(("constraint", "passing", "refused"), PERMITS, ids=lambda value: str(value)[:60])
def test_a_constraint_permits_its_values_and_no_others(
    constraint: Json, passing: list[object], refused: list[object]
) -> None:
    parsed = parse_constraint(constraint)
    assert [value for value in passing if not parsed.permits(value)] == []
    assert [value for value in refused if parsed.permits(value)] == []


NARROWS: list[tuple[Json, Json]] = [
    (exact(1), exact(1.0)),
    (exact("a"), one_of("a", "b")),
    (exact(2), within(min=1, max=3)),
    (exact("a"), WILDCARD),
    (within(min=1, max=3), within(min=1, max=3)),
    (within(min=2, max=3), within(min=1, max=4)),
    (within(min=2), within(min=1)),
    (within(min=2, max=3), within(max=4)),
    (within(min=1, min_inclusive=False), within(min=1)),
    (within(max=1, max_inclusive=False), within(max=1, max_inclusive=False)),
    (within(min=2), within(min=1, min_inclusive=False)),
    (within(min=1), within()),
    (one_of("a"), one_of("a", "b")),
    (one_of("a", 1), WILDCARD),
    (one_of(), one_of("a")),
    (not_one_of("a", "b"), not_one_of("a")),
    (contains("a", "b"), contains("a")),
    (subset("a"), subset("a", "b")),
    (WILDCARD, WILDCARD),
    (all_of(exact(1)), all_of(within(min=0))),
    (all_of(exact("a"), exact("a")), all_of(one_of("a", "b"), one_of("a"))),
    (all_of(one_of("a"), one_of("a", "b")), all_of(one_of("a", "b"), one_of("a"))),  # greedy assignment fails here
    (all_of(within(min=2), not_one_of(7)), all_of(within(min=1))),
    (any_of(exact("a")), any_of(exact("b"), one_of("a", "c"))),
    (any_of(exact("a"), exact("a")), any_of(one_of("a", "b"))),
    (optional(exact("a")), optional(one_of("a", "b"))),
    (exact("a"), optional(one_of("a", "b"))),
    (exact("a"), optional(WILDCARD)),
    (optional(WILDCARD), optional(WILDCARD)),
    (under("/repo/a"), under("/repo")),
    (under("/repo/"), under("/repo")),
    (under("docs/a"), under(".")),
    (exact("/repo/x"), under("/repo")),
    (one_of("/repo", "/repo/a/../b"), under("/repo")),
    (under("/repo/a"), optional(under("/repo"))),
]

WIDENS: list[tuple[Json, Json]] = [
    (exact(1), exact(True)),
    (exact(True), within(min=0, max=2)),
    (exact("c"), one_of("a", "b")),
    (exact(4), within(min=1, max=3)),
    (exact(3), within(max=3, max_inclusive=False)),
    (within(min=0, max=3), within(min=1, max=3)),
    (within(min=1, max=4), within(min=1, max=3)),
    (within(min=1), within(min=1, max=3)),
    (within(max=3), within(min=1, max=3)),
    (within(), within(min=1)),
    (within(min=1), within(min=1, min_inclusive=False)),
    (within(max=1), within(max=1, max_inclusive=False)),
    (one_of("a", "c"), one_of("a", "b")),
    (one_of(True), one_of(1)),
    (not_one_of("a"), not_one_of("a", "b")),
    (not_one_of("c"), one_of("a", "b")),
    (contains("a"), contains("a", "b")),
    (subset("a", "c"), subset("a", "b")),
    (WILDCARD, exact("a")),
    (WILDCARD, all_of(WILDCARD)),
    (all_of(exact("a")), all_of(exact("a"), exact("a"))),  # each parent clause needs a child clause of its own
    (all_of(exact("a"), exact("b")), all_of(one_of("a", "b"), exact("c"))),
    (any_of(exact("a"), exact("x")), any_of(one_of("a", "b"))),
    (optional(exact("a")), exact("a")),
    (optional(exact("a")), WILDCARD),
    (optional(exact("c")), optional(one_of("a", "b"))),
    (under("/"), under("/repo")),
    (under("/repository"), under("/repo")),
    (under("repo"), under("/repo")),
    (under("/repo"), under("repo")),
    (under("/repo"), under(".")),
    (exact("/repo/../etc"), under("/repo")),
    (exact(1), under("/repo")),
    (one_of("/repo/a", "/etc"), under("/repo")),
]


@pytest.mark.parametrize(("child", "parent"), NARROWS, ids=lambda value: str(value)[:60])
def test_a_child_that_permits_less_narrows(child: Json, parent: Json) -> None:
    assert narrows(parse_constraint(child), parse_constraint(parent))


@pytest.mark.parametrize(("child", "parent"), WIDENS, ids=lambda value: str(value)[:60])
def test_a_child_that_permits_more_does_not_narrow(child: Json, parent: Json) -> None:
    assert not narrows(parse_constraint(child), parse_constraint(parent))


SAMPLES: dict[str, Json] = {
    "exact": exact(1),
    "range": within(min=0, max=2),
    "one_of": one_of(1),
    "not_one_of": not_one_of(2),
    "contains": contains(1),
    "subset": subset(1),
    "wildcard": WILDCARD,
    "all": all_of(exact(1)),
    "any": any_of(exact(1)),
    "under": under("/r"),
    "optional": optional(exact(1)),
}
TABLE = {(kind, kind) for kind in SAMPLES} | {  # (child, parent): every pair that may narrow
    ("exact", "range"),
    ("exact", "one_of"),
    ("exact", "under"),
    ("one_of", "under"),
    *((kind, "wildcard") for kind in SAMPLES),
}


@pytest.mark.parametrize("child", sorted(SAMPLES.keys() - {"optional"}))
@pytest.mark.parametrize("parent", sorted(SAMPLES.keys() - {"optional"}))
def test_a_pair_that_the_table_does_not_list_is_refused(child: str, parent: str) -> None:
    if (child, parent) not in TABLE:
        assert not narrows(parse_constraint(SAMPLES[child]), parse_constraint(SAMPLES[parent]))


@pytest.mark.parametrize("child", sorted(SAMPLES.keys() - {"optional"}))
def test_a_wildcard_and_an_optional_one_are_narrowed_by_every_kind(child: str) -> None:
    assert narrows(parse_constraint(SAMPLES[child]), parse_constraint(WILDCARD))
    assert narrows(parse_constraint(SAMPLES[child]), parse_constraint(optional(WILDCARD)))
    assert narrows(parse_constraint(optional(SAMPLES[child])), parse_constraint(optional(WILDCARD)))
    assert narrows(parse_constraint(SAMPLES[child]), parse_constraint(optional(SAMPLES[child])))


@pytest.mark.parametrize("parent", sorted(SAMPLES.keys() - {"optional"}))
def test_what_may_be_absent_narrows_nothing_that_may_not(parent: str) -> None:
    assert not narrows(parse_constraint(optional(SAMPLES[parent])), parse_constraint(SAMPLES[parent]))


def nested(depth: int) -> Json:
    constraint = WILDCARD
    for _ in range(depth - 1):
        constraint = all_of(constraint)
    return constraint


MALFORMED: list[object] = [
    *[None, 1, "wildcard", [], [WILDCARD], {}, {"constraint_type": None}, {"constraint_type": ["exact"]}],
    *[{"constraint_type": "regex", "pattern": ".*"}, {"constraint_type": "Exact", "value": 1}, {"type": "wildcard"}],
    *[{"constraint_type": "exact"}, exact(1) | {"extra": 1}, WILDCARD | {"value": 1}, {1: 2}],
    *[exact(2**53), exact(float("nan")), exact(1e300), exact("\ud800"), exact({1}), exact({1: 2}), exact("\0")],
    *[within(min="1"), within(min=True), within(max=None), within(min=[1]), within(min=1, min_inclusive=1)],
    *[within(max=1, max_inclusive=None), within(min=float("inf")), within(max=2**53), within(minimum=1)],
    *[one_of() | {"values": "abc"}, one_of() | {"values": {"a": 1}}, one_of() | {"values": None}, one_of(2**53)],
    *[not_one_of() | {"excluded": ("a",)}, contains() | {"required": 1}, subset() | {"allowed": None}],
    *[all_of(), any_of(), all_of() | {"constraints": WILDCARD}, all_of("wildcard"), any_of(WILDCARD, {})],  # type: ignore[arg-type]
    *[optional(optional(WILDCARD)), all_of(optional(WILDCARD)), any_of(exact(1), optional(WILDCARD)), optional({})],
    *[under(""), under(1), under("//x"), under("a\\b"), under("/a/../b"), under(".."), under("~/x"), under("C:/x")],  # type: ignore[arg-type]
    *[under("a\0"), nested(limits.CONSTRAINT_DEPTH + 1), nested(50_000)],
    *[any_of(*[exact(1)] * limits.CONSTRAINT_CLAUSES), all_of(*[all_of(*[WILDCARD] * 8)] * 8)],
]


@pytest.mark.parametrize("value", MALFORMED, ids=lambda value: repr(value)[:60] if not isinstance(value, dict) else "")
def test_a_malformed_constraint_is_refused(value: object) -> None:
    with pytest.raises(ConstraintError):
        parse_constraint(value)


def test_nesting_and_breadth_are_read_up_to_their_bounds() -> None:
    parse_constraint(nested(limits.CONSTRAINT_DEPTH))
    parse_constraint(any_of(*[exact(1)] * (limits.CONSTRAINT_CLAUSES - 1)))


def test_the_values_of_one_argument_are_bounded_in_all_its_clauses_together() -> None:
    most = limits.CONSTRAINT_VALUES
    parse_constraint(any_of(one_of(*range(most - 1)), exact(-1)))
    for many in (one_of(*range(most + 1)), one_of(*[1] * (most + 1)), any_of(one_of(*range(most)), exact(-1))):
        with pytest.raises(ConstraintError, match="values"):
            parse_constraint(many)
    for kind in (not_one_of, contains, subset):
        with pytest.raises(ConstraintError, match="values"):
            parse_constraint(optional(all_of(kind(*range(most)), kind(*range(most)))))


def test_a_tools_map_is_bounded_in_its_canonical_form() -> None:
    def tools(size: int) -> dict[str, Any]:
        empty: dict[str, Any] = {"t": {"a": exact("")}}
        return {"t": {"a": exact("x" * (size - len(canonical(empty))))}}

    require_bounded(parse_tools(tools(limits.TOOLS_BYTES)))
    with pytest.raises(ConstraintError, match="longer"):
        parse_tools(tools(limits.TOOLS_BYTES + 1))
    with pytest.raises(ConstraintError, match="longer"):
        require_bounded({"t": {f"{n:04}": Wildcard() for n in range(500)}})
    with pytest.raises(ConstraintError, match="JSON"):
        parse_tools({"t": {"a": exact("\ud800")}})


def filled(argument: Json) -> ToolsMap:
    """As many arguments with this constraint as a tools map can have."""
    one = len(canonical({"xxx": argument})) - 1
    return parse_tools({"t": {f"{n:03x}": argument for n in range((limits.TOOLS_BYTES - 16) // one)}})


MOST = limits.CONSTRAINT_CLAUSES - 1
VALUES = limits.CONSTRAINT_VALUES // MOST


@pytest.mark.parametrize(
    "argument",
    [
        all_of(*[one_of(*range(VALUES))] * MOST),
        all_of(*[WILDCARD] * MOST),
        all_of(*[within(max=n) for n in range(MOST)]),
        all_of(*[exact(n) for n in range(MOST)]),
        any_of(*[exact(n) for n in range(MOST)]),
        any_of(*[under(f"/{'a/' * n}") for n in range(MOST)]),
        one_of(*range(limits.CONSTRAINT_VALUES)),
    ],
)
def test_comparing_the_longest_tools_maps_stays_cheap(argument: Json) -> None:
    tools = filled(argument)
    began = process_time()
    tools_narrow(tools, tools)
    assert process_time() - began < 0.05  # 4 ms at most where nothing else runs


def test_values_are_read_once_however_many_roots_they_are_compared_with(monkeypatch: pytest.MonkeyPatch) -> None:
    read = list[bytes]()

    def counted(spelling: bytes) -> Any:
        read.append(spelling)
        return json.loads(spelling)

    monkeypatch.setattr(constraint_kinds, "value_of", counted)
    paths = [f"/{'a/' * 31}only-here-{n}" for n in range(limits.CONSTRAINT_VALUES - 1)]
    child = parse_constraint(any_of(one_of(*paths)))
    parent = parse_constraint(any_of(*[under(f"/{'a/' * n}b") for n in range(MOST - 1)], under("/a")))
    assert narrows(child, parent) and narrows(child, parent)
    assert sorted(read) == sorted(canonical(path) for path in paths)


@given(st.lists(st.lists(st.integers(0, 5), max_size=6), min_size=1, max_size=5), st.integers(1, 6))
def test_each_clause_of_an_all_finds_another_one_that_narrows_it_whenever_there_are_such(
    wanted: list[list[int]], count: int
) -> None:
    child = AllOf(clauses=tuple(OneOf(values=frozenset([b"%d" % n])) for n in range(count)))
    parent = AllOf(clauses=tuple(OneOf(values=frozenset(b"%d" % n for n in one)) for one in wanted))
    possible = any(
        all(number in one for number, one in zip(chosen, wanted, strict=True))
        for chosen in permutations(range(count), len(wanted))
    )
    assert narrows(child, parent) is possible


TOOLS = parse_tools(
    {
        "github__create_pull_request": {
            "owner": exact("acme"),
            "repo": one_of("api", "web"),
            "title": optional(WILDCARD),
        },
        "github__list_issues": {},
    }
)


@pytest.mark.parametrize(
    ("tool", "given_arguments"),
    [
        ("github__create_pull_request", {"owner": "acme", "repo": "api"}),
        ("github__create_pull_request", {"owner": "acme", "repo": "web", "title": None}),
        ("github__list_issues", {}),
        ("github__list_issues", {"owner": "anybody"}),
    ],
)
def test_a_call_within_the_delegation_is_permitted(tool: str, given_arguments: Json) -> None:
    assert permits_call(TOOLS, tool, given_arguments) is None


@pytest.mark.parametrize(
    ("tool", "given_arguments", "reason"),
    [
        ("github__delete_repository", {}, "tool `github__delete_repository` is not part of"),
        ("github__List_issues", {}, "is not part of"),
        ("github__create_pull_request", {"owner": "acme"}, "`repo` of `github__create_pull_request` is missing"),
        ("github__create_pull_request", {"owner": "acme", "repo": "api", "force": True}, "`force` of"),
        ("github__create_pull_request", {"owner": "s3cr3t", "repo": "api"}, "`owner` of"),
        ("github__create_pull_request", {"owner": ["acme"], "repo": "api"}, "`owner` of"),
        ("github__create_pull_request", {"owner": "acme", "repo": "api", "x\n" + "y" * 99: 1}, "`x\\\\ny{62}` of"),
    ],
)
def test_a_call_outside_the_delegation_is_told_why_but_no_value(tool: str, given_arguments: Json, reason: str) -> None:
    answer = permits_call(TOOLS, tool, given_arguments)
    assert answer is not None and re.search(reason, answer)
    assert "s3cr3t" not in answer and "\n" not in answer


def test_an_empty_tools_map_permits_no_tool() -> None:
    assert permits_call(parse_tools({}), "github__list_issues", {}) is not None


def test_a_tools_map_is_written_as_it_is_read() -> None:
    assert parse_tools(to_json(TOOLS)) == TOOLS
    assert to_json(TOOLS)["github__create_pull_request"]["repo"] == one_of("api", "web")


@pytest.mark.parametrize("value", [None, [], "x", {"t": None}, {"t": []}, {"t": {"a": None}}, {1: {}}, {"t": {1: {}}}])
def test_a_malformed_tools_map_is_refused(value: object) -> None:
    with pytest.raises(ConstraintError):
        parse_tools(value)


def test_the_refusal_of_a_tools_map_names_tool_and_argument() -> None:
    with pytest.raises(ConstraintError, match="argument `path` of `files__read`: unknown constraint_type `regex`"):
        parse_tools({"files__read": {"path": {"constraint_type": "regex"}}})


@pytest.mark.parametrize(
    ("child", "parent"),
    [
        ({}, {}),
        ({}, {"t": {}}),
        ({"t": {}}, {"t": {}, "u": {}}),
        ({"t": {"a": exact(1)}}, {"t": {}}),
        ({"t": {"a": optional(WILDCARD)}}, {"t": {}}),
        ({"t": {"a": exact(1), "b": exact(2)}}, {"t": {"a": one_of(1, 2), "b": WILDCARD}}),
    ],
)
def test_dropping_a_tool_and_introducing_arguments_narrows(child: Json, parent: Json) -> None:
    tools_narrow(parse_tools(child), parse_tools(parent))


@pytest.mark.parametrize(
    ("child", "parent", "reason"),
    [
        ({"u": {}}, {"t": {}}, "adds tool `u`"),
        ({"t": {}}, {}, "adds tool `t`"),
        ({"T": {}}, {"t": {}}, "adds tool `T`"),
        ({"t": {}}, {"t": {"a": WILDCARD}}, "drops argument `a` of `t`"),
        ({"t": {"a": exact(1)}}, {"t": {"a": exact(1), "b": optional(WILDCARD)}}, "drops argument `b` of `t`"),
        ({"t": {"a": exact(1), "b": exact(1)}}, {"t": {"a": exact(1)}}, "adds argument `b` of `t`"),
        ({"t": {"a": one_of(1, 2)}}, {"t": {"a": one_of(1)}}, "does not narrow argument `a` of `t`"),
        ({"t": {"a": optional(exact(1))}}, {"t": {"a": exact(1)}}, "does not narrow argument `a` of `t`"),
    ],
)
def test_widening_a_tools_map_is_refused_by_name(child: Json, parent: Json, reason: str) -> None:
    with pytest.raises(DelegationError, match=reason):
        tools_narrow(parse_tools(child), parse_tools(parent))


names = st.sampled_from(["a", "b"])
tool_maps = st.dictionaries(
    st.sampled_from(["t", "u"]),
    st.dictionaries(names, leaves | leaves.map(optional), max_size=2),
    max_size=2,
).map(parse_tools)


@settings(max_examples=120, deadline=None)
@given(tool_maps, tool_maps, st.lists(st.dictionaries(names, words, max_size=2), min_size=8, max_size=8))
def test_every_call_that_a_narrowing_tools_map_permits_its_parent_permits(
    child: Any, parent: Any, calls: list[Json]
) -> None:
    try:
        tools_narrow(child, parent)
    except DelegationError:
        return
    for tool in ("t", "u"):
        for call in calls:
            if permits_call(child, tool, call) is None:
                assert permits_call(parent, tool, call) is None
