"""docs/client.md is a program: its snippets run, in their order, against a gateway."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import pytest

from mcp_authz.agents import Agents
from mcp_authz.client import AgentIdentity
from mcp_authz.enrolment import Codes
from mcp_authz.principals import AgentName
from mcp_authz.rules.scope import parse_scopes
from tests.client_library.parties import identity
from tests.world import OPERATOR, World, world

PAGE = (Path(__file__).parents[2] / "docs" / "client.md").read_text()
SNIPPETS = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)


async def announced(w: World, name: str) -> str:
    """The code by which an agent that has no key yet enrols."""
    await Agents(w.store, w.clock).add(name, owner="alice", key=None, ceiling=parse_scopes("pr"), by=OPERATOR)
    return (await Codes(w.store, w.clock).make(AgentName(name), by=OPERATOR)).text


async def test_the_snippets_run_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with world(tmp_path) as w:
        identity(await w.ready("planner", "pr", depth=2, delegates_to=("coder",))).save("planner.pem")
        names: dict[str, Any] = {"code": await announced(w, "coder")}
        for number, snippet in enumerate(SNIPPETS):
            text = snippet.replace("http://localhost:8642", w.config.public_url)
            code = compile(text, f"snippet {number}", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            await _run(code, names)
    assert len(SNIPPETS) >= 7 and names["worker"].name == "planner/worker-7"
    assert names["coder"].thumbprint == AgentIdentity.load("coder.pem", name="coder").thumbprint


async def _run(code: CodeType, names: dict[str, Any]) -> None:
    found = FunctionType(code, names)()
    if inspect.isawaitable(found):
        await found


@pytest.mark.parametrize("function", [AgentIdentity.auth, AgentIdentity.delegate])
def test_every_option_is_documented(function: Any) -> None:
    table = PAGE.split(f"| `{function.__name__}(", 1)[1].split("\n\n", 1)[0]
    options = [
        name
        for name, one in inspect.signature(function).parameters.items()
        if one.kind is inspect.Parameter.KEYWORD_ONLY
    ]
    assert {name for name in options if f"`{name}" not in table} <= {"clock", "at", "to", "child"}
