"""The public conformance suite's scenarios of authorization, with `mcp_authz.client` as the client: each is passed.

Those of 2025-03-26 are left out. That revision knows no protected resource metadata: nothing ties a token to the server
that it is sent to, and this client asks for none.
"""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import anyio
import pytest

from tests.clients.node import node, package
from tests.servers import loaded
from tests.world import ROOT

SUITE = "@modelcontextprotocol/conformance"
SOON = 120.0

OLDER = {
    "basic-cimd": "passed",
    "metadata-default": "passed",
    "metadata-var1": "passed",
    "metadata-var2": "passed",
    "metadata-var3": "passed",
    "pre-registration": "passed",
    "scope-from-scopes-supported": "passed",
    "scope-from-www-authenticate": "passed",
    "scope-omitted-when-undefined": "passed",
    "scope-retry-limit": "passed",
    "scope-step-up": "passed",
    "token-endpoint-auth-basic": "passed",
    "token-endpoint-auth-none": "passed",
    "token-endpoint-auth-post": "passed",
}
NEWER = {
    **OLDER,
    "authorization-server-migration": "passed",
    "iss-not-advertised": "passed",
    "iss-normalized": "passed",
    "iss-supported": "passed",
    "iss-supported-missing": "passed",
    "iss-unexpected": "passed",
    "iss-wrong-issuer": "passed",
    "metadata-issuer-mismatch": "passed",
    "offline-access-not-supported": "passed",
    "offline-access-scope": "passed",
    "resource-mismatch": "passed",
}
EXTENSIONS = {
    "client-credentials-basic": "passed",
    "client-credentials-jwt": "passed",
    "dpop": "passed",
    "dpop-nonce": "passed",
    "enterprise-managed-authorization": "passed",
    "wif-jwt-bearer": "passed",
}
RUNS = {
    "2025-11-25": (("--suite", "auth"), OLDER),
    "2026-07-28": (("--requirements", "2026-07-28"), {**NEWER, **EXTENSIONS}),
}


async def results(directory: Path, *words: str) -> dict[str, str]:
    """What each scenario of authorization came to in one run of the suite."""
    program, out = package(SUITE) / "dist" / "index.js", directory / "out"
    client = shlex.join(loaded.command("tests.clients.conformance_client"))
    command = [node(), str(program), "client", *words, "--command", client, "-o", str(out)]
    env = {"HOME": str(directory), "PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)}
    with anyio.fail_after(SOON):
        await anyio.run_process(command, check=False, env=env, cwd=directory)
    found = {}
    for path in sorted(out.glob("auth/*/checks.json")):
        scenario = re.sub(r"-\d{4}-\d\d-\d\dT.*$", "", path.parent.name)
        checks = json.loads(path.read_text())
        wrong = [one for one in checks if one["status"] in {"FAILURE", "WARNING"}]
        found[scenario] = "; ".join(str(one["description"]) for one in wrong) or ("passed" if checks else "did not run")
    return found


@pytest.mark.parametrize("revision", RUNS)
async def test_the_client_conforms_to_the_authorization_of_mcp(tmp_path: Path, revision: str) -> None:
    words, table = RUNS[revision]
    assert await results(tmp_path, *words) == table
