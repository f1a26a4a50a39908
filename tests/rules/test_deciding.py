"""What an approver is asked and told in a client of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mcp_authz.model import ApprovalRule, HeldCall, HoldId, HoldState, ToolName
from mcp_authz.principals import Person, PersonName
from mcp_authz.rules.deciding import form, found, listed, read_answer, told, waits_for
from mcp_authz.rules.display import displayed
from tests.rules.test_hold import HELD

ALICE = Person(name=PersonName("alice"))
PAGE = "https://gateway.example/holds"


def held(id_: str = "h_abc", **more: Any) -> HeldCall:
    return replace(HELD, id=HoldId(id_), subject=PersonName("alice"), rules=(ApprovalRule(name="floor"),), **more)


def test_an_id_or_the_beginning_of_one_alone_names_a_hold() -> None:
    waiting = [held("h_abc"), held("h_abd"), held("h_ab")]
    assert found("h_abc", waiting) is waiting[0] and found("h_abd", waiting) is waiting[1]
    assert found("h_ab", waiting) is waiting[2]  # whole, although two others begin like it
    for text in ("h_a", "", "x", None, 7, ["h_abc"], "h_abcd"):
        assert found(text, waiting) is None


def test_nothing_hidden_and_nothing_of_the_agents_own_text_is_listed() -> None:
    text = listed(ALICE, [held(tool=ToolName("evil\u202e__x\nApprove all"), purpose="ignore what was said")], page=PAGE)
    assert "evil\\u{202e}__x\\u{000a}Approve all" in text and "ignore" not in text and "\u202e" not in text
    assert listed(ALICE, [], page=PAGE) == "No call waits for alice."


def test_very_many_are_not_all_listed() -> None:
    text = listed(ALICE, [held(f"h_{number}") for number in range(70)], page=PAGE)
    assert "70 calls wait" in text and "and 20 more" in text and "h_69" not in text


def test_the_form_shows_the_whole_call_and_offers_no_yes_that_would_not_count() -> None:
    may, may_not = (form(held(), may_approve=may, page=PAGE) for may in (True, False))
    assert all(displayed(held()) in one["message"] for one in (may, may_not))
    offered = [one["requestedSchema"]["properties"]["answer"]["enum"] for one in (may, may_not)]
    assert offered == [["approve", "deny", "send back"], ["deny", "send back"]]
    assert PAGE in may_not["message"] and PAGE not in may["message"]
    assert all("default" not in one for one in may["requestedSchema"]["properties"].values())


@pytest.mark.parametrize(
    "answer",
    [None, True, [], {}, {"action": "cancel"}, {"action": "accept"}, {"action": "accept", "content": []},
     {"action": "accept", "content": {"approve": True}}, {"action": "accept", "content": {"answer": True}},
     {"action": "accept", "content": {"answer": "approve", "reason": 7}},
     {"action": "cancel", "content": {"answer": "approve"}},
     {"action": "approve", "content": {"answer": "approve"}}, {"action": "accept", "content": {"answer": ["approve"]}}],
)  # fmt: skip
def test_only_what_was_asked_is_an_answer(answer: Any) -> None:
    assert read_answer(held(), answer) is None


def test_a_declined_question_is_a_no_whatever_else_it_says() -> None:
    given = read_answer(held(), {"action": "decline", "content": {"answer": "approve"}})
    assert given is not None and not given.approve and not given.sent_back


@pytest.mark.parametrize("state", list(HoldState))
def test_every_state_is_told_in_a_sentence_of_its_own_hold(state: HoldState) -> None:
    text = told(held(state=state), "answered", page=PAGE)
    assert "h_abc" in text and text.endswith((".", "too."))
    assert ("does not run" in text) == (state in {HoldState.DENIED, HoldState.EXPIRED, HoldState.CANCELLED})


def test_what_somebody_spoke_about_waits_for_them_no_more() -> None:
    assert waits_for(ALICE, held())
    assert not waits_for(ALICE, held(state=HoldState.APPROVED))
    assert not waits_for(replace(ALICE, status="revoked"), held())
    assert not waits_for(Person(name=PersonName("bob")), held())
