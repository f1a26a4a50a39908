"""A LangChain agent behind the gateway: `mcp-authz connect` is its MCP server, holds its key and signs its calls.

    python examples/agents/langchain_agent.py URL --agent coder --key coder.pem

The model is a script, so that it runs without a provider: put your own in its place. langchain-mcp-adapters needs an
older MCP SDK than the gateway does, so it has an environment of its own (examples/requirements.txt), and `--connect`
names the `mcp-authz` command of the gateway's.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_mcp_adapters.client import MultiServerMCPClient

REPOSITORY = {"owner": "acme", "repo": "api"}
SCRIPT: list[tuple[str, dict[str, Any]]] = [
    ("acme__list_pull_requests", REPOSITORY),
    ("acme__deploy", {**REPOSITORY, "environment": "staging", "version": "1.4.0"}),
]


class ScriptedModel(GenericFakeChatModel):
    """Says what the script says, whatever it is told."""

    def bind_tools(self, tools: Sequence[Any], **_: Any) -> ScriptedModel:
        """The tools are those of the script."""
        return self


def scripted() -> ScriptedModel:
    """A model that calls the script's tools, one after the other."""
    calls = [
        AIMessage(content="", tool_calls=[{"name": name, "args": arguments, "id": f"call-{number}"}])
        for number, (name, arguments) in enumerate(SCRIPT)
    ]
    return ScriptedModel(messages=iter([*calls, AIMessage(content="That is all.")]))


async def main() -> None:
    """Run the agent once and print what its tools answered."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="the gateway, as in http://localhost:8642/mcp")
    parser.add_argument("--agent", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--connect", default="mcp-authz", help="the mcp-authz command")
    asked = parser.parse_args()
    client = MultiServerMCPClient(
        {
            "gateway": {
                "transport": "stdio",
                "command": asked.connect,
                "args": ["connect", asked.url, "--agent", asked.agent, "--key", asked.key],
            }
        }
    )
    async with client.session("gateway") as session:
        from langchain_mcp_adapters.tools import load_mcp_tools

        agent = create_agent(scripted(), await load_mcp_tools(session))
        said: list[BaseMessage] = (await agent.ainvoke({"messages": [("user", "Ship it.")]}))["messages"]
    for message in said:
        if isinstance(message, ToolMessage):
            print(f"{message.name} {message.status}: {message.text}")


if __name__ == "__main__":
    asyncio.run(main())
