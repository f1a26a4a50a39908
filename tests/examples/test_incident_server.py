"""The incident demo's tool server does what it is asked, and keeps it."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from mcp import Client, StdioServerParameters

from examples.incident.server import read_deployments

SERVER = Path(__file__).parents[2] / "examples" / "incident" / "server.py"
API = {"owner": "acme", "repo": "api"}


@asynccontextmanager
async def over_stdio(state: Path) -> AsyncIterator[Client]:
    server = StdioServerParameters(command=sys.executable, args=[str(SERVER), "--state", str(state)])
    async with asyncio.timeout(60), Client(server, cache=None) as client:
        yield client


@asynccontextmanager
async def over_http(state: Path) -> AsyncIterator[str]:
    """Start the server on a free port; yield its URL as soon as it says that it listens."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(SERVER), "--state", str(state), "--http", "0", stderr=subprocess.PIPE
    )
    try:
        async with asyncio.timeout(60):
            yield f"{await listening(process)}/mcp"
    finally:
        process.terminate()
        async with asyncio.timeout(20):
            await process.communicate()


async def listening(process: asyncio.subprocess.Process) -> str:
    assert process.stderr is not None
    async for line in process.stderr:
        if found := re.search(r"running on (http://127\.0\.0\.1:\d+)", line.decode()):
            return found[1]
    raise AssertionError("the server ended before it listened")


async def answer(client: Client, tool: str, **arguments: Any) -> Any:
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    assert result.structured_content is not None
    return result.structured_content.get("result", result.structured_content)


async def refusal(client: Client, tool: str, **arguments: Any) -> str:
    result = await client.call_tool(tool, arguments)
    assert result.is_error
    return str(getattr(result.content[0], "text", ""))


async def test_the_tools_are_listed_with_honest_annotations_and_output_schemas(tmp_path: Path) -> None:
    async with over_stdio(tmp_path) as client:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}

    assert all(tool.output_schema for tool in tools.values())
    assert {
        name: (t.annotations.read_only_hint, t.annotations.destructive_hint)
        for name, t in tools.items()
        if t.annotations
    } == {
        "list_pull_requests": (True, None),
        "open_pull_request": (False, False),
        "merge_pull_request": (False, True),
        "read_secret": (True, None),
        "deploy": (False, True),
        "list_deployments": (True, None),
    }


async def test_a_pull_request_is_opened_merged_once_and_kept_on_disk(tmp_path: Path) -> None:
    async with over_stdio(tmp_path) as client:
        opened = await answer(client, "open_pull_request", **API, title="Fix", branch="fix")
        await answer(client, "merge_pull_request", **API, number=opened["number"])
        again = await refusal(client, "merge_pull_request", **API, number=opened["number"])

    assert again.endswith("pull request 2 is merged already")
    assert json.loads((tmp_path / "repositories.json").read_text())["acme/api"][1] == {
        "number": 2,
        "title": "Fix",
        "branch": "fix",
        "draft": False,
        "state": "merged",
    }


async def test_a_draft_is_listed_but_not_merged(tmp_path: Path) -> None:
    async with over_stdio(tmp_path) as client:
        draft = await answer(client, "open_pull_request", **API, title="Fix", branch="fix", draft=True)
        assert draft in await answer(client, "list_pull_requests", **API)
        assert "is a draft" in await refusal(client, "merge_pull_request", **API, number=draft["number"])


async def test_a_secret_is_told_to_whoever_asks(tmp_path: Path) -> None:
    async with over_stdio(tmp_path) as client:
        secret = await answer(client, "read_secret", environment="production", name="db-password")

    assert secret == "prod-db-password-CANARY-7f3a"


async def test_a_deployment_outlives_the_process_that_made_it(tmp_path: Path) -> None:
    async with over_stdio(tmp_path) as client:
        made = await answer(client, "deploy", **API, environment="production", version="1.4.0")
    async with over_stdio(tmp_path) as client:
        assert await answer(client, "list_deployments", **API) == [made]
        assert await answer(client, "list_deployments", owner="acme", repo="web") == []

    (kept,) = read_deployments(tmp_path)
    assert (kept.owner, kept.repo, kept.environment, kept.version) == ("acme", "api", "production", "1.4.0")


async def test_what_does_not_exist_is_named_in_a_tool_error_and_changes_nothing(tmp_path: Path) -> None:
    nothing = {"owner": "acme", "repo": "nothing"}
    async with over_stdio(tmp_path) as client:
        before = (tmp_path / "repositories.json").read_bytes()
        for tool, arguments, reason in (
            ("list_pull_requests", nothing, "unknown `acme/nothing`; there are: acme/api, acme/web"),
            ("open_pull_request", {**nothing, "title": "t", "branch": "b"}, "unknown `acme/nothing`"),
            ("merge_pull_request", {**API, "number": 9}, "no pull request 9 in `acme/api`"),
            ("read_secret", {"environment": "moon", "name": "db-password"}, "unknown `moon`; there are: staging"),
            ("read_secret", {"environment": "staging", "name": "x"}, "no secret `x` in `staging`"),
            ("deploy", {**nothing, "environment": "staging", "version": "1"}, "unknown `acme/nothing`"),
            ("deploy", {**API, "environment": "moon", "version": "1"}, "unknown `moon`"),
            ("deploy", {**API, "environment": "staging", "version": ""}, "at least 1 character"),
            ("list_deployments", nothing, "unknown `acme/nothing`"),
        ):
            assert reason in await refusal(client, tool, **arguments)

    assert (tmp_path / "repositories.json").read_bytes() == before
    assert read_deployments(tmp_path) == ()


async def test_calls_at_once_from_two_processes_do_not_lose_one_another(tmp_path: Path) -> None:
    async def deploy(client: Client, version: int) -> None:
        await answer(client, "deploy", **API, environment="staging", version=str(version))
        await answer(client, "open_pull_request", **API, title=str(version), branch="b")

    async with over_stdio(tmp_path) as one, over_stdio(tmp_path) as other:
        await asyncio.gather(*(deploy(client, n) for n in range(10) for client in (one, other)))
        pulls = await answer(one, "list_pull_requests", **API)

    assert [made.number for made in read_deployments(tmp_path)] == list(range(1, 21))
    assert [pull["number"] for pull in pulls] == list(range(1, 22))


async def test_a_line_that_a_crash_cut_short_does_not_count_and_is_replaced(tmp_path: Path) -> None:
    async with over_stdio(tmp_path) as client:
        await answer(client, "deploy", **API, environment="staging", version="1")
        with (tmp_path / "deployments.jsonl").open("a") as file:
            file.write('{"number": 2, "own')
        assert len(await answer(client, "list_deployments", **API)) == 1
        await answer(client, "deploy", **API, environment="staging", version="2")

    assert [made.version for made in read_deployments(tmp_path)] == ["1", "2"]


async def test_over_http_it_serves_both_protocol_eras_from_the_same_state(tmp_path: Path) -> None:
    async with over_http(tmp_path) as url:
        async with Client(url, cache=None) as modern:
            assert modern.session.protocol_version == "2026-07-28"
            made = await answer(modern, "deploy", **API, environment="staging", version="1")
        async with Client(url, cache=None, mode="legacy") as legacy:
            assert legacy.session.protocol_version == "2025-11-25"
            assert await answer(legacy, "list_deployments", **API) == [made]

    assert len(read_deployments(tmp_path)) == 1


def test_nothing_was_deployed_where_the_server_never_ran(tmp_path: Path) -> None:
    assert read_deployments(tmp_path / "nowhere") == ()
