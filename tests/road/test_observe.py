"""A server in observe mode: what would be denied or held runs and is recorded; what destroys is stopped as always."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_authz import limits
from mcp_authz.config import parse_config
from mcp_authz.errors import PolicyError
from mcp_authz.model import RuleId
from mcp_authz.observing import keep_telling
from mcp_authz.policy.engine import PolicyAnswer
from mcp_authz.rules.constraint import parse_tools
from mcp_authz.rules.log import first_break
from mcp_authz.rules.scope import parse_scopes
from mcp_authz.store.offline import stored_head, stored_records
from mcp_authz.wiring import run_gateway
from tests.road.places import BOTH
from tests.world import OPERATOR, World, incident_server, world

ROOT = Path(__file__).parent.parent.parent
PULL = {"owner": "acme", "repo": "api"}
WRITE_RULE = {"write": {"by": ["subject"]}}


def observed(directory: Path, **more: Any) -> dict[str, Any]:
    return {"acme": {**incident_server(directory), "mode": "observe", **more}}


async def last(w: World) -> Mapping[str, Any]:
    return (await w.decisions())[-1]


@BOTH
async def test_what_scopes_do_not_cover_is_listed_and_runs_and_the_record_says_it_would_have_been_denied(
    tmp_path: Path, mode: str
) -> None:
    async with world(tmp_path, servers=observed(tmp_path)) as w:
        coder = await w.ready("coder", "pr:read:acme")
        async with w.client(coder, mode) as client:
            listed = {tool.name for tool in (await client.list_tools()).tools}
        assert "acme__list_deployments" in listed and "acme__open_pull_request" in listed
        done = await w.call(coder, "acme__list_deployments", mode, **PULL)
        assert not done.is_error and done.envelope.get("observed") is None
        decision = await last(w)
    assert decision["decision"] == "permit" and decision["because"] == ["observe-mode"]
    assert decision["observed"]["would"] == "deny" and decision["observed"]["reason"] == "insufficient_scope"
    assert decision["observed"]["because"] == ["ceiling"] and "deploy:read" in decision["observed"]["detail"]


async def test_what_destroys_is_neither_listed_nor_called_beyond_its_scopes(tmp_path: Path) -> None:
    async with world(tmp_path, servers=observed(tmp_path)) as w:
        coder = await w.ready("coder", "pr:read:acme")
        async with w.client(coder) as client:
            listed = {tool.name for tool in (await client.list_tools()).tools}
        assert not listed & {"acme__deploy", "acme__merge_pull_request"}


async def test_a_destructive_call_is_held_in_observe_mode_too(tmp_path: Path) -> None:
    async with world(tmp_path, servers=observed(tmp_path)) as w:
        coder = await w.ready("coder", "deploy")
        held = await w.call(coder, "acme__deploy", **PULL, environment="staging", version="1")
        assert held.is_held and w.deployments() == []
        decision = await last(w)
    assert decision["decision"] == "hold" and "observed" not in decision


async def test_a_tool_that_nobody_classified_is_held_in_observe_mode_too(tmp_path: Path) -> None:
    servers = observed(tmp_path)
    del servers["acme"]["tools"]["list_deployments"]
    async with world(tmp_path, servers=servers) as w:
        coder = await w.ready("coder", "acme")
        assert (await w.call(coder, "acme__list_deployments", **PULL)).is_held


async def test_a_destructive_call_that_is_named_runs_and_the_record_names_the_rule_it_would_have_waited_for(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, servers=observed(tmp_path, observe_destructive=["deploy"])) as w:
        coder = await w.ready("coder", "deploy pr")
        assert not (await w.call(coder, "acme__deploy", **PULL, environment="staging", version="1")).is_error
        assert len(w.deployments()) == 1 and await w.store.holds() == ()
        decision = await last(w)
        assert (await w.call(coder, "acme__merge_pull_request", **PULL, number=1)).is_held
    assert decision["observed"]["would"] == "hold" and decision["observed"]["rules"] == ["destructive"]
    assert decision["decision"] == "permit" and "approval" not in decision


async def test_a_hold_by_the_rule_for_writing_is_observed(tmp_path: Path) -> None:
    async with world(tmp_path, servers=observed(tmp_path), approval=WRITE_RULE) as w:
        coder = await w.ready("coder", "pr")
        done = await w.call(coder, "acme__open_pull_request", **PULL, title="t", branch="b", draft=True)
        assert not done.is_error and not done.is_held
        assert (await last(w))["observed"] == {
            "would": "hold",
            "reason": "approval",
            "because": ["people-may-have-agents-read-and-write-within-their-scopes"],
            "rules": ["write"],
        }


async def test_a_denial_by_policy_is_observed(tmp_path: Path) -> None:
    policy = [str(ROOT / "policies" / f"{name}.cedar") for name in ("incident",)]
    async with world(tmp_path, servers=observed(tmp_path), policy=policy) as w:
        coder = await w.ready("coder", "secret", labels={"environment": "staging"})
        assert not (await w.call(coder, "acme__read_secret", environment="production", name="db-password")).is_error
        decision = await last(w)
    assert decision["decision"] == "permit"
    assert decision["observed"]["reason"] == "policy"


async def test_a_denial_by_the_constraints_of_a_grant_is_observed(tmp_path: Path) -> None:
    async with world(tmp_path, servers=observed(tmp_path)) as w:
        await w.person("alice")
        coder = await w.agent("coder", ceiling="pr")
        only = parse_tools({"acme__list_pull_requests": {"repo": {"constraint_type": "exact", "value": "web"}}})
        await w.start(
            await w.running.sessions.grant("alice", "coder", scope=parse_scopes("pr"), tools=only, by=OPERATOR)
        )
        assert not (await w.call(coder, "acme__list_pull_requests", **PULL)).is_error
        assert (await last(w))["observed"]["reason"] == "constraint"
        async with w.client(coder) as client:
            assert "acme__open_pull_request" in {tool.name for tool in (await client.list_tools()).tools}


async def test_an_error_while_deciding_stays_a_denial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with world(tmp_path, servers=observed(tmp_path)) as w:
        coder = await w.ready("coder", "pr:read:acme")
        monkeypatch.setattr(w.running.parts.evaluator, "engine", Broken())
        for tool in ("acme__list_pull_requests", "acme__list_deployments"):  # one within its scopes, one beyond them
            refused = await w.call(coder, tool, **PULL)
            assert refused.is_error and refused.envelope["reason"] == "policy_error", tool
            assert "observed" not in await last(w)


class Broken:
    """An engine that fails on whatever it is asked."""

    digest = "broken"

    async def evaluate(self, document: Any) -> PolicyAnswer:
        return PolicyAnswer(permit=True, because=(RuleId("x"),), errors=("it broke",))


async def test_who_calls_in_which_session_and_how_the_arguments_look_stays_enforced(tmp_path: Path) -> None:
    async with world(tmp_path, servers=observed(tmp_path)) as w:
        coder = await w.ready("coder", "pr")
        bare = await w.agent("bare", ceiling="pr")
        assert (await w.raw_call(None, "acme__list_pull_requests", PULL)).status_code == 401
        assert (await w.call(bare, "acme__list_pull_requests", **PULL)).envelope["reason"] == "no_session"
        assert (await w.call(coder, "acme__list_pull_requests", owner=1)).envelope["reason"] == "arguments"
        token = await w.token(coder)
        await w.store.revoke("agent", "coder", _event(w))
        assert (await w.raw_call(token, "acme__list_pull_requests", PULL)).status_code == 401
        assert all("observed" not in decision for decision in await w.decisions())


def _event(w: World) -> Any:
    from mcp_authz.store.ports import Event

    return Event(kind="revocation", at=w.clock(), fields={"by": OPERATOR})


async def test_the_log_with_observed_calls_hangs_together_and_its_first_record_says_what_is_observed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="mcp_authz.observing"):
        async with world(tmp_path, servers=observed(tmp_path)) as w:
            coder = await w.ready("coder", "pr:read:acme")
            await w.call(coder, "acme__list_deployments", **PULL)
            (started,) = await w.records("configuration")
            outcomes = await w.records("outcome")
    assert started.event.fields["observing"] == ["acme"] and "only observing acme" in started.event.fields["summary"]
    assert [o.event.fields["outcome"] for o in outcomes] == ["done"]
    assert ["OBSERVE MODE" in message for message in caplog.messages] == [True]
    store = tmp_path / "data" / "store.db"
    assert first_break(stored_records(store), head=stored_head(store)) is None


async def test_a_gateway_whose_policy_permits_everything_does_not_start_because_it_only_observes(
    tmp_path: Path,
) -> None:
    (tmp_path / "all.cedar").write_text('@id("all") permit (principal, action, resource);')
    config = parse_config(
        {
            "data_dir": str(tmp_path / "data"),
            "policy": str(tmp_path / "all.cedar"),
            "servers": {"a": {"command": [sys.executable, "-c", ""], "mode": "observe"}},
        }
    )
    with pytest.raises(PolicyError, match="canary"):
        async with run_gateway(config):
            pass


async def test_a_client_with_a_token_for_too_little_is_sent_to_sign_in_for_more_as_always(tmp_path: Path) -> None:
    async with world(tmp_path, servers=observed(tmp_path)) as w:
        coder = await w.ready("coder", "pr:read secret:read")
        token = await w.token(coder, "secret:read")
        answer = await w.raw_call(token, "acme__list_pull_requests", PULL)
        assert answer.status_code == 403 and "pr:read:acme:api" in answer.headers["www-authenticate"]
        assert "observed" not in await last(w)


async def test_the_log_is_warned_again_and_again_while_a_server_is_observed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "OBSERVE_REMINDER", timedelta(milliseconds=5))
    config = parse_config({"servers": observed(tmp_path, observe_destructive=["deploy"])})
    with caplog.at_level(logging.WARNING, logger="mcp_authz.observing"), anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(keep_telling, config)
            while len(caplog.messages) < 3:  # noqa: ASYNC110 - a log tells nobody that it was written
                await anyio.sleep(0.005)
            group.cancel_scope.cancel()
        await keep_telling(parse_config({"servers": {"acme": incident_server(tmp_path)}}))  # has nothing to tell
    assert all("`acme` is in OBSERVE MODE" in message and "except deploy" in message for message in caplog.messages)
