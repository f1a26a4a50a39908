"""What covers what, what a call needs, and what a holder could ever use."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_authz import limits
from mcp_authz.errors import DelegationError, ScopeError
from mcp_authz.rules.scope import (
    Scope,
    ScopeTemplate,
    common,
    covered,
    covers,
    narrow,
    parse_scope,
    parse_scopes,
)

segments = st.sampled_from(["a", "b", "c"])
literal_scopes = st.lists(segments, min_size=1, max_size=4).map(":".join).map(parse_scope)
held_scopes = st.lists(segments | st.just("*"), min_size=1, max_size=4).map(":".join).map(parse_scope)
held_sets = st.frozensets(held_scopes, max_size=5)

UNIVERSE = [Scope(":".join(word)) for size in range(1, 5) for word in itertools.product("abcd", repeat=size)]


def meaning(held: Scope) -> set[str]:
    """The literal scopes up to four segments that `held` stands for, worked out without `covers`."""
    have = held.split(":")
    return {
        scope
        for scope in UNIVERSE
        if len(scope.split(":")) >= len(have)
        and not any(h not in ("*", s) for h, s in zip(have, scope.split(":"), strict=False))
    }


@pytest.mark.parametrize(
    ("held", "needed"),
    [
        ("pr:write", "pr:write"),
        ("pr:write", "pr:write:acme:api"),
        ("pr", "pr:write"),
        ("pr:*", "pr:write"),
        ("pr:*", "pr:write:acme"),
        ("pr:*:acme", "pr:write:acme:api"),
        ("*", "pr:write"),
        ("*:write", "pr:write"),
        ("pr:*", "pr:*"),
        ("pr", "pr:*"),
        ("pr:*", "pr:*:acme"),
    ],
)
def test_a_held_scope_covers_itself_its_extensions_and_one_segment_for_each_star(held: str, needed: str) -> None:
    assert covers(parse_scope(held), parse_scope(needed))


@pytest.mark.parametrize(
    ("held", "needed"),
    [
        ("pr:write:acme", "pr:write"),
        ("pr:write", "pr:writer"),
        ("pr:write", "pr"),
        ("pr:*", "pr"),
        ("pr:*:api", "pr:write"),
        ("pr:*:api", "pr:write:acme:api"),
        ("*:*", "pr"),
        ("pr:write", "pr:*"),
        ("pr:write:acme", "pr:write:*"),
        ("a:b", "a:*:b"),
        ("PR", "pr"),
        ("b", "*"),
    ],
)
def test_a_held_scope_covers_nothing_shorter_and_nothing_else(held: str, needed: str) -> None:
    assert not covers(parse_scope(held), parse_scope(needed))


HELD = [Scope(":".join(word)) for size in range(1, 4) for word in itertools.product("ab*", repeat=size)]


def test_covering_is_reflexive() -> None:
    assert all(covers(scope, scope) for scope in HELD)


def test_covering_is_transitive() -> None:
    covered_by = {a: {b for b in HELD if covers(a, b)} for a in HELD}
    assert all(covered_by[b] <= covered_by[a] for a in HELD for b in covered_by[a])


def test_covering_is_antisymmetric() -> None:
    assert all(a == b for a in HELD for b in HELD if covers(a, b) and covers(b, a))


@given(held_scopes, held_scopes)
def test_covering_means_that_everything_the_other_stands_for_is_covered(a: Scope, b: Scope) -> None:
    assert covers(a, b) == (meaning(b) <= meaning(a))


@given(held_scopes, literal_scopes)
def test_a_literal_scope_is_covered_when_it_is_among_what_the_held_one_stands_for(held: Scope, needed: Scope) -> None:
    assert covers(held, needed) == (needed in meaning(held))


@given(st.lists(held_sets, min_size=2, max_size=5), literal_scopes)
def test_what_the_last_of_a_narrowing_chain_covers_every_one_before_covers(
    chain: list[frozenset[Scope]], needed: Scope
) -> None:
    granted = [chain[0]]
    for asked in chain[1:]:
        granted.append(narrow(granted[-1], common(granted[-1], asked)))
    if covered(needed, granted[-1]):
        assert all(covered(needed, held) for held in granted)


@given(held_sets, held_sets)
def test_narrowing_returns_what_was_asked_or_refuses_what_is_not_covered(
    granted: frozenset[Scope], asked: frozenset[Scope]
) -> None:
    extra = [scope for scope in asked if not covered(scope, granted)]
    if not extra:
        assert narrow(granted, asked) is asked
        return
    with pytest.raises(DelegationError, match="asks for more") as refusal:
        narrow(granted, asked)
    assert all(scope in str(refusal.value) for scope in extra)


def test_nothing_may_be_asked_of_anything_and_something_of_nothing_may_not() -> None:
    assert narrow(frozenset(), frozenset()) == frozenset()
    with pytest.raises(DelegationError):
        narrow(frozenset(), parse_scopes("a"))


@given(held_sets, held_sets)
def test_what_is_common_is_covered_by_both_sides(a: frozenset[Scope], b: frozenset[Scope]) -> None:
    both = common(a, b)
    assert both == common(b, a)
    assert all(covered(scope, a) and covered(scope, b) for scope in both)


def test_what_is_common_of_a_wide_and_a_narrow_side_is_the_narrow_one() -> None:
    assert common(parse_scopes("pr repo:read:acme"), parse_scopes("pr:write repo:read")) == parse_scopes(
        "pr:write repo:read:acme"
    )


@pytest.mark.parametrize("text", ["a", "a:b", "a:*:c", "*", "pr:write:acme-inc:api.v2", "!#[]~{}", "a" * 256])
def test_a_scope_is_read(text: str) -> None:
    assert parse_scope(text) == text


@pytest.mark.parametrize(
    "text",
    ["", ":", "a:", ":a", "a::b", "a b", "a\n", 'a"', "a\\b", "\u00e9", "a:b*", "**", "a:*x:b", "a\x7f", "a" * 257],
)
def test_what_is_no_scope_is_refused(text: str) -> None:
    with pytest.raises(ScopeError):
        parse_scope(text)


@pytest.mark.parametrize("value", [None, 1, ["a"], {"a": 1}, b"a"], ids=str)
def test_what_is_no_text_is_no_scope(value: object) -> None:
    with pytest.raises(ScopeError):
        parse_scope(value)  # type: ignore[arg-type]


def test_scopes_are_read_from_a_list_and_from_text() -> None:
    assert parse_scopes("a b:c a") == parse_scopes(["b:c", "a"]) == {"a", "b:c"}
    assert parse_scopes("") == parse_scopes([]) == frozenset()


@pytest.mark.parametrize("text", [" ", "a ", " a", "a  b", "a\tb", "a\nb"])
def test_scopes_are_separated_by_exactly_one_space(text: str) -> None:
    with pytest.raises(ScopeError):
        parse_scopes(text)


def test_more_scopes_than_the_bound_are_refused() -> None:
    words = [f"s{number}" for number in range(limits.SCOPES + 1)]
    assert len(parse_scopes(words[:-1])) == limits.SCOPES
    for refused in (words, " ".join(words)):
        with pytest.raises(ScopeError, match="more than"):
            parse_scopes(refused)


TEMPLATE = ScopeTemplate.parse("pr:write:{owner}:{repo}")


def test_a_template_is_filled_from_the_arguments() -> None:
    assert TEMPLATE.fill({"owner": "acme", "repo": "api.v2", "title": object()}) == "pr:write:acme:api.v2"
    assert ScopeTemplate.parse("issue:{number}").fill({"number": -41}) == "issue:-41"
    assert ScopeTemplate.parse("repo:read").fill({}) == "repo:read"
    assert ScopeTemplate.parse("x:{$ref}:{a-b.c}").fill({"$ref": 1, "a-b.c": "2"}) == "x:1:2"


def test_a_template_knows_its_arguments_and_its_text() -> None:
    assert TEMPLATE.arguments == {"owner", "repo"}
    assert str(TEMPLATE) == TEMPLATE.text == "pr:write:{owner}:{repo}"
    assert ScopeTemplate.parse("pr:write:{owner}:{repo}") == TEMPLATE and hash(TEMPLATE)


@pytest.mark.parametrize(
    "value",
    [
        *["*", "acme:api", "", ".", "..", "a b", "a/b", "a%3Ab", "a\n", "\u00e9", "{x}", "a" * 129, "acme\0", "\uff41"],
        *[True, False, None, 1.0, 1.5, ["acme"], {"a": 1}, 2**53, -(2**53)],
    ],
    ids=repr,
)
def test_an_argument_that_is_no_plain_word_is_refused_not_encoded(value: object) -> None:
    with pytest.raises(ScopeError, match="`owner`") as refusal:
        TEMPLATE.fill({"owner": value, "repo": "api"})
    assert not isinstance(value, str) or len(value) < 3 or value not in str(refusal.value)


def test_a_missing_argument_is_refused() -> None:
    with pytest.raises(ScopeError, match="`repo` is missing"):
        TEMPLATE.fill({"owner": "acme"})


def test_a_filled_scope_is_bounded() -> None:
    template = ScopeTemplate.parse("{a}:{a}:{a}")
    with pytest.raises(ScopeError, match="more than 256"):
        template.fill({"a": "x" * 128})


@pytest.mark.parametrize(
    "text",
    ["", "a:", "a:{b", "a:b}", "a:x{b}", "a:{b}y", "a:{}", "a:{b}{c}", "a:*", "*", "a:{b c}", "a:{{b}}", "a:{b:c}"],
)
def test_a_template_in_which_a_variable_is_no_whole_segment_is_refused(text: str) -> None:
    with pytest.raises(ScopeError):
        ScopeTemplate.parse(text)


@given(
    st.dictionaries(
        st.sampled_from(["owner", "repo"]),
        st.text(st.sampled_from("aZ0._-*:/ {\u00e9"), max_size=4) | st.integers() | st.booleans(),
    )
)
def test_whatever_fills_a_template_is_a_literal_scope_of_its_length(arguments: dict[str, object]) -> None:
    try:
        filled = TEMPLATE.fill(arguments)
    except ScopeError:
        return
    assert parse_scope(filled) == filled
    assert "*" not in filled and len(filled.split(":")) == 4


templates = (
    st.lists(segments | st.sampled_from(["{x}", "{y}"]), min_size=1, max_size=4).map(":".join).map(ScopeTemplate.parse)
)


@given(templates, held_sets)
def test_a_template_could_match_exactly_when_some_filling_is_covered(
    template: ScopeTemplate, held: frozenset[Scope]
) -> None:
    fillings = [template.fill({"x": x, "y": y}) for x, y in itertools.product("abcd", repeat=2)]
    assert template.could_match(held) == any(covered(filling, held) for filling in fillings)


@pytest.mark.parametrize("held", ["pr:write:..", "pr:write:a/b", "pr:write:{owner}", "pr:write:a:b:c", "pr:read"])
def test_a_template_could_not_match_what_no_argument_can_say(held: str) -> None:
    assert not TEMPLATE.could_match([parse_scope(held)])


def test_an_argument_that_stands_twice_has_one_value() -> None:
    twice = ScopeTemplate.parse("{x}:to:{x}")
    assert twice.could_match([parse_scope("a:to:a")]) and twice.could_match([parse_scope("a:*:*")])
    assert not twice.could_match([parse_scope("a:to:b")])
