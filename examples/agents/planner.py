"""A planner with three workers: each has a key of its own, in memory, and may touch one repository and no other.

    python examples/agents/planner.py URL --agent planner --key planner.pem

The planner asks the gateway once for its own signed chain. From then on it delegates by itself: each worker gets a link
that the planner signed, for ten minutes, for reading, for its repository. The third one is sent to look where it may
not, and is refused.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from mcp_authz.client import AgentIdentity

TOOL = "acme__list_pull_requests"


@dataclass(frozen=True)
class Errand:
    """What one worker may do, and what it does."""

    name: str
    may_read: str
    reads: str


ERRANDS = (Errand("worker-1", "api", "api"), Errand("worker-2", "web", "web"), Errand("worker-3", "web", "api"))


@asynccontextmanager
async def client(url: str, auth: httpx2.Auth) -> AsyncIterator[Client]:
    """The SDK's own client, as whoever `auth` says."""
    async with (
        httpx2.AsyncClient(auth=auth) as http,
        Client(streamable_http_client(url, http_client=http)) as connected,
    ):
        yield connected


async def schema_of(url: str, planner: AgentIdentity, name: str) -> dict[str, Any]:
    """The tool's input schema: with it, arguments that a link does not name stay free."""
    async with client(url, planner.auth(url)) as connected:
        listed = await connected.list_tools()
    return next(tool.input_schema for tool in listed.tools if tool.name == name)


async def work(url: str, planner: AgentIdentity, chain: str, tools: dict[str, Any], errand: Errand) -> str:
    """What a worker reports."""
    worker, its_chain = planner.child(
        errand.name, chain, tools=tools, where={"owner": "acme", "repo": errand.may_read}, minutes=10
    )
    async with client(url, worker.auth(url, chain=its_chain)) as connected:
        result = await connected.call_tool(TOOL, {"owner": "acme", "repo": errand.reads})
    said = result.content[0].text if result.content and result.content[0].type == "text" else "nothing"
    return f"{worker.name} asked for {errand.reads}: {' '.join(said.split())}"


async def main() -> None:
    """Send the three workers out at once and print what they report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="the gateway, as in http://localhost:8642/mcp")
    parser.add_argument("--agent", required=True)
    parser.add_argument("--key", required=True)
    asked = parser.parse_args()
    planner = AgentIdentity.load(asked.key, name=asked.agent)
    tools = {TOOL: await schema_of(asked.url, planner, TOOL)}
    chain = await planner.chain(asked.url)
    for report in await asyncio.gather(*(work(asked.url, planner, chain, tools, errand) for errand in ERRANDS)):
        print(report)


if __name__ == "__main__":
    asyncio.run(main())
