"""The two TypeScript SDKs as clients: refusals, holds and scopes as they meet them; more of v2 is in tests/road."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_authz.protocol.answers import ENVELOPE
from tests.clients.node import key_of, node, package, run_client
from tests.road.waiting import approve_next
from tests.world import MODERN, World, world

V2, V1 = "typescript_v2.mjs", "typescript_v1.mjs"
HANDSHAKE = "2025-11-25"
CLIENTS = pytest.mark.parametrize(
    ("script", "version"),
    [(V2, MODERN), (V2, HANDSHAKE), (V1, HANDSHAKE)],
    ids=["v2, 2026-07-28", "v2, 2025-11-25", "v1, 2025-11-25"],
)
PULL = {"owner": "acme", "repo": "api"}
DEPLOY = {**PULL, "environment": "staging", "version": "1.4.0"}
LIST, DEPLOYS = ["call", "acme__list_pull_requests", PULL], ["call", "acme__deploy", DEPLOY]


@pytest.fixture(autouse=True)
def _is_installed() -> None:
    node()
    package("@modelcontextprotocol/client")
    package("@modelcontextprotocol/sdk")


async def client(script: str, version: str, w: World, *steps: Any, **job: Any) -> dict[str, Any]:
    """What the client reports; it has spoken the revision that the test is about."""
    mode: Any = {"pin": MODERN} if version == MODERN else "legacy"
    report = await run_client(script, w, mode=mode, steps=steps, **job)
    assert report["version"] == version, report
    return report


def outcome(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """The gateway's envelope in a result."""
    envelope: Mapping[str, Any] = result["_meta"][ENVELOPE]
    return envelope


async def test_v1_signs_in_with_its_key_lists_and_calls(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr:read")
        report = await client(V1, HANDSHAKE, w, ["list"], LIST, **key_of(w, coder))
    listed, called = report["said"]
    assert listed == ["acme__list_pull_requests", "authz__request_session"]
    assert not called.get("isError") and called["structuredContent"]["result"][0]["branch"] == "retry"


async def test_v1_asks_for_what_it_was_configured_with_and_never_for_more(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr deploy")
        whole = await client(V1, HANDSHAKE, w, LIST, **key_of(w, coder))
        narrow = await client(V1, HANDSHAKE, w, LIST, scope="mcp:connect", **key_of(w, coder))
        decided = [fields["decision"] for fields in await w.decisions()]
    assert not whole["said"][0].get("isError")
    assert "403 after trying upscoping" in narrow["said"][0]["message"]
    assert decided == ["permit", "deny", "deny"]


@CLIENTS
async def test_a_client_with_a_token_in_a_header_is_told_which_scope_it_lacks(
    tmp_path: Path, script: str, version: str
) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr")
        report = await client(script, version, w, LIST, token=await w.token(coder, "mcp:connect"))
    (refused,) = report["said"]
    assert "pr:read:acme:api" in refused["message"]


@CLIENTS
async def test_a_client_without_a_valid_token_is_told_so(tmp_path: Path, script: str, version: str) -> None:
    async with world(tmp_path) as w:
        mode: Any = {"pin": MODERN} if version == MODERN else "legacy"
        report = await run_client(script, w, mode=mode, steps=[LIST], token="no.such.token")
        assert await w.decisions() == []
    (refused,) = report["said"]
    assert refused["thrown"] and "401" in f"{refused['code']} {refused['message']}"


@CLIENTS
async def test_a_denied_call_is_a_result_that_a_model_can_read(tmp_path: Path, script: str, version: str) -> None:
    async with world(tmp_path) as w:
        coder = await w.agent("coder", ceiling="pr", owner=await w.person("alice"))
        await w.start(await w.grant("alice", "coder", "pr:read:acme:web"))
        report = await client(script, version, w, LIST, **key_of(w, coder))
    (denied,) = report["said"]
    assert denied["isError"] and denied["content"][0]["text"].startswith("Denied: ")
    assert outcome(denied)["outcome"] == "denied"


@CLIENTS
async def test_a_held_call_runs_once_after_a_person_approved_it(tmp_path: Path, script: str, version: str) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy")
        (held,) = (await client(script, version, w, DEPLOYS, **key_of(w, coder)))["said"]
        assert held["isError"] and held["content"][0]["text"].startswith("Held, not executed") and not w.deployments()

        await w.answer(outcome(held)["hold"], by="alice")
        done, again = (await client(script, version, w, DEPLOYS, DEPLOYS, **key_of(w, coder)))["said"]
        assert not done.get("isError") and done["structuredContent"]["version"] == "1.4.0"
        assert outcome(again)["outcome"] == "replayed" and len(w.deployments()) == 1


@CLIENTS
@pytest.mark.parametrize("opens", [False, True], ids=["waits", "opens the page"])
async def test_a_held_call_goes_on_in_the_same_request_of_the_program(
    tmp_path: Path, script: str, version: str, opens: bool
) -> None:
    how: dict[str, Any] = {"opens": True, "answer": {"action": "accept"}} if opens else {}
    reports = []
    async with world(tmp_path, waiting={"seconds": 60}) as w:
        coder = await w.ready("coder", "deploy")

        async def run() -> None:
            reports.append(await client(script, version, w, DEPLOYS, **how, **key_of(w, coder)))

        async with anyio.create_task_group() as group:
            group.start_soon(run)
            await approve_next(w, "alice")
        (held,) = await w.store.holds()
        assert len(w.deployments()) == 1
    (report,) = reports
    (done,) = report["said"]
    assert not done.get("isError") and done["structuredContent"]["version"] == "1.4.0"
    assert report["asked"] == ([f"{w.config.public_url}/holds/{held.id}/asked"] if opens else [])


@CLIENTS
async def test_a_person_who_says_no_in_their_client_denies_the_call(tmp_path: Path, script: str, version: str) -> None:
    answer = {"action": "accept", "content": {"approve": False}}
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy", interactive=True)
        report = await client(script, version, w, DEPLOYS, answer=answer, **key_of(w, coder))
        assert w.deployments() == []
    (question,), (denied,) = report["asked"], report["said"]
    assert "coder asks to run acme__deploy (destructive)" in question
    assert denied["isError"] and outcome(denied)["reason"] == "approval_denied"


async def test_a_person_who_says_yes_in_v1_lets_the_call_run_at_once(tmp_path: Path) -> None:
    answer = {"action": "accept", "content": {"approve": True}}
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy", interactive=True)
        report = await client(V1, HANDSHAKE, w, DEPLOYS, answer=answer, **key_of(w, coder))
        assert len(w.deployments()) == 1
    assert len(report["asked"]) == 1 and not report["said"][0].get("isError")


async def test_a_client_that_does_not_step_up_by_itself_learns_the_scope(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr")
        job = {"mode": "auto", "steps": [LIST], "onInsufficientScope": "throw", **key_of(w, coder)}
        report = await run_client(V2, w, **job)
    (refused,) = report["said"]
    assert refused["thrown"] == "InsufficientScopeError" and "pr:read:acme:api" in refused["message"]


async def test_a_client_that_signs_with_another_key_gets_no_token(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder, other = await w.ready("coder", "pr"), await w.ready("other", "pr")
        job = {"mode": "auto", "steps": [LIST], **key_of(w, other), "agent": coder.name}
        report = await run_client(V2, w, **job)
        assert await w.decisions() == []
    (refused,) = report["said"]
    assert refused["thrown"] and "invalid_client" in f"{refused['code']} {refused['message']}"
