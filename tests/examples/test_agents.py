"""The agents of examples/agents, as they are: each signs in with its own key, works, and is held where it must be."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
import pytest

from tests.clients.node import node, package
from tests.world import ROOT, Actor, World, world

AGENTS = ROOT / "examples" / "agents"
OLDER = ROOT / "examples" / ".venv" / "bin" / "python"
CONNECT = str(Path(sys.executable).parent / "mcp-authz")
SOON = 60.0  # seconds


async def run(w: World, actor: Actor, *command: str) -> str:
    """What the example prints; it finds an empty home directory."""
    key, home = w.directory / f"{actor.name}.pem", w.directory / "home"
    key.touch(0o600)
    key.write_text(actor.key.to_pem())
    home.mkdir()
    env = {"HOME": str(home), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    words = [*command[:2], w.url, "--agent", actor.name, "--key", str(key), *command[2:]]
    with anyio.fail_after(SOON):
        done = await anyio.run_process(words, check=False, env=env, cwd=home)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


async def decided(w: World) -> list[tuple[str, str, str]]:
    """Tool, decision and proof of each decision there was."""
    return [(each["tool"], each["decision"], each["proof"]) for each in await w.decisions()]


SIGNED = [("acme__list_pull_requests", "permit", "signed"), ("acme__deploy", "hold", "signed")]


def langchain() -> list[str]:
    found = OLDER.parent.parent.glob("lib/*/site-packages/langchain_mcp_adapters")
    if not OLDER.exists() or not any(found):
        pytest.skip("needs the packages of examples/requirements.txt in examples/.venv")
    return [str(OLDER), str(AGENTS / "langchain_agent.py"), "--connect", CONNECT]


def mastra() -> list[str]:
    package("@mastra/mcp")
    package("@mastra/core")
    return [node(), str(AGENTS / "mastra.mjs"), "--connect", CONNECT]


def pydantic_ai() -> list[str]:
    return [sys.executable, str(AGENTS / "pydantic_ai_agent.py")]


@pytest.mark.parametrize("framework", [langchain, mastra, pydantic_ai], ids=lambda framework: framework.__name__)
async def test_an_agent_of_a_framework_signs_every_call_and_waits_for_a_person(
    tmp_path: Path, framework: object
) -> None:
    assert callable(framework)
    command = framework()
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr deploy")
        said = await run(w, coder, *command)
        assert "Retry the payment call" in said and "Held, not executed" in said
        assert await decided(w) == SIGNED


async def test_the_typescript_agent_is_bound_to_its_key(tmp_path: Path) -> None:
    package("@modelcontextprotocol/client")
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr deploy")
        said = await run(w, coder, node(), str(AGENTS / "typescript.mjs"))
        assert "Retry the payment call" in said and "Held, not executed" in said and "token_type: DPoP" in said
        assert {proof for _, _, proof in await decided(w)} == {"dpop"}


async def test_three_workers_of_a_planner_see_their_own_repository_and_no_other(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        planner = await w.ready("planner", "pr:read deploy", depth=2)
        said = (await run(w, planner, sys.executable, str(AGENTS / "planner.py"))).splitlines()
        calls = [(each["actor"], each["decision"], each["chain"]) for each in await w.decisions()]
    assert "planner/worker-1 asked for api" in said[0] and "Retry the payment call" in said[0]
    assert "planner/worker-2 asked for web" in said[1] and "delegation" not in said[1]
    assert "planner/worker-3 asked for api: Denied: Your delegation does not permit these arguments" in said[2]
    assert sorted(calls) == [
        ("agent:planner/worker-1", "permit", ["agent:planner", "agent:planner/worker-1"]),
        ("agent:planner/worker-2", "permit", ["agent:planner", "agent:planner/worker-2"]),
        ("agent:planner/worker-3", "deny", ["agent:planner", "agent:planner/worker-3"]),
    ]
