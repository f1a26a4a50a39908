"""What becomes of a held call: one table of edges, and the rules by which a verdict counts."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from mcp_authz.model import ApprovalRule, Assurance, HeldCall, HoldState, Verdict
from mcp_authz.principals import Mode, Person

EDGES: Final[dict[HoldState, frozenset[HoldState]]] = {
    HoldState.PENDING: frozenset({HoldState.APPROVED, HoldState.DENIED, HoldState.EXPIRED, HoldState.CANCELLED}),
    HoldState.APPROVED: frozenset({HoldState.CLAIMED, HoldState.DENIED, HoldState.EXPIRED, HoldState.CANCELLED}),
    HoldState.CLAIMED: frozenset({HoldState.DONE, HoldState.FAILED, HoldState.UNKNOWN}),
    HoldState.DENIED: frozenset(),
    HoldState.EXPIRED: frozenset(),
    HoldState.CANCELLED: frozenset(),
    HoldState.DONE: frozenset(),
    HoldState.FAILED: frozenset(),
    HoldState.UNKNOWN: frozenset(),
}
"""Which state may follow which; what is not here does not happen."""


def may_follow(state: HoldState, to: HoldState) -> bool:
    """Whether the table has this edge."""
    return to in EDGES[state]


def is_over(held: HeldCall, at: datetime) -> bool:
    """Whether the hold can still be neither answered nor claimed at `at`: it ended, or its time is up."""
    return held.state not in {HoldState.PENDING, HoldState.APPROVED} or at >= held.expires_at


def is_eligible(person: Person, held: HeldCall, rule: ApprovalRule) -> bool:
    """Whether a verdict of this person can count for this rule of this hold."""
    if person.status != "active":
        return False
    # A person stands in the chain when the chain starts with them, as its subject or as the owner of its first agent.
    if rule.outside_chain and person.name == held.subject:
        return False
    return any(_names(person, held, by) for by in rule.by)


def _names(person: Person, held: HeldCall, by: str) -> bool:
    kind, _, name = by.partition(":")
    if by == "subject":
        return person.name == held.subject
    if by == "owner":
        return person.name == held.owner
    if kind == "group":
        return name in person.groups
    return kind == "user" and name == person.name


def counts_for(verdict: Verdict, person: Person, held: HeldCall, rule: ApprovalRule) -> bool:
    """Whether an approving verdict counts towards one rule: right person, sure enough, a reason where one is asked."""
    if verdict.hold != held.id or verdict.person != person.name or not verdict.approve:
        return False
    if verdict.assurance < rule.assurance or (rule.reason and not verdict.reason.strip()):
        return False
    return is_eligible(person, held, rule)


def met(held: HeldCall, rule: ApprovalRule, people: dict[str, Person]) -> bool:
    """Whether enough different people have approved for this rule."""
    counted = {
        v.person for v in held.verdicts if (p := people.get(v.person)) is not None and counts_for(v, p, held, rule)
    }
    return len(counted) >= rule.quorum


def is_enough(person: Person, held: HeldCall, assurance: Assurance) -> bool:
    """Whether an approval as sure as this counts for every rule that names the person.

    A person is heard once: an approval that counts for some of their rules only would leave the others unmet for good.
    """
    return all(assurance >= rule.assurance for rule in held.rules if is_eligible(person, held, rule))


def wants_reason(person: Person, held: HeldCall) -> bool:
    """Whether an approval of this person has to say why: a rule that they may answer asks for it."""
    return any(rule.reason and is_eligible(person, held, rule) for rule in held.rules)


def may_deny(person: Person, held: HeldCall) -> bool:
    """Whether this person could still say no: they may answer, have not denied, and nothing has run."""
    if held.state not in {HoldState.PENDING, HoldState.APPROVED}:
        return False
    denied = any(given.person == person.name and not given.approve for given in held.verdicts)
    return not denied and any(is_eligible(person, held, rule) for rule in held.rules)


def was_sent_back(held: HeldCall) -> bool:
    """Whether the denial that ended it asks for another call."""
    return held.state is HoldState.DENIED and any(given.sent_back for given in held.verdicts)


def may_speak(held: HeldCall, verdict: Verdict) -> bool:
    """Whether the hold takes this verdict from its person: one answer each, but a no may follow their own yes.

    No beats yes for as long as nothing has run: a denial is heard until the call is claimed.
    """
    if held.state is not HoldState.PENDING and (verdict.approve or held.state is not HoldState.APPROVED):
        return False
    own = [given for given in held.verdicts if given.person == verdict.person]
    return not own or (not verdict.approve and all(given.approve for given in own))


def after_verdicts(held: HeldCall, people: dict[str, Person]) -> HoldState:
    """The state of a hold that has not run, by its verdicts: one eligible denial ends it, every rule must be met."""
    for verdict in held.verdicts:
        person = people.get(verdict.person)
        if person is None or verdict.approve:
            continue
        if any(is_eligible(person, held, rule) for rule in held.rules):
            return HoldState.DENIED
    if held.rules and all(met(held, rule, people) for rule in held.rules):
        return HoldState.APPROVED
    return HoldState.PENDING


def prompt_may_answer(held: HeldCall) -> bool:
    """Whether the requesting client's own prompt may answer (DESIGN section 10, channel `prompt`).

    Only for an interactive agent that is the first hop after the subject, where the subject alone is asked, one
    answer is enough, and the rule accepts an answer that is no better than the client's word. No person sits at the
    client of an agent that works for itself, and one that impersonates a person approves nothing in their place.
    """
    if held.mode is not Mode.DELEGATED or not held.interactive or held.chain != (held.actor,) or not held.rules:
        return False
    return all(
        rule.by == ("subject",)
        and rule.quorum == 1
        and not rule.outside_chain
        and not rule.reason
        and rule.assurance <= Assurance.CLIENT
        for rule in held.rules
    )


def evidence_assurance(held: HeldCall) -> Assurance:
    """The weakest assurance among the approving verdicts: a chain of approvals is as sure as its weakest."""
    return min((v.assurance for v in held.verdicts if v.approve), default=Assurance.CLIENT)
