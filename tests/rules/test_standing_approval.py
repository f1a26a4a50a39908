"""What a standing approval is about: what fits its pattern differs from the approved call only where it was freed."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_authz import limits
from mcp_authz.errors import InputError, SignatureRefused
from mcp_authz.model import ApprovalRule, Assurance, Hazard, HeldCall, HoldId, HoldState, StandingId, ToolName
from mcp_authz.principals import AgentName, PersonName, SessionId
from mcp_authz.rules import strict_json
from mcp_authz.rules.canonical import canonical
from mcp_authz.rules.keys import PrivateKey
from mcp_authz.rules.standing_approval import (
    StandingTerms,
    fits,
    make_pattern,
    make_statement,
    parse_pattern,
    read_freed,
    read_statement,
    sentence,
    standing_challenge,
)
from tests.rules.drawn import WILDCARD, arguments, exact, one_of, under, within, words

NOW = datetime(2026, 11, 21, 14, tzinfo=UTC)
RULE = ApprovalRule(name="destructive", assurance=Assurance.SIGNED_IN)
ARGUMENTS: dict[str, Any] = {"repo": "acme/api", "version": "1", "path": "/srv/x/y", "n": 1}
ACTION: dict[str, Any] = {
    "server": "acme",
    "tool": "deploy",
    "definition": "ab" * 32,
    "arguments": ARGUMENTS,
    "session": "s_1",
    "subject": "user:alice",
    "actor": "agent:coder",
    "chain": ["agent:planner", "agent:coder"],
}
calls = st.dictionaries(st.sampled_from("abcd"), arguments, max_size=4)
bound = st.fixed_dictionaries({name: st.just(value) for name, value in ACTION.items() if name != "arguments"})


def freed_by(data: st.DataObject, call: dict[str, Any]) -> dict[str, Any]:
    """What a person may free of this call."""
    some = data.draw(st.sets(st.sampled_from(sorted(call)))) if call else set()
    made = {}
    for name in some:
        value = call[name]
        ways = [WILDCARD, one_of(value, data.draw(words))]
        if isinstance(value, str) and value.startswith("/"):
            ways.append(under("/"))
        made[name] = read_freed(data.draw(st.sampled_from(ways)))
    return made


@given(call=calls, data=st.data())
def test_whatever_fits_differs_from_the_approved_call_in_freed_arguments_alone(
    call: dict[str, Any], data: st.DataObject
) -> None:
    freed = freed_by(data, call)
    action = {**ACTION, "arguments": call}
    pattern = parse_pattern(strict_json.parse_object(strict_json.dump(make_pattern(action, freed).to_json())))
    assert fits(pattern, action)
    changed = copy.deepcopy(action)
    for name in data.draw(st.sets(st.sampled_from("abcd"), min_size=1)):
        if data.draw(st.booleans()):
            changed["arguments"][name] = data.draw(arguments)
        else:
            changed["arguments"].pop(name, None)
    if fits(pattern, changed):
        assert changed["arguments"].keys() == call.keys()
        other = {name for name in call if canonical(changed["arguments"][name]) != canonical(call[name])}
        assert other <= freed.keys()
        assert all(constraint.permits(changed["arguments"][name]) for name, constraint in freed.items())


@given(member=st.sampled_from(sorted(ACTION.keys() - {"arguments"})), value=arguments)
def test_a_call_with_another_bound_member_fits_nothing(member: str, value: Any) -> None:
    pattern = make_pattern(ACTION, {name: read_freed(WILDCARD) for name in ARGUMENTS})
    assert not fits(pattern, {**ACTION, member: value})
    assert not fits(pattern, {name: it for name, it in ACTION.items() if name != member})
    assert not fits(pattern, {**ACTION, "more": value})  # bound since: not what was approved


def test_a_call_without_arguments_has_none_in_any_call_like_it() -> None:
    pattern = make_pattern({**ACTION, "arguments": {}}, {})
    assert fits(pattern, {**ACTION, "arguments": {}})
    assert not fits(pattern, ACTION)


@pytest.mark.parametrize(
    "freed",
    [{"other": WILDCARD}, {"repo": one_of("acme/web")}, {"path": under("/etc")}, {"n": within(min=0)}, {"n": exact(2)}],
    ids=["absent", "not listed", "elsewhere", "a range", "another value"],
)
def test_only_an_argument_of_the_call_is_freed_and_its_own_value_passes(freed: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        make_pattern(ACTION, {name: read_freed(one) for name, one in freed.items()})


def test_lists_that_nobody_could_read_are_refused() -> None:
    values = [f"acme/{'x' * 100}{number}" for number in range(limits.STANDING_SHOWN // 100)]
    with pytest.raises(InputError, match="fewer values"):
        make_pattern(ACTION, {"repo": read_freed(one_of("acme/api", *values))})


HELD = HeldCall(
    id=HoldId("h_1"),
    state=HoldState.PENDING,
    digest=b"d" * 32,
    tool=ToolName("acme__deploy"),
    server="acme",
    arguments=ARGUMENTS,
    hazard=Hazard.DESTRUCTIVE,
    session=SessionId("s_1"),
    purpose="deploys",
    subject=PersonName("alice"),
    owner=PersonName("alice"),
    actor=AgentName("coder"),
    chain=(AgentName("planner"), AgentName("coder")),
    interactive=False,
    rules=(RULE,),
    asked_at=NOW,
    expires_at=NOW + timedelta(minutes=15),
)
TERMS = StandingTerms(
    id=StandingId("a_1"),
    hold=HELD.id,
    person=PersonName("alice"),
    pattern=make_pattern(ACTION, {"version": read_freed(WILDCARD), "path": read_freed(under("/srv/x"))}),
    rules=(RULE,),
    most=5,
    expires_at=NOW + timedelta(minutes=30),
    reason="a release",
)
OTHERS = {
    "another id": replace(TERMS, id=StandingId("a_2")),
    "another person": replace(TERMS, person=PersonName("bob")),
    "another pattern": replace(TERMS, pattern=make_pattern(ACTION, {"repo": read_freed(WILDCARD)})),
    "another rule": replace(TERMS, rules=(replace(RULE, quorum=2),)),
    "no rule": replace(TERMS, rules=()),
    "more calls": replace(TERMS, most=6),
    "later": replace(TERMS, expires_at=TERMS.expires_at + timedelta(seconds=1)),
    "another reason": replace(TERMS, reason=""),
}


def test_a_statement_is_read_for_exactly_its_terms_and_holds_no_argument() -> None:
    key = PrivateKey.generate()
    keys = {key.public.thumbprint: key.public}
    statement = make_statement(TERMS, HELD, assurance=Assurance.SIGNED_IN, at=NOW, key=key)

    def read(terms: StandingTerms = TERMS, held: HeldCall = HELD, at: datetime | None = NOW) -> str:
        return read_statement(statement, terms=terms, held=held, assurance=Assurance.SIGNED_IN, keys=keys, now=at)

    assert read() == read(at=None) == key.public.thumbprint
    for what, terms in OTHERS.items():
        with pytest.raises(SignatureRefused):
            read(terms)
        assert standing_challenge(terms, HELD, nonce=b"n") != standing_challenge(TERMS, HELD, nonce=b"n"), what
    for held in (replace(HELD, id=HoldId("h_2")), replace(HELD, digest=b"e" * 32), replace(HELD, purpose="else")):
        with pytest.raises(SignatureRefused):
            read(held=held)
    with pytest.raises(SignatureRefused, match="just now"):
        read(at=NOW + timedelta(minutes=2))
    with pytest.raises(SignatureRefused):
        read_statement(statement, terms=TERMS, held=HELD, assurance=Assurance.PASSKEY, keys=keys, now=NOW)
    with pytest.raises(SignatureRefused, match="not signed by a key"):
        read_statement(statement, terms=TERMS, held=HELD, assurance=Assurance.SIGNED_IN, keys={}, now=NOW)
    claims = statement.split(".")[1]
    assert "acme/api" not in claims and "srv" not in claims


def test_the_sentence_says_what_stays_and_what_may_differ_with_nothing_hidden_in_it() -> None:
    assert sentence(TERMS) == (
        'the next 5 calls of acme__deploy by coder in this session, repo exactly "acme/api", version any, '
        'path below "/srv/x", n exactly 1, until 2026-11-21 14:30:00 UTC'
    )
    odd = {**ACTION, "arguments": {"a\u202eb": "x" * 90, "c": "y\u202ez"}}
    pattern = make_pattern(odd, {"c": read_freed(one_of("y\u202ez", "w"))})
    shown = sentence(replace(TERMS, pattern=pattern, most=1))
    assert "the next call of" in shown and "exactly as in this call" in shown and "\u202e" not in shown
    assert '"w" or "y\\u{202e}z"' in shown
