"""Held calls as tasks: durable, run once by a poll of their owner, and read again until their time is up."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx2

from mcp_authz.model import HoldState
from tests.attacks.attacker import answer_in
from tests.world import MODERN, World, modern_call, world

TASKS = {"extensions": {"io.modelcontextprotocol/tasks": {}}}
DEPLOY = {"owner": "acme", "repo": "api", "environment": "staging", "version": "1.4.0"}


async def ask(
    w: World, token: str, method: str, task: str, *, capabilities: Any = None, **params: Any
) -> httpx2.Response:
    """One raw request about a task."""
    body = modern_call("", {}, capabilities=TASKS if capabilities is None else capabilities)
    meta = body["params"]["_meta"]
    body = {**body, "method": method, "params": {"taskId": task, **params, "_meta": meta}}
    return await w.post(body, token, mcp_protocol_version=MODERN, mcp_method=method, mcp_name=task)


async def get(w: World, token: str, task: str, **more: Any) -> dict[str, Any]:
    """The task as `tasks/get` gives it."""
    answer = answer_in(await ask(w, token, "tasks/get", task, **more))
    assert answer.get("result", {}).get("resultType") == "complete", answer
    result: dict[str, Any] = answer["result"]
    return result


async def begin(w: World, token: str, *, capabilities: Any = None, **arguments: Any) -> dict[str, Any]:
    """The task that a call of the destructive tool becomes."""
    asked = {**DEPLOY, **arguments}
    answer = answer_in(await w.raw_call(token, "acme__deploy", asked, capabilities=capabilities or TASKS))
    assert answer.get("result", {}).get("resultType") == "task", answer
    result: dict[str, Any] = answer["result"]
    return result


async def test_a_held_call_is_a_task_that_runs_once_with_a_poll_after_the_approval(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        token = await w.token(await w.ready("coder", "deploy"))
        made = await begin(w, token)
        (held,) = await w.store.holds()
        assert made["status"] == "working" and made["ttlMs"] > 0 and made["pollIntervalMs"] > 0
        assert held.id in made["statusMessage"] and "result" not in made
        assert (await begin(w, token))["taskId"] == made["taskId"]  # an identical call is the same task
        waits = await get(w, token, made["taskId"])
        assert waits["status"] == "working" and w.deployments() == []

        await w.answer(held.id, by="alice", reason="go")
        assert w.deployments() == []  # nothing runs detached
        polls: list[dict[str, Any]] = []

        async def poll() -> None:
            polls.append(await get(w, token, made["taskId"]))

        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(poll)
        assert [one["version"] for one in w.deployments()] == ["1.4.0"]
        again = await get(w, token, made["taskId"])
        assert {one["status"] for one in polls} <= {"working", "completed"}
        assert again["status"] == "completed" and again["result"]["structuredContent"]
        assert len(w.deployments()) == 1


async def test_a_denial_an_expiry_and_a_revoked_hold_are_told_as_what_they_are(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy")
        token = await w.token(coder)
        denied, cancelled, expired = [(await begin(w, token, version=v))["taskId"] for v in ("1", "2", "3")]
        first, second, _ = await w.store.holds(states=[HoldState.PENDING])
        await w.answer(first.id, by="alice", approve=False, reason="not on a Friday")
        said = await get(w, token, denied)
        assert said["status"] == "completed" and said["result"]["isError"]
        assert "not on a Friday" in said["result"]["content"][0]["text"]

        assert answer_in(await ask(w, token, "tasks/cancel", cancelled))["result"]["resultType"] == "complete"
        assert (await get(w, token, cancelled))["status"] == "cancelled"
        assert (await w.store.hold(second.id)).state is HoldState.CANCELLED

        w.clock.advance(timedelta(minutes=15, seconds=1))
        token = await w.token(coder)
        said = await get(w, token, expired)
        assert said["status"] == "completed" and "in time" in said["result"]["content"][0]["text"]
        w.clock.advance(timedelta(minutes=2))
        gone, never = [answer_in(await ask(w, token, "tasks/get", t)) for t in (expired, "t_" + "a" * 26)]
        assert gone == never and gone["error"]["code"] == -32602
        assert w.deployments() == []
