"""A stock MCP SDK client that logs in with an agent's key: nothing in it knows mcp-authz.

python -m examples.client                       what the agent can see, and one call of each kind
python -m examples.client TOOL '{"a": "json"}'  one call
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import httpx2
from mcp import Client
from mcp.client.auth.extensions.client_credentials import PrivateKeyJWTOAuthProvider, SignedJWTParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import OAuthClientInformationFull, OAuthToken
from mcp_types import ElicitRequestParams, ElicitResult

URL = "http://localhost:8642/mcp"
KEY = Path(__file__).parent.parent / ".run" / "coder.pem"
REPOSITORY = str(KEY.parent / "repository")


class Memory:
    """Where the client keeps its tokens; a real one would keep them longer."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.info: OAuthClientInformationFull | None = None

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self.info

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.info = client_info


def sign_in(agent: str, key: Path) -> PrivateKeyJWTOAuthProvider:
    """The SDK's own OAuth client: client_credentials with private_key_jwt (RFC 7523), Ed25519."""
    signing = SignedJWTParameters(issuer=agent, subject=agent, signing_key=key.read_text(), signing_algorithm="EdDSA")
    return PrivateKeyJWTOAuthProvider(
        server_url=URL,
        storage=Memory(),
        client_id=agent,
        assertion_provider=signing.create_assertion_provider(),
        issuer=URL.removesuffix("/mcp"),
    )


async def answer(context: Any, params: ElicitRequestParams) -> ElicitResult:
    """Show a question to the person at the terminal."""
    print(f"\n{params.message}\n")
    if not sys.stdin.isatty():
        return ElicitResult(action="cancel")
    said = await asyncio.to_thread(input, "run it? [y/N] ")
    return ElicitResult(action="accept", content={"approve": said.strip().lower() == "y"})


async def call(client: Client, tool: str, arguments: dict[str, Any]) -> None:
    """Make one call and print what came back."""
    result = await client.call_tool(tool, arguments)
    print(f"\n{tool} {json.dumps(arguments)}")
    for part in result.content:
        print(f"  {getattr(part, 'text', part)}".replace("\n", "\n  "))


async def main() -> None:
    """Log in, list, call."""
    if not KEY.exists():
        sys.exit(f"{KEY} does not exist; start the gateway first: make run")
    async with httpx2.AsyncClient(auth=sign_in("coder", KEY), timeout=60) as http:
        transport = streamable_http_client(URL, http_client=http)
        async with Client(transport, elicitation_callback=answer) as client:
            if len(sys.argv) > 1:
                await call(client, sys.argv[1], json.loads(sys.argv[2] if len(sys.argv) > 2 else "{}"))
                return
            tools = (await client.list_tools()).tools
            print("tools:", ", ".join(tool.name for tool in tools))
            await call(client, "time__get_current_time", {"timezone": "UTC"})
            await call(client, "git__git_status", {"repo_path": REPOSITORY})
            await call(client, "git__git_reset", {"repo_path": REPOSITORY})


if __name__ == "__main__":
    asyncio.run(main())
