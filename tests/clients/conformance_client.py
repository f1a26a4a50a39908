"""A client for the public conformance suite: a few plain requests by httpx2, signed in by `mcp_authz.client`.

The suite starts it with the MCP server's URL as its last word and says in the environment what is tested.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import httpx2

from mcp_authz.client import sign_in
from mcp_authz.client.registering import Client
from mcp_authz.client.ways_in import Provider
from mcp_authz.rules.es256 import P256PrivateKey

DOCUMENT = "https://conformance-test.local/client-metadata.json"
ME = {"name": "mcp-authz", "version": "1"}


@dataclass(frozen=True)
class Case:
    """What the suite says in the environment."""

    scenario: str
    version: str
    context: dict[str, Any]


def case() -> Case:
    """What is tested; read once the program runs, not when it is loaded."""
    told = os.environ
    return Case(
        scenario=told["MCP_CONFORMANCE_SCENARIO"],
        version=told.get("MCP_CONFORMANCE_PROTOCOL_VERSION", "2025-11-25"),
        context=json.loads(told.get("MCP_CONFORMANCE_CONTEXT", "{}")),
    )


class Obliging:
    """A person who agrees to everything at once: the authorization server's redirect is the answer."""

    uri = "http://127.0.0.1:8765/callback"

    @asynccontextmanager
    async def waiting(self) -> AsyncIterator[Obliging]:
        """An answer is waited for while the body runs."""
        yield self

    async def answer(self, url: str, _: str) -> str:
        """Return the URL that the server sends us back to."""
        async with httpx2.AsyncClient() as http:
            return str((await http.get(url)).headers["location"])


def auth(it: Case, url: str) -> httpx2.Auth:
    """What this scenario signs in with."""
    context = it.context
    client_id, secret = context.get("client_id", ""), context.get("client_secret")
    client = Client(id=client_id, secret=secret, issuer=context.get("issuer"))

    async def given(name: str) -> str:
        return str(context[name])

    match it.scenario:
        case "auth/client-credentials-jwt":
            key = P256PrivateKey.from_pem(context["private_key_pem"])
            return sign_in.ProgramAuth(url, Client(id=client_id, key=key))
        case "auth/client-credentials-basic":
            return sign_in.ProgramAuth(url, client)
        case "auth/wif-jwt-bearer":
            return sign_in.WorkloadAuth(url, client, lambda _: given("valid_jwt"))
        case "auth/enterprise-managed-authorization":
            there = Client(id=context["idp_client_id"], issuer=context["idp_issuer"])
            provider = Provider(token_endpoint=context["idp_token_endpoint"], client=there)
            return sign_in.EmployerAuth(url, client, provider=provider, id_token=lambda: given("idp_id_token"))
    return sign_in.PersonAuth(
        url, redirect=Obliging(), client=client if client_id else None, metadata_url=DOCUMENT, name="conformance"
    )


def asked(version: str, number: int, method: str, **params: Any) -> dict[str, Any]:
    """A request of the revision that the scenario is of."""
    if version >= "2026-07-28":
        said = {"protocolVersion": version, "clientInfo": ME, "clientCapabilities": {}}
        params["_meta"] = {f"io.modelcontextprotocol/{name}": value for name, value in said.items()}
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


async def run(it: Case, url: str) -> None:
    """The server was asked for its tools, and to run one."""
    version = it.version
    headers = {"accept": "application/json, text/event-stream", "mcp-protocol-version": version}
    call = {"name": "test-tool", "arguments": {}}
    steps: list[tuple[str, dict[str, Any]]] = [("tools/list", {}), ("tools/call", call), ("tools/list", {})]
    async with httpx2.AsyncClient(auth=auth(it, url), headers=headers, timeout=20) as http:
        if version < "2026-07-28":
            hello = {"protocolVersion": version, "capabilities": {}, "clientInfo": ME}
            (await http.post(url, json=asked(version, 0, "initialize", **hello))).raise_for_status()
            done = {"jsonrpc": "2.0", "method": "notifications/initialized"}
            (await http.post(url, json=done)).raise_for_status()
        for number, (method, params) in enumerate(steps, 1):
            modern = {"mcp-method": method, **({"mcp-name": "test-tool"} if "name" in params else {})}
            (await http.post(url, json=asked(version, number, method, **params), headers=modern)).raise_for_status()


def main() -> None:
    it = case()
    if it.scenario.startswith("auth/"):  # the suite has others, which are of other parts
        anyio.run(run, it, sys.argv[-1])


if __name__ == "__main__":
    main()
