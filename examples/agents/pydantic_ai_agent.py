"""A pydantic-ai agent whose HTTP client proves every request and signs every call, with `mcp_authz.client`.

    python examples/agents/pydantic_ai_agent.py URL --agent coder --key coder.pem

The model is a script, so that it runs without a provider: put your own in its place.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Iterator
from typing import Any

import httpx2
from pydantic_ai import Agent
from pydantic_ai.mcp import MCPToolset
from pydantic_ai.messages import ModelMessage, ModelResponse, RetryPromptPart, TextPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from mcp_authz.client import AgentIdentity

REPOSITORY = {"owner": "acme", "repo": "api"}
SCRIPT: list[tuple[str, dict[str, Any]]] = [
    ("acme__list_pull_requests", REPOSITORY),
    ("acme__deploy", {**REPOSITORY, "environment": "staging", "version": "1.4.0"}),
]


def scripted() -> FunctionModel:
    """A model that calls the script's tools, one after the other."""
    calls: Iterator[tuple[str, dict[str, Any]]] = iter(SCRIPT)

    def say(_: list[ModelMessage], __: AgentInfo) -> ModelResponse:
        call = next(calls, None)
        return ModelResponse(parts=[TextPart("That is all.") if call is None else ToolCallPart(*call)])

    return FunctionModel(say)


async def main() -> None:
    """Run the agent once and print what its tools answered."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="the gateway, as in http://localhost:8642/mcp")
    parser.add_argument("--agent", required=True)
    parser.add_argument("--key", required=True)
    asked = parser.parse_args()
    coder = AgentIdentity.load(asked.key, name=asked.agent)
    async with httpx2.AsyncClient(auth=coder.auth(asked.url)) as http:
        agent = Agent(scripted(), toolsets=[MCPToolset(asked.url, http_client=http)])
        run = await agent.run("Ship it.")
    for part in (part for message in run.all_messages() for part in message.parts):
        match part:
            case ToolReturnPart(tool_name=name, content=content):
                print(f"{name} success: {content}")
            case RetryPromptPart(tool_name=name, content=content):  # what is held, or denied, the model may read
                print(f"{name} error: {content}")


if __name__ == "__main__":
    asyncio.run(main())
