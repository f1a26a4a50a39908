"""The TypeScript SDK's own DPoP against the gateway: unmodified, with and without nonces, in both eras."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.clients.node import key_of, node, package, run_client
from tests.clients.test_typescript import LIST, V2
from tests.world import MODERN, world

MODES: dict[str, Any] = {MODERN: {"pin": MODERN}, "2025-11-25": "legacy"}


@pytest.fixture(autouse=True)
def _is_installed() -> None:
    node()
    package("@modelcontextprotocol/client")


@pytest.mark.parametrize("version", MODES)
@pytest.mark.parametrize(("alg", "nonce"), [("ES256", True), ("EdDSA", True), ("ES256", False)])
async def test_it_signs_in_lists_and_calls_with_a_bound_token(
    tmp_path: Path, version: str, alg: str, nonce: bool
) -> None:
    async with world(tmp_path, dpop_nonce=nonce) as w:
        coder = await w.ready("coder", "pr:read")
        report = await run_client(V2, w, mode=MODES[version], steps=[["list"], LIST], dpop=alg, **key_of(w, coder))
        bound = {record.event.fields["confirmation"] for record in await w.records("sign-in")}
        decided = [(fields["decision"], fields["proof"]) for fields in await w.decisions()]
    assert report["version"] == version, report
    listed, called = report["said"]
    assert "acme__list_pull_requests" in listed and not called.get("isError")
    assert bound == {report["key"]}
    assert decided == [("deny", "dpop"), ("permit", "dpop")]  # it asks for a scope when a call needs it
    # A nonce costs one more request, at the first sign-in: every answer brings the next one, also to the gateway.
    assert [status for _, path, _, status in report["sent"] if path == "/token"] == [400] * nonce + [200, 200]
    with_token = [(scheme, status) for _, path, scheme, status in report["sent"] if path == "/mcp" and scheme]
    assert {scheme for scheme, _ in with_token} == {"DPoP"} and ("DPoP", 401) not in with_token


async def test_a_nonce_that_went_stale_costs_it_one_request_at_the_gateway(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr:read")
        job = {"mode": "auto", "steps": [LIST, ["forget"], LIST, LIST], "dpop": "ES256"}
        report = await run_client(V2, w, **job, **key_of(w, coder))
        decided = [fields["decision"] for fields in await w.decisions()]
    assert decided == ["deny", "permit", "permit", "permit"], report
    with_token = [status for _, path, scheme, status in report["sent"] if path == "/mcp" and scheme == "DPoP"]
    assert with_token.count(401) == 1
