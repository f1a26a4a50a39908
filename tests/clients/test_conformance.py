"""The public conformance suite, with authorization on: what fails is known, with its reason, and nothing else does."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from tests.clients.forwarder import forwarder
from tests.clients.node import PACKAGES, node, package
from tests.ports import free_port
from tests.world import ROOT, World, world

SUITE = "@modelcontextprotocol/conformance"
EXAMPLE = "examples/servers/everything-server/mcp_everything_server"
SOON = 300.0

SAMPLING = "tool servers may not ask for sampling"
ROOTS = "tool servers may not ask for roots"
SUBSCRIPTIONS = "subscriptions to single resources are not offered"
TOO_NEW = (
    "the server asks older clients only over a transport of their era, and the gateway reaches it over the newer one"
)
EARLY = "the status is sent once the call is decided, before its server can refuse it"
DECLARED = "tool servers are told what the gateway can carry, not what this client declared"

OLDER = {
    "tools-call-sampling": SAMPLING,
    "resources-subscribe": SUBSCRIPTIONS,
    "resources-unsubscribe": SUBSCRIPTIONS,
}
KNOWN = {
    ("2025-11-25", "older"): OLDER,
    ("2025-11-25", "both"): {
        **OLDER,
        "tools-call-elicitation": TOO_NEW,
        "elicitation-sep1034-defaults": TOO_NEW,
        "elicitation-sep1330-enums": TOO_NEW,
    },
    ("2026-07-28", "both"): {
        "server-stateless": EARLY,
        "input-required-result-basic-sampling": SAMPLING,
        "input-required-result-basic-list-roots": ROOTS,
        "input-required-result-multiple-input-requests": SAMPLING,
        "input-required-result-capability-check": DECLARED,
    },
}
OPTIONAL = "tasks-"  # an extension: no revision requires it
READ = {"hazard": "read", "scopes": ["use"]}
METHODS = ("resources/read", "prompts/get", "completion/complete")
PROMPTS = ("simple_prompt", "prompt_with_arguments", "prompt_with_embedded_resource", "prompt_with_image")
OTHERS = {*(f"test_{name}" for name in (*PROMPTS, "input_required_result_prompt")), "test_dynamic_tool"}


@pytest.fixture
def example(tmp_path: Path) -> str:
    """The folder of the SDK's example server, which is in the source distribution of `mcp` and nowhere else."""
    found = sorted((ROOT / ".run" / "source").glob("mcp-*.tar.gz"))
    if not found:
        pytest.skip("needs the source of mcp: pip download --no-deps --no-binary mcp mcp==2.3.0 -d .run/source")
    with tarfile.open(found[-1]) as archive:
        inside = [member for member in archive.getmembers() if f"/{EXAMPLE}/" in member.name]
        if hasattr(tarfile, "data_filter"):  # from Python 3.11.4 on
            archive.extraction_filter = staticmethod(tarfile.data_filter)
        archive.extractall(tmp_path, members=inside)  # noqa: S202 - the source of a package that is pinned
    return str(next(tmp_path.glob(f"mcp-*/{EXAMPLE}")).parent)


def suite(directory: Path, names: set[str]) -> Path:
    """The suite's program, in a copy that knows tools and prompts by the names that they have at the gateway."""
    copy = directory / "suite"
    shutil.copytree(package(SUITE), copy)
    (directory / "node_modules").symlink_to(PACKAGES)
    program = copy / "dist" / "index.js"
    pattern = "|".join(re.escape(name) for name in sorted(names))
    program.write_text(re.sub(rf"([`\"])({pattern})\1", r"\1e__\2\1", program.read_text()))
    return program


@asynccontextmanager
async def everything(folder: str, *words: str) -> AsyncIterator[str]:
    """The example server as a process; its URL."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/mcp"
    command = [sys.executable, str(Path(__file__).parent / "everything.py"), folder, str(port), *words]
    async with await anyio.open_process(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            async with httpx2.AsyncClient() as http:
                with anyio.fail_after(20):
                    while not await _answers(http, url):  # noqa: ASYNC110 - uvicorn has no event for this
                        await anyio.sleep(0.05)
            yield url
        finally:
            process.kill()


async def _answers(http: httpx2.AsyncClient, url: str) -> bool:
    with contextlib.suppress(httpx2.TransportError):
        await http.get(url)
        return True
    return False


async def failures(w: World, revision: str) -> dict[str, Any]:
    """The scenarios that fail, with what the suite says about them; those of extensions are left out."""
    reader = await w.ready("reader", "use")
    token = await w.token(reader)
    out, home = w.directory / "out", w.directory / "home"
    program = suite(w.directory, {tool.tool for tool in w.running.catalog.tools} - set(METHODS) | OTHERS)
    home.mkdir()
    async with forwarder(w.url, lambda: f"Authorization: Bearer {token}") as url:
        command = [node(), str(program), "server", "--url", url, "--requirements", revision, "-o", str(out)]
        with anyio.fail_after(SOON):
            await anyio.run_process(command, check=False, env={"HOME": str(home), "PATH": "/usr/bin:/bin"}, cwd=home)
    failed: dict[str, Any] = {}
    passed = 0
    for path in out.glob("*/checks.json"):
        scenario = re.sub(r"^server-(.*)-\d{4}-\d\d-\d\dT.*$", r"\1", path.parent.name)
        for check in json.loads(path.read_text()):
            passed += check["status"] == "SUCCESS"
            if check["status"] == "FAILURE" and not scenario.startswith(OPTIONAL):
                failed.setdefault(scenario, []).append(check.get("errorMessage"))
    assert passed > 60, "the suite hardly ran"
    return failed


@pytest.mark.parametrize(("revision", "server"), KNOWN)
async def test_the_gateway_conforms_but_for_what_it_refuses_on_purpose(
    tmp_path: Path, example: str, revision: str, server: str
) -> None:
    node()
    package(SUITE)
    async with everything(example, server) as url:
        tools = {"*": READ, **dict.fromkeys(METHODS, READ)}
        async with world(tmp_path, servers={"e": {"url": url, "tools": tools}}) as w:
            failed = await failures(w, revision)
    known: dict[str, str] = KNOWN[revision, server]
    assert failed.keys() == known.keys(), failed
