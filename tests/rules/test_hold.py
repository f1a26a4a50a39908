"""Whose verdict counts, how many it takes, and what becomes of a hold with each answer."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mcp_authz.model import (
    Approval,
    ApprovalRule,
    Assurance,
    Classification,
    Hazard,
    HeldCall,
    Hold,
    HoldId,
    HoldState,
    Obligation,
    Permit,
    RuleId,
    Tool,
    ToolName,
    Verdict,
)
from mcp_authz.policy.engine import PolicyAnswer
from mcp_authz.principals import AgentName, Mode, Person, PersonName, SessionId
from mcp_authz.rules.decision import ApprovalFloor, decide
from mcp_authz.rules.hold import after_verdicts, is_eligible, is_enough, may_speak

AT = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
PEOPLE = {
    "alice": Person(name=PersonName("alice"), groups=frozenset({"ops"})),  # for whom it runs
    "olga": Person(name=PersonName("olga")),  # who owns the agent
    "bob": Person(name=PersonName("bob"), groups=frozenset({"ops"})),
    "carol": Person(name=PersonName("carol"), groups=frozenset({"ops", "release"})),
    "gone": Person(name=PersonName("gone"), groups=frozenset({"ops"}), status="revoked"),
}
HELD = HeldCall(
    id=HoldId("h_1"),
    state=HoldState.PENDING,
    digest=bytes(32),
    tool=ToolName("acme__deploy"),
    server="acme",
    arguments={},
    hazard=Hazard.DESTRUCTIVE,
    session=SessionId("s_1"),
    purpose="nightly",
    subject=PersonName("alice"),
    owner=PersonName("olga"),
    actor=AgentName("coder"),
    chain=(AgentName("planner"), AgentName("coder")),
    interactive=False,
    rules=(),
    asked_at=AT,
    expires_at=AT + timedelta(minutes=15),
)


def rule(name: str = "two", **how: Any) -> ApprovalRule:
    return ApprovalRule(name=name, **how)


def says(who: str, approve: bool = True, *, how: Assurance = Assurance.SIGNED_IN, reason: str = "") -> Verdict:
    return Verdict(
        hold=HELD.id,
        person=PersonName(who),
        approve=approve,
        assurance=how,
        statement="",
        signed_by="",
        reason=reason,
        given_at=AT,
    )


YES, WAITS, NO = HoldState.APPROVED, HoldState.PENDING, HoldState.DENIED
OPS = ("group:ops",)
STATES = {
    # by
    "the person it is for": (rule(), [says("alice")], YES),
    "somebody else than the person it is for": (rule(), [says("olga")], WAITS),
    "its owner": (rule(by=("owner",)), [says("olga")], YES),
    "one of a group": (rule(by=("group:release",)), [says("carol")], YES),
    "one of another group": (rule(by=("group:release",)), [says("bob")], WAITS),
    "one by name": (rule(by=("user:bob",)), [says("bob")], YES),
    "another than the one by name": (rule(by=("user:bob",)), [says("carol")], WAITS),
    "a person who was revoked": (rule(by=OPS), [says("gone")], WAITS),
    "a stranger": (rule(by=OPS), [says("nobody")], WAITS),
    # quorum
    "one of two": (rule(by=OPS, quorum=2), [says("bob")], WAITS),
    "two of two": (rule(by=OPS, quorum=2), [says("bob"), says("carol")], YES),
    "one who is named three times is one": (
        rule(by=("group:ops", "user:alice", "subject"), quorum=2),
        [says("alice")],
        WAITS,
    ),
    "a revoked voter does not count": (rule(by=OPS, quorum=2), [says("gone"), says("bob")], WAITS),
    "enough without the revoked voter": (rule(by=OPS, quorum=2), [says("gone"), says("bob"), says("carol")], YES),
    "who does not count makes no quorum": (rule(by=OPS, quorum=2), [says("olga"), says("bob")], WAITS),
    # outside the chain
    "the subject stands in the chain": (rule(by=("subject", "owner"), outside_chain=True), [says("alice")], WAITS),
    "by whatever name": (rule(by=("group:ops", "user:alice"), outside_chain=True), [says("alice")], WAITS),
    "the owner does not": (rule(by=("subject", "owner"), outside_chain=True), [says("olga")], YES),
    # assurance and reason
    "less sure than asked": (rule(assurance=Assurance.PASSKEY), [says("alice")], WAITS),
    "as sure as asked": (rule(assurance=Assurance.PASSKEY), [says("alice", how=Assurance.PASSKEY)], YES),
    "one of two is less sure": (
        rule(by=OPS, quorum=2, assurance=Assurance.PASSKEY),
        [says("bob", how=Assurance.PASSKEY), says("carol", how=Assurance.CLIENT_OTHER)],
        WAITS,
    ),
    "without the reason": (rule(reason=True), [says("alice", reason="  ")], WAITS),
    "with the reason": (rule(reason=True), [says("alice", reason="tested")], YES),
    # denials
    "one no of many": (rule(by=OPS, quorum=2), [says("bob"), says("carol", approve=False)], NO),
    "a no after the own yes": (rule(by=OPS, quorum=2), [says("bob"), says("bob", approve=False)], NO),
    "the no of somebody who may not answer": (rule(by=OPS), [says("olga", approve=False)], WAITS),
    "the no of a revoked person": (rule(by=OPS), [says("gone", approve=False), says("bob")], YES),
    "a no is sure enough": (rule(assurance=Assurance.PASSKEY), [says("alice", False, how=Assurance.CLIENT)], NO),
}


@pytest.mark.parametrize("what", STATES)
def test_a_hold_is_where_its_rule_and_its_verdicts_put_it(what: str) -> None:
    asked, verdicts, state = STATES[what]
    assert after_verdicts(replace(HELD, rules=(asked,), verdicts=tuple(verdicts)), PEOPLE) is state


def test_every_rule_has_to_be_met_and_one_person_may_meet_several() -> None:
    ops, release = rule("ops", by=OPS), rule("release", by=("group:release",))
    for who, state in (("bob", WAITS), ("carol", YES)):
        assert after_verdicts(replace(HELD, rules=(ops, release), verdicts=(says(who),)), PEOPLE) is state


def test_a_hold_without_rules_is_met_by_nobody() -> None:
    assert after_verdicts(replace(HELD, verdicts=(says("alice"),)), PEOPLE) is WAITS


def test_who_owns_the_first_agent_stands_in_the_chain_of_one_that_works_for_itself() -> None:
    outside = rule(by=("subject", "owner", "group:ops"), outside_chain=True)
    own = replace(HELD, mode=Mode.OWN)  # its subject is the owner of the first agent
    assert [who for who in PEOPLE if is_eligible(PEOPLE[who], own, outside)] == ["olga", "bob", "carol"]


@pytest.mark.parametrize(
    ("state", "given", "answer", "heard"),
    [
        (HoldState.PENDING, [], says("bob"), True),
        (HoldState.PENDING, [says("bob")], says("bob"), False),
        (HoldState.PENDING, [says("bob")], says("bob", approve=False), True),
        (HoldState.PENDING, [says("bob")], says("carol"), True),
        (HoldState.APPROVED, [says("bob")], says("carol"), False),
        (HoldState.APPROVED, [says("bob")], says("bob", approve=False), True),
        (HoldState.APPROVED, [says("bob")], says("carol", approve=False), True),
        (HoldState.PENDING, [says("bob", approve=False)], says("bob"), False),
        (HoldState.PENDING, [says("bob", approve=False)], says("bob", approve=False), False),
        *[(state, [], says("bob", approve=False), False) for state in HoldState if state not in {WAITS, YES}],
    ],
)
def test_a_no_is_heard_until_the_call_runs_and_a_yes_only_while_it_waits(
    state: HoldState, given: list[Verdict], answer: Verdict, heard: bool
) -> None:
    assert may_speak(replace(HELD, state=state, verdicts=tuple(given)), answer) is heard


RULES = {name: rule(name, by=OPS) for name in ("destructive", "write", "tools", "policys")}
FLOOR = ApprovalFloor(
    rules=RULES, by_hazard={Hazard.DESTRUCTIVE: "destructive", Hazard.WRITE: "write"}
)  # `read` has no floor


@pytest.mark.parametrize(
    ("hazard", "own", "policy", "needed"),
    [
        (Hazard.READ, None, [], []),
        (Hazard.WRITE, None, [], ["write"]),
        (Hazard.READ, "tools", [], ["tools"]),
        (Hazard.READ, None, ["policys"], ["policys"]),
        (Hazard.DESTRUCTIVE, "tools", ["policys"], ["destructive", "tools", "policys"]),
        (Hazard.DESTRUCTIVE, "destructive", ["destructive", "destructive"], ["destructive"]),
        (Hazard.READ, None, ["unheard of"], None),  # a rule that is not there denies
    ],
)
def test_every_rule_that_applies_is_needed_wherever_it_comes_from(
    hazard: Hazard, own: str | None, policy: list[str], needed: list[str] | None
) -> None:
    tool = Tool(
        name=HELD.tool,
        server="acme",
        tool="deploy",
        environment="prod",
        definition={},
        digest=bytes(32),
        classification=Classification(action="acme.deploy", hazard=hazard, scopes=(), approval=own),
    )
    answer = PolicyAnswer(
        permit=True,
        because=(RuleId("p"),),
        obligations=tuple(Obligation(kind="approval", argument=name) for name in policy),
        errors=(),
    )

    def decided(*met: str) -> Any:
        approval = Approval(
            hold=HELD.id, rules=met, assurance=Assurance.PASSKEY, by=(PersonName("bob"),), approved_at=AT
        )
        return decide(
            call_digest=bytes(32),
            tool=tool,
            answer=answer,
            approval=approval if met else None,
            floor=FLOOR,
            authentication=None,
            at=AT,
        )

    first = decided()
    if needed is None:
        assert first.code == "obligation"
        return
    assert [one.name for one in first.rules] == needed if needed else isinstance(first, Permit)
    if needed:
        assert isinstance(decided(*needed), Permit)
        assert all(isinstance(decided(*(set(RULES) - {missing})), Hold) for missing in needed)


@pytest.mark.parametrize(
    ("others", "enough"),
    [
        ([], Assurance.CLIENT),
        ([rule("strong", assurance=Assurance.PASSKEY)], Assurance.PASSKEY),
        ([rule("else", by=("user:bob",), assurance=Assurance.PASSKEY)], Assurance.CLIENT),
        ([rule("key", by=OPS, assurance=Assurance.SIGNED_IN)], Assurance.SIGNED_IN),
        ([rule("not them", by=OPS, outside_chain=True, assurance=Assurance.PASSKEY)], Assurance.CLIENT),
    ],
)
def test_an_approval_is_enough_when_it_counts_for_every_rule_of_the_person(
    others: list[ApprovalRule], enough: Assurance
) -> None:
    held = replace(HELD, rules=(rule(assurance=Assurance.CLIENT), *others))
    assert [how for how in Assurance if is_enough(PEOPLE["alice"], held, how)] == [
        how for how in Assurance if how >= enough
    ]
