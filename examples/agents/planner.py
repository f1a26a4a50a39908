"""A planner with three workers: each has a key of its own, in memory, and may touch one repository and no other.

    python examples/agents/planner.py URL --agent planner --key planner.pem

The planner asks the gateway once for its own signed chain. From then on it delegates by itself: each worker gets a link
that the planner signed, for ten minutes, for reading, for its repository. The third one is sent to look where it may
not, and is refused.
"""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import dataclass

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


async def work(url: str, planner: AgentIdentity, chain: str, errand: Errand) -> str:
    """What a worker reports."""
    worker, its_chain = planner.child(
        errand.name, chain, tools=[TOOL], where={"owner": "acme", "repo": errand.may_read}, minutes=10
    )
    async with (
        httpx2.AsyncClient(auth=worker.auth(url, chain=its_chain)) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        result = await client.call_tool(TOOL, {"owner": "acme", "repo": errand.reads})
    said = result.content[0].text if result.content and result.content[0].type == "text" else "nothing"
    return f"{worker.name} asked for {errand.reads}: {said}"


async def main() -> None:
    """Send the three workers out at once and print what they report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="the gateway, as in http://localhost:8642/mcp")
    parser.add_argument("--agent", required=True)
    parser.add_argument("--key", required=True)
    asked = parser.parse_args()
    planner = AgentIdentity.load(asked.key, name=asked.agent)
    chain = await planner.chain(asked.url)
    for report in await asyncio.gather(*(work(asked.url, planner, chain, errand) for errand in ERRANDS)):
        print(report)


if __name__ == "__main__":
    asyncio.run(main())
