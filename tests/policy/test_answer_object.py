"""What counts as an answer of a policy that speaks JSON."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_authz.errors import PolicyError
from mcp_authz.model import Obligation, RuleId
from mcp_authz.policy.answer_object import SILENCE, policy_answer

WORDS = st.sampled_from(["allow", "because", "obligations", "policy", "kind", "argument", "approval", "x", ""])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 2) | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


def test_a_boolean_is_the_whole_answer() -> None:
    assert (policy_answer(True).permit, policy_answer(False)) == (True, SILENCE)


def test_an_object_that_does_not_say_allow_permits_nothing() -> None:
    assert policy_answer({}) == SILENCE
    assert not policy_answer({"because": ["a"], "obligations": [{"kind": "notify"}]}).permit


def test_an_obligation_without_an_argument_has_an_empty_one_and_counts_once() -> None:
    told = {"allow": True, "obligations": [{"kind": "notify"}, {"kind": "notify", "argument": ""}]}
    assert policy_answer(told).obligations == (Obligation(kind="notify"),)


def test_as_many_rules_and_obligations_as_there_may_be_are_read() -> None:
    because, kinds = (
        [f"r{n}" for n in range(64)],
        [{"kind": "notify", "argument": "x" * 253 + f"{n:03}"} for n in range(16)],
    )
    answer = policy_answer({"allow": True, "because": because, "obligations": kinds, "policy": "p" * 128})
    assert (answer.because, len(answer.obligations)) == (tuple(RuleId(one) for one in because), 16)


@given(JSON | st.fixed_dictionaries({"allow": JSON}, optional={"because": JSON, "obligations": JSON, "policy": JSON}))
def test_nothing_but_true_permits_and_an_error_never_quotes_what_was_said(value: Any) -> None:
    try:
        answer = policy_answer(value)
    except PolicyError as error:
        assert "approval" not in str(error)
    else:
        verdict = value if isinstance(value, bool) else value.get("allow", False)
        assert answer.permit is (verdict is True)
        asked = [] if isinstance(value, bool) else value.get("obligations", [])
        assert not answer.permit or {one.kind for one in answer.obligations} == {one["kind"] for one in asked}


@pytest.mark.parametrize("value", [True, {"allow": True}])
def test_a_permit_without_obligations_asks_for_none(value: Any) -> None:
    assert policy_answer(value).obligations == ()
