"""What the MCP Inspector shows of refusals and holds, and its `mcpdo`, which answers questions from scripts."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_authz.protocol.answers import ENVELOPE
from tests.clients.node import node, package, program, run
from tests.road.waiting import approve_next
from tests.web.authenticator import visiting
from tests.world import World, world

INSPECTOR = "@modelcontextprotocol/inspector"
ERAS = pytest.mark.parametrize("era", ["legacy", "modern"])
PULL = {"owner": "acme", "repo": "api"}
DEPLOY = {**PULL, "environment": "staging", "version": "1.4.0"}
TOOL_SAID_NO, SIGN_IN_FIRST = 5, 3  # exit statuses of the Inspector


@pytest.fixture(autouse=True)
def _is_installed() -> None:
    node()
    package(INSPECTOR)


async def inspect(w: World, era: str, token: str | None, *words: str) -> subprocess.CompletedProcess[str]:
    """One run of the Inspector as README shows it."""
    command = [program("mcp-inspector", INSPECTOR), "--cli", w.url, "--transport", "http", "--protocol-era", era]
    header = [] if token is None else ["--header", f"Authorization: Bearer {token}"]
    return await run(*command, "--format", "json", *words, *header, home=w.directory / "home")


async def call(
    w: World, era: str, token: str, tool: str, arguments: Any
) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """One call by the Inspector, and its result when there is one."""
    words = ("--method", "tools/call", "--tool-name", tool, "--tool-args-json", json.dumps(arguments))
    done = await inspect(w, era, token, *words)
    return done, json.loads(done.stdout)["result"] if done.stdout else {}


async def test_the_inspector_that_chooses_the_era_itself_lists_what_the_agent_could_use(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr:read deploy")
        done = await inspect(w, "auto", await w.token(coder), "--method", "tools/list")
    assert done.returncode == 0, done.stderr
    names = {tool["name"] for tool in json.loads(done.stdout)["result"]["tools"]}
    assert names == {"acme__list_pull_requests", "acme__deploy", "acme__list_deployments", "authz__request_session"}


@ERAS
async def test_the_inspector_shows_why_a_call_is_denied(tmp_path: Path, era: str) -> None:
    async with world(tmp_path) as w:
        coder = await w.agent("coder", ceiling="pr", owner=await w.person("alice"))
        await w.start(await w.grant("alice", "coder", "pr:read:acme:web"))
        done, result = await call(w, era, await w.token(coder), "acme__list_pull_requests", PULL)
    assert done.returncode == TOOL_SAID_NO
    assert result["isError"] and result["content"][0]["text"].startswith("Denied: ")


async def test_the_inspector_of_the_newer_era_looks_after_its_held_call_as_a_task_until_it_is_approved(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy")
        token = await w.token(coder)
        async with anyio.create_task_group() as group:
            group.start_soon(approve_next, w, "alice")
            done, result = await call(w, "modern", token, "acme__deploy", DEPLOY)
        assert done.returncode == 0 and result["structuredContent"]["version"] == "1.4.0"
        assert len(w.deployments()) == 1


async def test_the_inspector_shows_that_a_call_is_held_and_runs_it_once_it_is_approved(tmp_path: Path) -> None:
    era = "legacy"
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy")
        token = await w.token(coder)
        done, held = await call(w, era, token, "acme__deploy", DEPLOY)
        assert done.returncode == TOOL_SAID_NO and held["content"][0]["text"].startswith("Held, not executed")
        assert w.deployments() == []

        await w.answer(held["_meta"][ENVELOPE]["hold"], by="alice")
        done, result = await call(w, era, token, "acme__deploy", DEPLOY)
        assert done.returncode == 0 and result["structuredContent"]["version"] == "1.4.0"
        assert len(w.deployments()) == 1


@ERAS
async def test_the_inspector_names_the_scope_that_its_token_lacks(tmp_path: Path, era: str) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr")
        done, _ = await call(w, era, await w.token(coder, "mcp:connect"), "acme__list_pull_requests", PULL)
    assert done.returncode != 0 and "pr:read:acme:api" in done.stderr


@ERAS
@pytest.mark.parametrize("token", [None, "no.such.token"], ids=["no token", "no such token"])
async def test_the_inspector_without_a_valid_token_wants_to_sign_in(
    tmp_path: Path, era: str, token: str | None
) -> None:
    async with world(tmp_path) as w:
        done = await inspect(w, era, token, "--method", "tools/list", "--stored-auth-only")
    assert done.returncode == SIGN_IN_FIRST and json.loads(done.stderr)["error"]["code"] == "auth_required"


@dataclass
class Mcpdo:
    """`mcpdo` with a daemon of its own that keeps one connection, `desk`."""

    home: Path
    sockets: str

    async def __call__(self, *words: str, status: int = 0) -> dict[str, Any]:
        """One command: what it prints, once it ended with this status."""
        command = [program("mcpdo", INSPECTOR), "--format", "json", *words]
        env = {"MCP_INSPECTOR_DAEMON_DIR": self.sockets, "MCP_INSPECTOR_SECRET_STORE": "file"}
        done = await run(*command, home=self.home, env=env)
        assert done.returncode == status, done.stderr
        said: dict[str, Any] = json.loads(done.stdout)
        return said


@asynccontextmanager
async def connected(w: World, era: str, token: str) -> AsyncIterator[Mcpdo]:
    """A daemon that is connected to the gateway, and gone afterwards."""
    sockets = tempfile.mkdtemp(prefix="mcpdo-")  # short: the path of a socket has 107 bytes at most
    mcpdo = Mcpdo(w.directory / "home", sockets)
    try:
        made = await mcpdo(
            "connect", w.url, "--transport", "http", "--era", era, "--header", f"Authorization: Bearer {token}"
        )
        assert made["protocolEra"] == era
        yield mcpdo
    finally:
        with anyio.CancelScope(shield=True):
            await mcpdo("daemon", "stop")
        shutil.rmtree(sockets)


@ERAS
async def test_a_script_answers_the_question_of_a_held_call_through_mcpdo(tmp_path: Path, era: str) -> None:
    arguments = json.dumps(DEPLOY)
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy", interactive=True)
        async with connected(w, era, await w.token(coder)) as mcpdo:
            here = ("--connection", w.url)
            asked = (await mcpdo(*here, "tools/call", "acme__deploy", arguments))["elicitationPending"]
            assert "coder asks to run acme__deploy (destructive)" in asked["message"]
            assert w.deployments() == []
            done = await mcpdo("elicitation/respond", asked["elicitationId"], "approve:=true")
        (verdict,) = [record.event.fields for record in await w.records("approval")]
        assert len(w.deployments()) == 1
    assert done["structuredContent"]["version"] == "1.4.0"
    assert verdict["assurance"] == "client" and verdict["person"] == "user:alice"


@ERAS
async def test_a_script_that_declines_through_mcpdo_denies_the_call(tmp_path: Path, era: str) -> None:
    arguments = json.dumps(DEPLOY)
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy", interactive=True)
        async with connected(w, era, await w.token(coder)) as mcpdo:
            here = ("--connection", w.url)
            asked = (await mcpdo(*here, "tools/call", "acme__deploy", arguments))["elicitationPending"]
            denied = await mcpdo("elicitation/respond", asked["elicitationId"], "--decline", status=TOOL_SAID_NO)
        assert w.deployments() == []
    assert denied["isError"] and denied["content"][0]["text"].startswith("Denied: ")


@ERAS
async def test_a_call_goes_on_in_mcpdo_once_its_person_was_on_the_page_that_it_named(tmp_path: Path, era: str) -> None:
    async with world(tmp_path, waiting={"seconds": 60}) as w:
        coder = await w.ready("coder", "deploy")
        async with connected(w, era, await w.token(coder)) as mcpdo, visiting(w, "alice") as alice:
            asked = (await mcpdo("--connection", w.url, "tools/call", "acme__deploy", json.dumps(DEPLOY)))[
                "elicitationPending"
            ]
            (held,) = await w.store.holds()
            assert (asked["mode"], asked["url"]) == ("url", f"{w.config.public_url}/holds/{held.id}/asked")
            led = await alice.get(f"/holds/{held.id}/asked")
            assert led.headers["location"] == f"/holds/{held.id}" and w.deployments() == []
            assert (await alice.approve(held.id)).json()["state"] == "approved"
            done = await mcpdo("elicitation/respond", asked["elicitationId"], "--done")
        assert len(w.deployments()) == 1
    assert done["structuredContent"]["version"] == "1.4.0"
