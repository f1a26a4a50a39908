"""A gateway whose policy is decided elsewhere: OPA, or a decision point of AuthZEN, over real HTTP."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.policy.decision_points import DecisionPointServer, rego, serving
from tests.policy.test_decision_tables import POLICIES
from tests.ports import free_port
from tests.world import World, world

SCOPES = "pr:read pr:write deploy"
INCIDENT = (POLICIES / "incident.rego").read_text("utf-8")
DECISION = "/v1/data/mcp_authz/incident/decision"
PULL = {"owner": "acme", "repo": "api", "title": "Retry", "branch": "retry"}
DEPLOY = {"owner": "acme", "repo": "api", "environment": "production", "version": "1.4.0"}
APPROVAL = {name: {"assurance": "signed-in"} for name in ("destructive", "production-deploy")}
PATIENT = {"timeout_ms": 10_000}  # two busy cores are no time-out


async def judged(w: World) -> list[Mapping[str, Any]]:
    """The records of what policy was asked about: not of a stock client that is sent for the scopes it lacks."""
    return [one for one in await w.decisions() if one["because"] != ["token"]]


async def test_a_call_runs_waits_or_is_denied_by_the_word_of_opa(tmp_path: Path) -> None:
    async with (
        rego(INCIDENT, revision="4f1c") as server,
        world(tmp_path, policy=f"opa+{server.base}{DECISION}", pdp=PATIENT, approval=APPROVAL) as w,
    ):
        coder = await w.ready("coder", SCOPES, labels={"environment": "production"})

        listed = await w.call(coder, "acme__list_pull_requests", owner="acme", repo="api")
        denied = await w.call(coder, "acme__open_pull_request", **PULL)
        held = await w.call(coder, "acme__deploy", **DEPLOY)
        assert w.deployments() == []
        await w.answer(held.hold, by="alice")
        done = await w.call(coder, "acme__deploy", **DEPLOY)

        assert [one["version"] for one in w.deployments()] == ["1.4.0"]
        records = await judged(w)
        seen = server.asked[-1]["input"]
    assert not listed.is_error and not done.is_error and held.is_held
    assert (denied.is_error, denied.envelope["reason"]) == (True, "policy")
    assert [(one["decision"], one["because"]) for one in records] == [
        ("permit", ["agents-list-for-people"]),
        ("deny", ["delegated-coders-open-only-draft-pull-requests"]),
        ("hold", ["production-deploys-need-approval"]),
        ("permit", ["production-deploys-need-approval"]),
    ]
    assert records[2]["rules"] == ["destructive", "production-deploy"]
    assert {one["policy_revision"] for one in records} == {"authz@4f1c"}
    assert {one["policy"] for one in records} == {w.running.policy.digest}
    assert (seen["actor"]["id"], seen["approval"]["rules"]) == ("coder", ["destructive", "production-deploy"])


async def test_a_gateway_whose_opa_is_gone_starts_denies_and_serves_again_once_it_is_back(tmp_path: Path) -> None:
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    async with world(tmp_path, policy=f"opa+{base}{DECISION}", pdp=PATIENT) as w:
        coder = await w.ready("coder", SCOPES)

        denied = await w.call(coder, "acme__list_pull_requests", owner="acme", repo="api")
        (record,) = await judged(w)

        async with rego(INCIDENT, port=port):
            listed = await w.call(coder, "acme__list_pull_requests", owner="acme", repo="api")
    assert (denied.is_error, denied.envelope["reason"]) == (True, "policy_error")
    assert base not in repr(denied.result) and "cannot be reached" not in repr(denied.result)
    assert not listed.is_error
    assert (record["decision"], record["reason"]) == ("deny", "policy_error")
    assert record["detail"].startswith(f"OPA at `{base}{DECISION}`: cannot be reached")


async def test_a_call_runs_or_is_denied_by_the_word_of_an_authzen_decision_point(tmp_path: Path) -> None:
    async def answer(server: DecisionPointServer, request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.json_response({}, status=404)
        told = server.asked[-1]
        permits = (told["subject"]["id"], told["action"]["name"]) == ("coder", "pr.list")
        return web.json_response({"decision": permits, "context": {"because": ["lists-only"]}})

    async with (
        serving(answer) as server,
        world(tmp_path, policy=f"authzen+{server.base}", pdp=PATIENT) as w,
    ):
        coder = await w.ready("coder", SCOPES)
        listed = await w.call(coder, "acme__list_pull_requests", owner="acme", repo="api")
        denied = await w.call(coder, "acme__open_pull_request", **PULL)
        records = await judged(w)
    assert not listed.is_error
    assert denied.envelope["reason"] == "policy"
    assert [(one["decision"], one["because"]) for one in records] == [
        ("permit", ["lists-only"]),
        ("deny", ["lists-only"]),
    ]
