"""What a call acts upon, taken from its arguments."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_authz.errors import ConfigError, InputError
from mcp_authz.rules.attributes import resource_attributes

REPO = {"repo": "{owner}/{repo}"}


@pytest.mark.parametrize("value", ["production", 7, 1.5, True, None, ["a", "b"], {"a": 1}, "any/../text\u0000"])
def test_a_name_alone_gives_the_arguments_own_json_value(value: Any) -> None:
    attributes = resource_attributes({"it": "{it}"}, {"it": value})

    assert attributes == {"it": value}
    assert type(attributes["it"]) is type(value)


def test_a_mixed_template_gives_text() -> None:
    assert resource_attributes(REPO, {"owner": "acme", "repo": "api"}) == {"repo": "acme/api"}
    assert resource_attributes({"pull": "pull-{number}"}, {"number": 41}) == {"pull": "pull-41"}


def test_a_template_without_arguments_is_its_own_text() -> None:
    assert resource_attributes({"kind": "repository"}, {}) == {"kind": "repository"}


def test_an_absent_argument_leaves_its_attribute_out() -> None:
    assert resource_attributes({"secret_environment": "{environment}"}, {}) == {}


def test_half_a_name_is_refused() -> None:
    with pytest.raises(InputError, match="`repo` is missing"):
        resource_attributes(REPO, {"owner": "acme"})


@pytest.mark.parametrize("value", ["acme/api", "", ".", "..", "a b", "acme\n", "acmé", "a" * 129, "{repo}", "a%2Fb"])
def test_text_that_could_pass_for_another_resource_is_refused(value: str) -> None:
    with pytest.raises(InputError, match="`owner` must be 1 to 128"):
        resource_attributes(REPO, {"owner": value, "repo": "x"})


@pytest.mark.parametrize("value", [True, None, 1.0, ["acme"], {"acme": 1}])
def test_only_strings_and_integers_stand_in_a_mixed_template(value: Any) -> None:
    with pytest.raises(InputError, match="must be a string or an integer"):
        resource_attributes(REPO, {"owner": value, "repo": "x"})


@pytest.mark.parametrize("template", ["{a}{b}", "{a}-{b}", "{a}.x.{b}", "{a}/{b}_{c}"])
def test_two_arguments_that_nothing_separates_for_certain_are_refused(template: str) -> None:
    with pytest.raises(ConfigError, match="between two arguments"):
        resource_attributes({"it": template}, {"a": "1", "b": "2", "c": "3"})


@pytest.mark.parametrize("template", ["{", "}", "{}", "{a", "a}", "{{a}}", "{a b}", "x{/}y"])
def test_a_brace_stands_only_around_a_name(template: str) -> None:
    with pytest.raises(ConfigError, match="a brace"):
        resource_attributes({"it": template}, {"a": "1"})


WORDS = st.text("ab-./:", max_size=4)


@given(WORDS, WORDS, WORDS, WORDS)
def test_no_two_different_calls_act_upon_the_same_resource(a: str, b: str, c: str, d: str) -> None:
    try:
        one = resource_attributes({"it": "{x}/{y}"}, {"x": a, "y": b})
        other = resource_attributes({"it": "{x}/{y}"}, {"x": c, "y": d})
    except InputError:
        return
    assert (one == other) == ((a, b) == (c, d))
