"""`policy replay`: recorded calls decided again, as the gateway would decide them, and no argument is shown."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from mcp_authz.inputs import decided_again, read_kept
from mcp_authz.installation import utc_now
from mcp_authz.model import Deny, Hold, Obligation, Permit, RuleId
from mcp_authz.policy.engine import PolicyAnswer
from mcp_authz.rules.decision import ApprovalFloor
from mcp_authz.rules.obligation import Means
from mcp_authz.settings import approval_floor
from tests.cli.desk import Desk
from tests.cli.recorded import afternoon

OTHER = """
@id("reading") @rate_limit("100/h")
permit (principal, action == Action::"pr.list", resource);
@id("pull-requests-after-approval") @approval("production-deploy")
permit (principal, action == Action::"pr.create", resource);
@id("everything-with-a-secret")
permit (principal, action == Action::"secret.read", resource);
@id("deploying")
permit (principal, action == Action::"deploy.create", resource);
"""


async def test_recorded_calls_are_decided_again_by_any_policy(tmp_path: Path) -> None:
    async with afternoon(tmp_path) as (_, desk):
        same = desk.json("policy", "replay")
        assert (same["calls"], same["same"], same["differences"], same["changes"]) == (7, 7, [], [])
        assert same["left_out"] == {"deny": 2}
        assert "7 calls decided again by builtin:incident: 7 calls as before" in desk.ok("policy", "replay")

        told = desk.ok("policy", "replay", "--policy", "builtin:deny_all")
        assert "4 calls: permit then, deny now" in told and "2 calls: hold then, deny now" in told
        assert "nothing-is-permitted" in told and "not looked at: 2 denied before policy was asked" in told
        assert "policy explain --call c_" in told

        desk.path("other.cedar").write_text(OTHER)
        other = desk.json("policy", "replay", "--policy", desk.path("other.cedar"))
        found = {(it["tool"], it["was"]["outcome"], it["would"]["outcome"]): it for it in other["differences"]}
        assert sorted(found) == [
            ("acme__deploy", "hold", "hold"),  # without the rule for production: the floor's alone is left
            ("acme__list_pull_requests", "permit", "permit"),
            ("acme__open_pull_request", "permit", "hold"),
            ("acme__read_secret", "deny", "permit"),
        ]
        deploy = found["acme__deploy", "hold", "hold"]
        assert (deploy["was"]["rules"], deploy["would"]["rules"]) == (
            ["destructive", "production-deploy"],
            ["destructive"],
        )
        reading = found["acme__list_pull_requests", "permit", "permit"]
        assert reading["would"]["obligations"] == ["rate_limit(100/h)"] and reading["would"]["because"] == ["reading"]
        assert reading["agent"] == "coder" and reading["subject"] == "user:alice"
        assert "Mend it" not in str(other)

        assert desk.json("policy", "replay", "--policy", "builtin:deny_all", "--limit", "1")["changes"] == [
            {"was": "permit", "would": "deny", "count": 4},
            {"was": "hold", "would": "deny", "count": 2},
        ]
        assert desk.json("policy", "replay", "--tool", "acme__deploy")["calls"] == 3
        assert desk.json("policy", "replay", "--since", "1h")["calls"] == 7
        assert desk.json("policy", "replay", "--since", (utc_now() + timedelta(hours=1)).isoformat())["calls"] == 0
        assert "there is no agent `planner`" in desk.refused("policy", "replay", "--agent", "planner")


async def test_where_nothing_is_kept_the_calls_are_counted(tmp_path: Path) -> None:
    async with afternoon(tmp_path, audit={"inputs_days": 0}) as (_, desk):
        assert "0 calls decided again" in desk.ok("policy", "replay")
        assert desk.json("policy", "replay", "--since", "1d")["left_out"] == {"permit": 4, "hold": 2, "deny": 3}


def test_an_empty_store_has_nothing_to_replay(desk: Desk) -> None:
    assert "0 calls decided again" in desk.ok("policy", "replay")


async def test_a_call_is_decided_again_with_its_own_approval_proof_and_time(tmp_path: Path) -> None:
    async with afternoon(tmp_path) as (w, _):
        decided = [read_kept(one.input) for one in await w.store.decisions() if one.input is not None]
        floor = approval_floor(w.config)
    held, approved = (kept for kept in decided if kept.document["arguments"].get("environment") == "staging")
    yes = PolicyAnswer(permit=True, because=(RuleId("yes"),))
    assert isinstance(decided_again(held, yes, floor=floor, means=Means()), Hold)
    assert isinstance(decided_again(approved, yes, floor=floor, means=Means()), Permit)
    step_up = PolicyAnswer(permit=True, because=(), obligations=(Obligation(kind="step_up", argument="300"),))
    denied = decided_again(approved, step_up, floor=floor, means=Means())
    assert isinstance(denied, Deny) and denied.code == "stale_sign_in"
    none = ApprovalFloor(rules={}, by_hazard={})
    assert isinstance(decided_again(held, yes, floor=none, means=Means()), Permit)
