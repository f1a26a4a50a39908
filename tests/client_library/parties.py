"""Agents of a world as the library sees them, and stock clients that have nothing of ours but the auth."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from mcp_authz.client import AgentIdentity
from tests.world import MODERN, Actor, World, incident_server

READ = {"owner": "acme", "repo": "api"}
LIST, OPEN, SECRET = "acme__list_pull_requests", "acme__open_pull_request", "acme__read_secret"


def identity(actor: Actor) -> AgentIdentity:
    """The library's view of an agent of the world."""
    return AgentIdentity(name=actor.name, key=actor.key)


@asynccontextmanager
async def stock_client(w: World, auth: httpx2.Auth, mode: str = MODERN) -> AsyncIterator[Client]:
    """The SDK's client over an httpx2 client with this auth."""
    async with (
        httpx2.AsyncClient(auth=auth, timeout=30) as http,
        Client(
            streamable_http_client(w.url, http_client=http), mode="auto" if mode == MODERN else mode, cache=None
        ) as client,
    ):
        yield client


def demanding(directory: Path, **proofs: str) -> dict[str, Any]:
    """The incident's tool server, with tools that demand a proof: `read_secret="signed"`."""
    server = incident_server(directory)
    for tool, proof in proofs.items():
        server["tools"][tool]["proof"] = proof
    return {"acme": server}


async def sign_ins(w: World) -> int:
    """How often somebody got a token."""
    return len([one for one in await w.records("sign-in") if one.event.fields["decision"] == "permit"])
