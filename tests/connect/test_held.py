"""A held call through `connect`: a stock client on stdio waits for the verdict, or opens the page, in both eras."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client

from tests.connect.desktop import COMMAND
from tests.road.places import BOTH
from tests.road.test_url_elicitation import Browser
from tests.road.waiting import DEPLOY, SOON, TOOL, nobody_waits, pending, waiting
from tests.world import MODERN, ROOT, Actor, World, called, world


@asynccontextmanager
async def client(w: World, coder: Actor, mode: str, **options: Any) -> AsyncIterator[Client]:
    """A stock SDK client that starts `connect` for a gateway elsewhere."""
    key = w.directory / f"{coder.name}.pem"
    key.write_text(coder.key.to_pem())
    key.chmod(0o600)
    env = {"HOME": str(w.directory / "home"), "PYTHONPATH": str(ROOT), "PATH": os.environ["PATH"]}
    command, *words = [*COMMAND, "connect", w.url, "--agent", coder.name, "--key", str(key)]
    server = StdioServerParameters(command=command, args=words, env=env, cwd=w.directory)
    with (w.directory / "stderr.log").open("a") as told:
        async with Client(
            stdio_client(server, errlog=told), mode="auto" if mode == MODERN else mode, **options
        ) as started:
            yield started


@BOTH
async def test_a_client_on_stdio_waits_goes_on_with_the_verdict_and_may_give_up(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path, waiting={"seconds": 60}) as w:
        coder = await w.ready("coder", "deploy pr:read")
        async with client(w, coder, mode) as host:
            async with waiting(host) as call:
                listed = await called(host, "acme__list_pull_requests", {"owner": "acme", "repo": "api"})
                assert not listed.is_error and call.answer is None
                await w.answer((await pending(w)).id, by="alice")
                assert not (await call.result()).is_error
            async with waiting(host, TOOL, {**DEPLOY, "version": "2"}):
                pass
            await nobody_waits(w)  # the client has cancelled it, and that reached the gateway
        assert len(w.deployments()) == 1


@BOTH
async def test_a_client_on_stdio_opens_the_page_of_its_call(tmp_path: Path, mode: str) -> None:
    async def on_the_page() -> None:
        await browser.opened.wait()
        await w.answer((await pending(w)).id, by="alice")

    browser = Browser()
    async with world(tmp_path, waiting={"seconds": 60}) as w:
        coder = await w.ready("coder", "deploy")
        async with client(w, coder, mode, elicitation_callback=browser) as host, anyio.create_task_group() as group:
            group.start_soon(on_the_page)
            with anyio.fail_after(SOON):
                assert not (await called(host, TOOL, DEPLOY)).is_error
        (held,) = await w.store.holds()
        assert [asked.url for asked in browser.asked] == [f"{w.config.public_url}/holds/{held.id}/asked"]
        assert len(w.deployments()) == 1
