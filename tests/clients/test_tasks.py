"""The tasks extension's own client library: a held call settles when its person has answered, and not before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_authz.model import HoldState
from tests.attacks.attacker import until
from tests.clients.node import node, package, run_client
from tests.road.places import DESTRUCTIVE, asking
from tests.road.tasks import DEPLOY
from tests.road.test_questions import ASKED, RED, received
from tests.world import World, world


@pytest.fixture(autouse=True)
def _is_installed() -> None:
    node()
    package("@modelcontextprotocol/client")
    package("@modelcontextprotocol/ext-tasks")


async def settled(w: World, tool: str, arguments: Any, *, approve: bool = True, **job: Any) -> dict[str, Any]:
    """What the library reports of a call that alice answers while it polls."""

    async def waits() -> bool:
        return bool(await w.store.holds(states=[HoldState.PENDING]))

    async def answer() -> None:
        await until(waits)
        (held,) = await w.store.holds(states=[HoldState.PENDING])
        await w.answer(held.id, by="alice", approve=approve, reason="" if approve else "not today")

    async with anyio.create_task_group() as group:
        group.start_soon(answer)
        return await run_client("typescript_tasks.mjs", w, tool=tool, arguments=arguments, **job)


async def test_the_library_settles_a_call_with_its_result_and_another_with_its_denial(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        token = await w.token(await w.ready("coder", "deploy"))
        ran = await settled(w, "acme__deploy", DEPLOY, token=token)
        assert (ran["kind"], ran["status"]) == ("task", "completed") and "working" in ran["states"]
        assert ran["result"]["structuredContent"] and len(w.deployments()) == 1
        denied = await settled(w, "acme__deploy", {**DEPLOY, "version": "2"}, token=token, approve=False)
        assert "result" in denied, denied
        assert denied["result"]["isError"] and "not today" in denied["result"]["content"][0]["text"]
        assert len(w.deployments()) == 1


async def test_the_library_answers_the_tool_servers_question(tmp_path: Path) -> None:
    async with world(tmp_path, servers={"asking": asking(tmp_path / "f", tools=DESTRUCTIVE)}) as w:
        token = await w.token(await w.ready("coder", "use"))
        ran = await settled(w, "asking__ask", {"asked": ASKED, "rounds": 1}, token=token, answer=RED)
    assert ran["asked"] == ["[tool server `asking`] Which colour?"]
    assert received(ran["result"])["inputResponses"] == {"q": RED}
