"""Stock clients that a person signs in to, ticks the row on the page, and answers held calls in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata

from tests.approving import DECIDE_ONE, DEPLOY, DEPLOYS, LIST, SCOPE, Approver, said, verdicts, waits
from tests.clients.node import node, package, run_client
from tests.clients.signing_in import receiver
from tests.web.browser import browsers, chromium, signed_in
from tests.world import LEGACY, MODERN, Memory, world

YES = {"answer": "approve"}


async def test_the_python_sdk_signs_in_is_given_the_row_and_decides_in_both_eras(tmp_path: Path) -> None:
    chromium()
    signed_up: dict[str, Any] = {"clients": {"dynamic_registration": True}}
    async with world(tmp_path, **signed_up) as w, browsers() as browser, receiver() as here:
        coder, hold = await waits(w)
        alice, shown = await signed_in(browser, w, "alice"), list[str]()

        async def opened(url: str) -> None:
            await alice.page.goto(url)
            row = alice.page.get_by_role("checkbox", name="Answer held calls for you")
            await row.wait_for()
            assert not await row.is_checked()
            await row.check()
            shown.append(await alice.page.locator("main").inner_text())
            await alice.page.get_by_role("button", name="Agree").click()
            await alice.page.wait_for_url("http://127.0.0.1:*/**")

        async def came() -> AuthorizationCodeResult:
            answer = await here.answer()
            return AuthorizationCodeResult(code=answer["code"], state=answer["state"], iss=answer["iss"])

        metadata = OAuthClientMetadata(client_name="Desk", redirect_uris=[here.url], token_endpoint_auth_method="none")
        auth = OAuthClientProvider(w.url, metadata, Memory(), redirect_handler=opened, callback_handler=came)
        async with httpx2.AsyncClient(auth=auth, timeout=60) as http:
            for mode, answer in (("auto", {"answer": "send back", "reason": "use 2.0.0"}), (LEGACY, YES)):
                transport = streamable_http_client(w.url, http_client=http)
                async with Client(transport, mode=mode, elicitation_callback=Approver(answer)) as client:
                    assert hold in await said(client, LIST)
                    await said(client, DECIDE_ONE, hold=hold)
                if mode == "auto":
                    assert "use 2.0.0" in (await w.call(coder, DEPLOYS, **DEPLOY)).text
                    changed = {**DEPLOY, "version": "2.0.0"}
                    hold = (await w.call(coder, DEPLOYS, **changed)).hold
        done = await w.call(coder, DEPLOYS, **changed)
        (grant,) = [one for one in await w.store.grants() if one.client is not None]
        answered = [(one["person"], one["verdict"], one["assurance"]) for one in await verdicts(w)]
    assert len(shown) == 1 and "It cannot answer calls of its own" in shown[0]
    assert SCOPE in grant.scope and not done.is_error and len(w.deployments()) == 1
    assert answered == [("user:alice", "send-back", "client-other"), ("user:alice", "approve", "client-other")]


@pytest.mark.parametrize("mode", [MODERN, LEGACY])
async def test_the_typescript_sdk_completes_the_id_and_answers_by_elicitation(tmp_path: Path, mode: str) -> None:
    node()
    package("@modelcontextprotocol/client")
    async with world(tmp_path) as w:
        coder, hold = await waits(w)
        desk = await w.client_agent("desk", "alice", scope=SCOPE)
        report = await run_client(
            "typescript_v2.mjs",
            w,
            mode={"pin": MODERN} if mode == MODERN else "legacy",
            token=desk.access_token,
            answer={"action": "accept", "content": YES},
            steps=[["prompts"], ["complete", DECIDE_ONE, "hold", hold[:6]], ["prompt", DECIDE_ONE, {"hold": hold}]],
        )
        assert not (await w.call(coder, DEPLOYS, **DEPLOY)).is_error
    prompts, completed, told = report["said"]
    assert prompts == [LIST, DECIDE_ONE] and completed == [hold], report
    assert "is approved. It runs once" in told["messages"][0]["content"]["text"]
    assert len(report["asked"]) == 1 and "coder asks to run acme__deploy (destructive)" in report["asked"][0]
