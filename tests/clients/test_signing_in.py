"""Stock clients that a person signs in to: from a 401 to a tool call, in a real browser, step-up included."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest
from mcp import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientMetadata

from tests.clients.node import HERE, PACKAGES, SOON, node, package
from tests.clients.signing_in import Receiver, agree, receiver
from tests.web.browser import Person, browsers, chromium, signed_in
from tests.world import MODERN, Memory, World, called, world

PULL = {"owner": "acme", "repo": "api"}
LIST, OPEN = "acme__list_pull_requests", "acme__open_pull_request"
NEW = {**PULL, "title": "Say what changed", "branch": "fix/41"}
SIGNED_UP: dict[str, Any] = {"clients": {"dynamic_registration": True}}


@pytest.fixture(autouse=True)
def _has_a_browser() -> None:
    chromium()


@asynccontextmanager
async def sdk_client(
    w: World, alice: Person, here: Receiver, shown: list[str]
) -> AsyncIterator[tuple[Client, OAuthClientProvider]]:
    """The Python SDK's own client, which has no token and registers itself; what the person read is in `shown`."""

    async def opened(url: str) -> None:
        shown.append(await agree(alice, url))

    async def came() -> AuthorizationCodeResult:
        answer = await here.answer()
        return AuthorizationCodeResult(code=answer["code"], state=answer["state"], iss=answer["iss"])

    metadata = OAuthClientMetadata(client_name="Notebook", redirect_uris=[here.url], token_endpoint_auth_method="none")
    auth = OAuthClientProvider(w.url, metadata, Memory(), redirect_handler=opened, callback_handler=came)
    async with (
        httpx2.AsyncClient(auth=auth, timeout=60) as http,
        Client(streamable_http_client(w.url, http_client=http), mode="auto") as client,
    ):
        yield client, auth


async def test_the_python_sdk_comes_from_a_401_to_a_call_and_back_for_more(tmp_path: Path) -> None:
    async with world(tmp_path, **SIGNED_UP) as w, browsers() as browser, receiver() as here:
        await w.person("alice")
        alice, shown = await signed_in(browser, w, "alice"), list[str]()
        async with sdk_client(w, alice, here, shown) as (client, _):
            listed = [tool.name for tool in (await client.list_tools()).tools]
            read = await called(client, LIST, PULL)
            assert len(shown) == 1
            wrote = await called(client, OPEN, NEW)
        decided = await w.decisions()
        grants = await w.store.grants()
    assert {LIST, OPEN} <= set(listed) and not read.is_error and not wrote.is_error, (read.text, wrote.text)
    first, second = shown
    assert (
        "Notebook" in first and "on this computer" in first and OPEN.split("__")[1] not in second.split("already")[1:]
    )
    assert OPEN.split("__")[1] in second
    assert [(fields["actor"], fields["decision"]) for fields in decided] == [
        ("agent:notebook@alice", "permit"),
        ("agent:notebook@alice", "deny"),
        ("agent:notebook@alice", "permit"),
    ]
    assert all(grant.subject == "alice" and grant.client is not None for grant in grants) and len(grants) == 2


async def test_the_python_sdk_renews_by_itself_until_the_person_stops_it(tmp_path: Path) -> None:
    async with world(tmp_path, **SIGNED_UP) as w, browsers() as browser, receiver() as here:
        await w.person("alice")
        alice, shown = await signed_in(browser, w, "alice"), list[str]()
        async with sdk_client(w, alice, here, shown) as (client, auth):
            assert not (await called(client, LIST, PULL)).is_error
            w.clock.advance(timedelta(minutes=11))
            auth.context.token_expiry_time = 1.0  # its clock is not the one that was moved on
            assert not (await called(client, LIST, PULL)).is_error
            assert len(shown) == 1 and len(await w.store.sessions()) == 1
            (grant,) = await w.store.grants()
            await alice.page.goto(f"{w.config.public_url}/access")
            await alice.page.get_by_role("button", name="Stop").click()
            # The page comes again by itself: to go elsewhere before it has would be two journeys at once.
            await alice.page.get_by_role("heading", name="Nobody may act for you").wait_for()
            assert (await w.store.grant(grant.id)).status == "revoked"
            assert not (await called(client, LIST, PULL)).is_error  # the person agreed once more
        assert len(shown) == 2 and [each.status for each in await w.store.grants()] == ["revoked", "active"]


FRESH = '@id("fresh") @step_up("300") permit (principal, action == Action::"pr.list", resource);'


async def test_a_policy_that_wants_a_fresh_sign_in_brings_the_person_back_to_the_page(tmp_path: Path) -> None:
    (tmp_path / "fresh.cedar").write_text(FRESH)
    policy = ["builtin:scopes_and_hazard", str(tmp_path / "fresh.cedar")]
    async with world(tmp_path, policy=policy, **SIGNED_UP) as w, browsers() as browser, receiver() as here:
        await w.person("alice")
        alice, shown = await signed_in(browser, w, "alice"), list[str]()
        async with sdk_client(w, alice, here, shown) as (client, _):
            assert not (await called(client, LIST, PULL)).is_error
            w.clock.advance(timedelta(minutes=6))
            assert not (await called(client, LIST, PULL)).is_error
        grants = await w.store.grants()
    first, second = shown
    assert "tried to use" not in first and "acme__list_pull_requests" in second
    assert [grant.authentication.at for grant in grants] == sorted({grant.authentication.at for grant in grants})
    assert len(grants) == 2


@pytest.mark.parametrize("dpop", [None, "ES256"])
async def test_the_typescript_sdk_comes_from_a_401_to_a_call_and_back_for_more(
    tmp_path: Path, dpop: str | None
) -> None:
    node()
    package("@modelcontextprotocol/client")
    job = {
        "packages": f"{PACKAGES}/",
        "mode": {"pin": MODERN},
        "name": "Scribe",
        "dpop": dpop,
        "steps": [["list"], ["call", LIST, PULL], ["call", OPEN, NEW]],
    }
    async with world(tmp_path, **SIGNED_UP) as w, browsers() as browser:
        await w.person("alice")
        alice = await signed_in(browser, w, "alice")
        shown, report = await _run(w, alice, {**job, "url": w.url})
        decided = [fields["proof"] for fields in await w.decisions()]
    listed, read, wrote = report["said"]
    assert {LIST, OPEN} <= set(listed), report
    assert not read.get("isError") and not wrote.get("isError"), report
    assert len(shown) == 2 and "Scribe" in shown[0] and report["refreshes"]
    assert set(decided) == {"dpop" if dpop else "bearer"}


async def _run(w: World, alice: Person, job: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """What the person read, and what the client reports."""
    shown: list[str] = []
    surroundings = {"HOME": str(w.directory), "PATH": "/usr/bin:/bin"}
    script = str(HERE / "typescript_sign_in.mjs")
    with anyio.fail_after(2 * SOON):
        async with await anyio.open_process(
            [node(), script], env=surroundings, cwd=w.directory, stderr=None
        ) as process:
            assert process.stdin is not None and process.stdout is not None
            await process.stdin.send(json.dumps(job).encode() + b"\n")
            rest = b""
            async for piece in process.stdout:
                *lines, rest = (rest + piece).split(b"\n")
                for line in map(json.loads, lines):
                    if "open" not in line:
                        return shown, line
                    shown.append(await agree(alice, line["open"]))
    raise AssertionError(f"the client said nothing: {rest!r}")
