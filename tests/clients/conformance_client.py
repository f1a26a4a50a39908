"""A client for the public conformance suite: a few plain requests by httpx2, signed in by `mcp_authz.client`.

The suite starts it with the MCP server's URL as its last word and says in the environment what is tested.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import httpx2

from mcp_authz.client import sign_in
from mcp_authz.client.registering import Client
from mcp_authz.client.ways_in import Provider
from mcp_authz.rules.es256 import P256PrivateKey

DOCUMENT = "https://conformance-test.local/client-metadata.json"
VERSION = os.environ.get("MCP_CONFORMANCE_PROTOCOL_VERSION", "2025-11-25")
SCENARIO = os.environ["MCP_CONFORMANCE_SCENARIO"]
CONTEXT: dict[str, Any] = json.loads(os.environ.get("MCP_CONFORMANCE_CONTEXT", "{}"))
ME = {"name": "mcp-authz", "version": "1"}


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


def auth(url: str) -> httpx2.Auth:
    """What this scenario signs in with."""
    client_id, secret = CONTEXT.get("client_id", ""), CONTEXT.get("client_secret")
    client = Client(id=client_id, secret=secret, issuer=CONTEXT.get("issuer"))

    async def given(name: str) -> str:
        return str(CONTEXT[name])

    match SCENARIO:
        case "auth/client-credentials-jwt":
            key = P256PrivateKey.from_pem(CONTEXT["private_key_pem"])
            return sign_in.ProgramAuth(url, Client(id=client_id, key=key))
        case "auth/client-credentials-basic":
            return sign_in.ProgramAuth(url, client)
        case "auth/wif-jwt-bearer":
            return sign_in.WorkloadAuth(url, client, lambda _: given("valid_jwt"))
        case "auth/enterprise-managed-authorization":
            there = Client(id=CONTEXT["idp_client_id"], issuer=CONTEXT["idp_issuer"])
            provider = Provider(token_endpoint=CONTEXT["idp_token_endpoint"], client=there)
            return sign_in.EmployerAuth(url, client, provider=provider, id_token=lambda: given("idp_id_token"))
    return sign_in.PersonAuth(
        url, redirect=Obliging(), client=client if client_id else None, metadata_url=DOCUMENT, name="conformance"
    )


def asked(number: int, method: str, **params: Any) -> dict[str, Any]:
    """A request of the revision that the scenario is of."""
    if VERSION >= "2026-07-28":
        said = {"protocolVersion": VERSION, "clientInfo": ME, "clientCapabilities": {}}
        params["_meta"] = {f"io.modelcontextprotocol/{name}": value for name, value in said.items()}
    return {"jsonrpc": "2.0", "id": number, "method": method, "params": params}


async def run(url: str) -> None:
    """The server was asked for its tools, and to run one."""
    headers = {"accept": "application/json, text/event-stream", "mcp-protocol-version": VERSION}
    call = {"name": "test-tool", "arguments": {}}
    steps: list[tuple[str, dict[str, Any]]] = [("tools/list", {}), ("tools/call", call), ("tools/list", {})]
    async with httpx2.AsyncClient(auth=auth(url), headers=headers, timeout=20) as http:
        if VERSION < "2026-07-28":
            hello = {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": ME}
            (await http.post(url, json=asked(0, "initialize", **hello))).raise_for_status()
            done = {"jsonrpc": "2.0", "method": "notifications/initialized"}
            (await http.post(url, json=done)).raise_for_status()
        for number, (method, params) in enumerate(steps, 1):
            modern = {"mcp-method": method, **({"mcp-name": "test-tool"} if "name" in params else {})}
            (await http.post(url, json=asked(number, method, **params), headers=modern)).raise_for_status()


if __name__ == "__main__" and SCENARIO.startswith("auth/"):  # the suite has others, which are of other parts
    anyio.run(run, sys.argv[-1])
