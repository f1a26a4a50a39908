"""Row 49: a gateway that does not enforce. Each of its three judges is broken for itself; none of them starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mcp_authz import evaluation
from mcp_authz.canary import require_denials
from mcp_authz.config import parse_config
from mcp_authz.errors import PolicyError
from mcp_authz.evaluation import Evaluator
from mcp_authz.installation import utc_now
from mcp_authz.model import Hazard, RuleId
from mcp_authz.policy.cedar import CedarEngine
from mcp_authz.policy.engine import PolicyAnswer, PolicyEngine, PolicyInput
from mcp_authz.policy.loading import load_engine
from mcp_authz.rules.decision import ApprovalFloor
from mcp_authz.settings import approval_floor
from mcp_authz.wiring import run_gateway

CONFIG = parse_config({})
POLICY, FLOOR = load_engine(CONFIG, CONFIG.policy), approval_floor(CONFIG)
PERMITS_ALL = '@id("all") permit (principal, action, resource);'


class Yes:
    """An engine that permits whatever it is asked."""

    digest = "yes"

    async def evaluate(self, document: PolicyInput) -> PolicyAnswer:
        return PolicyAnswer(permit=True, because=(RuleId("yes"),))


def judges(engine: PolicyEngine = POLICY, floor: ApprovalFloor = FLOOR) -> Evaluator:
    return Evaluator(engine=engine, floor=floor)


async def test_a_gateway_that_enforces_starts() -> None:
    await require_denials(judges(), utc_now)


BROKEN: dict[str, dict[str, Any]] = {
    "an engine that permits everything": {"engine": Yes()},
    "a policy that permits everything": {"engine": CedarEngine.load({"all": PERMITS_ALL})},
    "a floor that asks nothing": {"floor": ApprovalFloor(rules=FLOOR.rules, by_hazard={})},
    "a floor without rules": {"floor": ApprovalFloor(rules={}, by_hazard={})},
    "a floor whose rule is not there": {
        "floor": ApprovalFloor(rules={}, by_hazard={Hazard.DESTRUCTIVE: "destructive"})
    },
    "a floor for other hazards": {"floor": ApprovalFloor(rules=FLOOR.rules, by_hazard={Hazard.READ: "destructive"})},
}


@pytest.mark.parametrize("what", BROKEN)
async def test_one_broken_judge_is_enough_to_refuse_the_start(what: str) -> None:
    with pytest.raises(PolicyError, match="canary"):
        await require_denials(judges(**BROKEN[what]), utc_now)


@pytest.mark.parametrize("engine", [POLICY, Yes()])
async def test_a_scope_check_that_covers_everything_refuses_the_start(
    engine: PolicyEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation, "_scope_denial", lambda caller, needed: None)
    with pytest.raises(PolicyError, match="canary"):
        await require_denials(judges(engine), utc_now)


async def test_a_whole_gateway_with_a_policy_that_permits_everything_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "all.cedar").write_text(PERMITS_ALL)
    config = parse_config({"data_dir": str(tmp_path / "data"), "policy": str(tmp_path / "all.cedar")})
    with pytest.raises(PolicyError, match="canary"):
        async with run_gateway(config):
            pass


async def test_a_broad_policy_with_any_condition_starts() -> None:
    broad = '@id("broad") permit (principal, action, resource) when { context has session };'
    await require_denials(judges(CedarEngine.load({"broad": broad})), utc_now)
