"""The command line gives a running gateway other keys: it follows by itself, and clients do not notice."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import anyio
import httpx2

from mcp_authz import limits
from mcp_authz.installation import open_installation
from mcp_authz.key_rotation import KeyRotation
from mcp_authz.rules import jose
from mcp_authz.rules.context_token import JWKS_PATH
from mcp_authz.signing_key import KeyUse
from tests.world import OPERATOR, ROOT, World, world

PULLS = {"owner": "acme", "repo": "api"}


async def rotate(w: World, use: KeyUse) -> str:
    """Another opening of the same store, as a process of its own has it, rotates a key."""
    async with open_installation(w.config, clock=w.clock) as here:
        return (await KeyRotation(here.store, here.clock).rotate(use, by=OPERATOR)).kid


async def command(w: World, *words: str) -> Any:
    """What `mcp-authz keys` prints, run by a process of its own on the same store."""
    path = anyio.Path(w.directory / "gateway.toml")
    await path.write_text(f'data_dir = "{w.directory / "data"}"\n')
    line = [sys.executable, "-m", "mcp_authz.cli.main", "--config", str(path), "keys", *words, "--json"]
    done = await anyio.run_process(line, cwd=ROOT, env={**os.environ, "HOME": str(w.directory)})
    return json.loads(done.stdout)


async def published(w: World, path: str = "/jwks.json") -> set[str]:
    async with httpx2.AsyncClient() as http:
        answer = await http.get(f"{w.config.public_url}{path}")
    return {key["kid"] for key in answer.json()["keys"]}


async def shows(w: World, expected: set[str], path: str = "/jwks.json") -> None:
    """The running gateway publishes these keys: within a second, and on a busy machine a little later."""
    with anyio.fail_after(10):
        while await published(w, path) != expected:  # noqa: ASYNC110 - another process writes it
            await anyio.sleep(0.02)


async def test_a_running_gateway_follows_a_rotation_and_its_clients_work_on(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr:read")
        (old,) = await published(w)
        async with w.client(coder) as client:
            assert not (await client.call_tool("acme__list_pull_requests", PULLS)).is_error
            before = await w.token(coder)
            new = await rotate(w, "issuer")
            await shows(w, {old, new})
            assert jose.read(await w.token(coder)).kid == old
            w.clock.advance(limits.KEY_PUBLISHED)
            token = await w.token(coder)
            assert jose.read(token).kid == new
            assert not (await client.call_tool("acme__list_pull_requests", PULLS)).is_error
        assert (await w.raw_call(token, "acme__list_pull_requests", PULLS)).status_code == 200
        w.clock.advance(limits.TOKEN_KEY_OVERLAP)
        assert (await w.raw_call(before, "acme__list_pull_requests", PULLS)).status_code == 401


async def test_a_running_gateway_believes_a_key_that_was_replaced_at_once_no_second_longer(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "pr:read")
        before = await w.token(coder)
        new = (await command(w, "rotate", "--now", "--reason", "leaked"))["key"]
        await shows(w, {new})
        assert (await w.raw_call(before, "acme__list_pull_requests", PULLS)).status_code == 401
        assert jose.read(await w.token(coder)).kid == new
        assert not (await w.call(coder, "acme__list_pull_requests", **PULLS)).is_error
        (old,) = await published(w, JWKS_PATH)
        second = await rotate(w, "context")
        await shows(w, {old, second}, JWKS_PATH)
        w.clock.advance(limits.KEY_PUBLISHED)
        assert w.running.parts.contexts.keys.signing.public.thumbprint == second
        w.clock.advance(limits.CONTEXT_KEY_OVERLAP)
        await shows(w, {second}, JWKS_PATH)
