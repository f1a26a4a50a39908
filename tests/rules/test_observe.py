"""What observe mode permits, and what it leaves as it is."""

from __future__ import annotations

import pytest

from mcp_authz.config import ServerConfig
from mcp_authz.errors import ConfigError
from mcp_authz.model import ApprovalRule, Classification, Deny, Hazard, Hold, Observed, Permit, RuleId, Tool, ToolName
from mcp_authz.rules.decision import REASONS
from mcp_authz.rules.observe import OBSERVED_DENIALS, Observing, is_observed, observe
from mcp_authz.settings import server_rules

DIGEST = b"\1" * 32
PERMIT = Permit(call_digest=DIGEST, approval=None, because=(RuleId("p"),))
HOLD = Hold(call_digest=DIGEST, rules=(ApprovalRule(name="write"),), because=(RuleId("p"),))


def deny(code: str) -> Deny:
    return Deny(code=code, because=(RuleId("r"),), detail="why")


def classified(hazard: Hazard, by: str = "configuration") -> Classification:
    return Classification(action="a.b", hazard=hazard, scopes=(), by=by)


def tool(*, observed: bool = True) -> Tool:
    return Tool(
        name=ToolName("a__b"),
        server="a",
        tool="b",
        environment="local",
        definition={},
        digest=bytes(32),
        classification=classified(Hazard.WRITE),
        observed=observed,
    )


@pytest.mark.parametrize("code", sorted(OBSERVED_DENIALS))
def test_a_denial_by_scopes_constraints_or_policy_becomes_a_permit_that_says_so(code: str) -> None:
    assert observe(deny(code), tool=tool(), call_digest=DIGEST) == Permit(
        call_digest=DIGEST,
        approval=None,
        because=(RuleId("observe-mode"),),
        observed=Observed(would="deny", reason=code, because=(RuleId("r"),), detail="why"),
    )


@pytest.mark.parametrize("code", sorted(REASONS.keys() - OBSERVED_DENIALS))
def test_every_other_denial_stays_one(code: str) -> None:
    assert observe(deny(code), tool=tool(), call_digest=DIGEST) == deny(code)
    assert observe(PERMIT, tool=tool(), call_digest=DIGEST, earlier=deny(code)) == deny(code)


def test_what_cannot_be_decided_is_denied_whatever_was_passed_over_before() -> None:
    error = deny("policy_error")
    assert observe(error, tool=tool(), call_digest=DIGEST, earlier=deny("insufficient_scope")) == error


def test_a_hold_becomes_a_permit_that_names_its_rules() -> None:
    seen = observe(HOLD, tool=tool(), call_digest=DIGEST)
    assert isinstance(seen, Permit) and seen.approval is None
    assert seen.observed == Observed(would="hold", reason="approval", because=(RuleId("p"),), rules=("write",))


def test_the_earlier_denial_is_what_would_have_been_decided() -> None:
    seen = observe(HOLD, tool=tool(), call_digest=DIGEST, earlier=deny("constraint"))
    assert isinstance(seen, Permit) and seen.observed is not None and seen.observed.reason == "constraint"


def test_what_is_permitted_anyway_is_not_observed() -> None:
    assert observe(PERMIT, tool=tool(), call_digest=DIGEST) is PERMIT


@pytest.mark.parametrize("decision", [HOLD, deny("policy"), PERMIT], ids=["hold", "deny", "permit"])
def test_a_tool_that_is_not_observed_keeps_its_decision(decision: Permit | Hold | Deny) -> None:
    assert observe(decision, tool=tool(observed=False), call_digest=DIGEST) is decision


def test_what_destroys_is_observed_only_by_its_exact_name() -> None:
    named = Observing(destructive=frozenset({"delete"}))
    assert is_observed(named, "delete", classified(Hazard.DESTRUCTIVE))
    assert not is_observed(named, "delete_all", classified(Hazard.DESTRUCTIVE))
    assert not is_observed(Observing(), "delete", classified(Hazard.DESTRUCTIVE, by="nobody"))
    assert is_observed(Observing(), "write", classified(Hazard.WRITE))
    assert not is_observed(None, "read", classified(Hazard.READ))


def test_only_mode_observe_observes_and_destructive_tools_are_named_one_by_one() -> None:
    assert server_rules("a", ServerConfig(command=("x",), observe_destructive=("delete",))).observing is None
    observed = ServerConfig(command=("x",), mode="observe", observe_destructive=("delete",))
    assert server_rules("a", observed).observing == Observing(destructive=frozenset({"delete"}))
    with pytest.raises(ConfigError, match="name each tool exactly"):
        server_rules("a", ServerConfig(command=("x",), mode="observe", observe_destructive=("delete_*",)))
