"""Tasks spoken by hand: one request about a held call that its caller looks after by polling."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2

from tests.attacks.attacker import SOON, answer_in
from tests.world import MODERN, World, modern_call

EXTENSION = "io.modelcontextprotocol/tasks"
TASKS = {"extensions": {EXTENSION: {}}}
FORM = {**TASKS, "elicitation": {"form": {}}}
URL = {**TASKS, "elicitation": {"url": {}}}
DEPLOY = {"owner": "acme", "repo": "api", "environment": "staging", "version": "1.4.0"}
NO_SUCH_TASK = -32602


def body(method: str, params: Any, capabilities: Any = TASKS, meta: Any = None) -> dict[str, Any]:
    """The body of a request of 2026-07-28."""
    envelope = modern_call("", {}, capabilities=capabilities, meta=meta)["params"]["_meta"]
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": envelope}}


async def ask(
    w: World, token: str, method: str, task: str, *, capabilities: Any = TASKS, name: str | None = None, **more: Any
) -> httpx2.Response:
    """One request about a task; `name` is what its header says."""
    meta = more.pop("meta", None)
    headers = {"mcp_protocol_version": MODERN, "mcp_method": method, "mcp_name": task if name is None else name}
    return await w.post(body(method, {"taskId": task, **more}, capabilities, meta), token, **headers)


async def get(w: World, token: str, task: str, **more: Any) -> dict[str, Any]:
    """The task as `tasks/get` gives it."""
    answer = answer_in(await ask(w, token, "tasks/get", task, **more))
    assert answer.get("result", {}).get("resultType") == "complete", answer
    result: dict[str, Any] = answer["result"]
    return result


async def update(w: World, token: str, task: str, **responses: Any) -> None:
    """Answers to what the task asks."""
    answer = answer_in(await ask(w, token, "tasks/update", task, inputResponses=responses))
    assert answer["result"].keys() == {"resultType", "_meta"}, answer


async def refused(w: World, token: str, method: str, task: str, **more: Any) -> dict[str, Any]:
    """The error that answers such a request."""
    error: dict[str, Any] = answer_in(await ask(w, token, method, task, **more))["error"]
    return error


async def begin(
    w: World, token: str, tool: str = "acme__deploy", /, *, capabilities: Any = TASKS, meta: Any = None, **other: Any
) -> dict[str, Any]:
    """The task that a call becomes."""
    arguments = {**DEPLOY, **other} if tool == "acme__deploy" else other
    answer = answer_in(await w.raw_call(token, tool, arguments, capabilities=capabilities, meta=meta))
    assert answer.get("result", {}).get("resultType") == "task", answer
    result: dict[str, Any] = answer["result"]
    return result


@asynccontextmanager
async def listening(
    w: World, token: str, *, capabilities: Any = TASKS, **notifications: Any
) -> AsyncIterator[AsyncIterator[dict[str, Any]]]:
    """The messages of one `subscriptions/listen` stream, as they come."""
    method = "subscriptions/listen"
    headers = {
        "authorization": f"Bearer {token}",
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": MODERN,
        "mcp-method": method,
    }
    asked = body(method, {"notifications": notifications}, capabilities)
    async with (
        httpx2.AsyncClient(timeout=SOON) as http,
        http.stream("POST", w.url, json=asked, headers=headers) as response,
    ):

        async def messages() -> AsyncIterator[dict[str, Any]]:
            if response.headers["content-type"] == "application/json":
                yield json.loads(await response.aread())
                return
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    yield json.loads(line.removeprefix("data: "))

        with anyio.fail_after(SOON):
            yield messages()
