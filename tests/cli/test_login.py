"""A person signs in at a gateway from their terminal, and their own programs act for them until that ends."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.abc
import httpx2
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client

from mcp_authz.cli.logout import untold
from tests.web.asking import agree
from tests.web.authenticator import Visit, visiting
from tests.world import ROOT, World, world

COMMAND = (sys.executable, "-m", "mcp_authz.cli.main")
SOON = 60.0
READ = {"owner": "acme", "repo": "api"}
LIST, OPEN = "acme__list_pull_requests", "acme__open_pull_request"
READS, WRITES = "pr:read:*:*", "pr:write:acme:api"


def environment(home: Path) -> dict[str, str]:
    """A home directory of their own, and no browser to open."""
    return {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}


async def run(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A command has ended."""
    with anyio.fail_after(SOON):
        done = await anyio.run_process([*COMMAND, *words], check=False, env=environment(home))
    return subprocess.CompletedProcess(words, done.returncode, done.stdout.decode(), done.stderr.decode())


async def login(home: Path, person: Visit, scopes: list[str], *words: str) -> subprocess.CompletedProcess[str]:
    """The command has ended, after the person agreed to these scopes in their browser."""
    command = [*COMMAND, "login", person.w.url, "--no-browser", *words]
    async with _process(command, home) as process:
        assert process.stderr is not None and process.stdout is not None
        said = ""
        with anyio.fail_after(SOON):
            while (found := re.search(r"^  (http\S+)$", said, re.MULTILINE)) is None:
                said += (await process.stderr.receive()).decode()
            asked = urlsplit(found[1])
            shown = await person.get(f"{asked.path}?{asked.query}")
            assert shown.status_code == 200, shown.text
            went = await agree(person, asked.query, scopes)
            assert went.status_code == 200, went.text
            page = (await httpx2.AsyncClient().get(went.json()["next"])).text
            assert "You can close this window" in page
            out = b"".join([part async for part in process.stdout]).decode()
            await process.wait()
    return subprocess.CompletedProcess(words, process.returncode or 0, out, said)


@asynccontextmanager
async def _process(command: list[str], home: Path) -> AsyncIterator[anyio.abc.Process]:
    async with await anyio.open_process(command, env=environment(home)) as process:
        try:
            yield process
        finally:
            if process.returncode is None:
                process.kill()


@asynccontextmanager
async def connected(home: Path, url: str) -> AsyncIterator[Client]:
    """A stock client that starts `connect` with nothing but the URL."""
    server = StdioServerParameters(
        command=COMMAND[0], args=[*COMMAND[1:], "connect", url], env=environment(home), cwd=home
    )
    with (home / "stderr.log").open("a") as told:
        async with Client(stdio_client(server, errlog=told)) as client:
            yield client


def kept(home: Path) -> list[Path]:
    """Every file that holds a login."""
    return sorted((home / ".local" / "share" / "mcp-authz" / "logins").glob("*.json"))


async def test_a_person_signs_in_and_any_stdio_client_works_as_their_own_agent(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    async with world(tmp_path) as w:
        await w.person("alice")
        async with visiting(w, "alice") as alice:
            told = await login(home, alice, [READS], "--json")
            assert told.returncode == 0, told.stderr
            said = json.loads(told.stdout)
            assert set(said) == {"url", "person", "agent", "session", "until", "scopes"}  # as docs/commands.md has it
            assert (said["person"], said["agent"]) == ("alice", "cli@alice")
            assert READS in said["scopes"] and said["until"] and said["session"].startswith("s_")
            (file,) = kept(home)
            assert file.stat().st_mode & 0o777 == 0o600 and file.parent.stat().st_mode & 0o777 == 0o700
            shown = await run(home, "login", w.url, "--show")
            assert shown.returncode == 0 and "cli@alice" in shown.stdout and "next: mcp-authz connect" in shown.stdout
            secrets = _secrets(json.loads(file.read_text()))
            assert not any(one in shown.stdout + told.stdout + told.stderr for one in secrets)
            async with connected(home, w.url) as client:
                assert not (await client.call_tool(LIST, READ)).is_error
                await _steps_up(home, alice, client)
                await _ends(home, w, client)


async def _steps_up(home: Path, alice: Visit, client: Client) -> None:
    """What needs more names the command; after that it works, and nothing was restarted."""
    more = {**READ, "title": "t", "branch": "b"}
    refused = await client.call_tool(OPEN, more)
    text = _text(refused)
    assert refused.is_error and "run `mcp-authz login " in text and "--scope" in text, text
    assert f"--scope {WRITES}`" in text  # only what is missing
    told = await login(home, alice, [READS, WRITES], "--scope", WRITES)
    assert told.returncode == 0, told.stderr
    assert "run `mcp-authz login" not in _text(await client.call_tool(OPEN, more))
    assert not (await client.call_tool(LIST, READ)).is_error


async def _ends(home: Path, w: World, client: Client) -> None:
    """After the logout nothing works, here or there, and each says what to do."""
    out = await run(home, "logout", w.url)
    assert (out.returncode, out.stderr) == (0, ""), out
    assert "signed out" in out.stdout and not kept(home)
    refused = await client.call_tool(LIST, READ)
    assert refused.is_error and f"run `mcp-authz login {w.url}`" in _text(refused)
    again = await run(home, "logout", w.url)
    assert again.returncode == 1 and "nobody is signed in" in again.stderr
    assert all(grant.status == "revoked" for grant in await w.store.grants())


def _secrets(said: Mapping[str, Any]) -> list[str]:
    return [said["access"], said["refresh"], said["key"]["pem"]]


def _text(result: Any) -> str:
    return "\n".join(part.text for part in result.content if part.type == "text")


def test_what_a_gateway_calls_an_agent_does_nothing_at_a_terminal_or_when_it_is_pasted() -> None:
    told = untold("x; rm -rf ~ #\x1b[2J")
    assert told.endswith("revoke agent 'x; rm -rf ~ #\\u{001b}[2J' --reason TEXT")
    assert untold("cursor@alice").endswith("revoke agent cursor@alice --reason TEXT")


async def test_commands_that_lack_a_login_or_an_agent_say_what_to_do(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    url = "http://127.0.0.1:9"
    for words, why in (
        (("connect",), "mcp-authz login URL"),
        (("connect", url, "--for", "alice"), "--agent NAME"),
        (("login", url, "--show"), f"`mcp-authz login {url}` signs you in"),
        (("login", "http://authz.example.com"), "plain http is for localhost only"),
        (("login", url), f"no gateway answers at {url}; look whether its URL is the right one and it runs"),
    ):
        done = await run(home, *words)
        assert done.returncode == 1 and why in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert not kept(home)
