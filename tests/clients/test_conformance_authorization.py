"""The conformance suite's authorization-server scenarios against the embedded server, answered in a real browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import anyio

from mcp_authz.authorization import RegisteredClient
from mcp_authz.principals import ClientId
from mcp_authz.store.ports import Event
from tests.clients.node import node, program
from tests.clients.signing_in import agree
from tests.ports import free_port
from tests.web.browser import Person, browsers, chromium, signed_in
from tests.world import World, world

SUITE = "@modelcontextprotocol/conformance"
SOON = 90.0  # seconds
SCENARIOS = {"authorization-server-metadata-endpoint", "authorization-code-grant"}
ASKED = re.compile(r"^(http\S+/authorize\?\S+)$", re.MULTILINE)


async def registered(w: World) -> ClientId:
    """A public client on loopback, as an operator registers one."""
    client = RegisteredClient(
        id=ClientId("conformance"),
        handle="conformance",
        name="Conformance",
        kind="registered",
        redirect_uris=("http://127.0.0.1/callback",),
        registered_at=w.clock(),
    )
    await w.store.add_client(client, Event(kind="administration", at=w.clock(), fields={}))
    return client.id


async def run(w: World, alice: Person, *options: str, found: Path) -> str:
    """Everything that the suite printed; the person agrees to what it asks them to open."""
    words = [node(), program("conformance", SUITE), "authorization", "-o", str(found), *options]
    said = ""
    async with await anyio.open_process(words, env={"HOME": str(w.directory), "PATH": "/usr/bin:/bin"}) as process:
        assert process.stdout is not None
        with anyio.fail_after(SOON):
            opened = 0
            async for piece in process.stdout:
                said += piece.decode()
                for url in ASKED.findall(said)[opened:]:
                    opened += 1
                    await agree(alice, url)
    return said


async def test_every_scenario_of_an_authorization_server_passes(tmp_path: Path) -> None:
    chromium()
    found = tmp_path / "found"
    async with world(tmp_path) as w, browsers() as browser:
        await w.person("alice")
        client = await registered(w)
        alice = await signed_in(browser, w, "alice")
        told = ["--url", w.config.public_url, "--client-id", client, "--resource", w.url, "-p", str(free_port())]
        said = await run(w, alice, *told, "--spec-version", "2026-07-28", found=found)
    checks: list[dict[str, Any]] = [one for file in found.rglob("checks.json") for one in json.loads(file.read_text())]
    ran = {scenario for scenario in SCENARIOS if any(scenario in file.name for file in found.iterdir())}
    assert ran == SCENARIOS and len(checks) > len(SCENARIOS), said
    assert {one["status"] for one in checks} == {"SUCCESS"}, checks
