"""An approver at an MCP client of their own: a stock client of either era, and raw requests as none would send them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp_types import ElicitResult

from mcp_authz.model import HoldId
from tests.world import MODERN, Actor, ClientActor, World, modern_call

LIST, DECIDE_ONE = "held-calls", "decide-held-call"
SCOPE: Final = "holds:decide"
DEPLOY: Final = {"owner": "acme", "repo": "api", "environment": "staging", "version": "1.4.0"}
DEPLOYS: Final = "acme__deploy"
SOON: Final = 20.0  # seconds; every visit of a client is bounded by it
FORM: Final = {"elicitation": {"form": {}}}
URL: Final = {"elicitation": {"url": {}}}
BOTH_WAYS: Final = {"elicitation": {"form": {}, "url": {}}}


async def waits(w: World, *, person: str = "alice") -> tuple[Actor, HoldId]:
    """An agent of somebody's, and a call of its that waits for a person."""
    coder = await w.ready("coder", "deploy", subject=person)
    return coder, (await w.call(coder, DEPLOYS, **DEPLOY)).hold


class Approver:
    """Who sits in front of a client: keeps what they were asked, and answers it, perhaps after something else."""

    def __init__(
        self,
        content: Mapping[str, Any] | None = None,
        action: str = "accept",
        *,
        after: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.asked: list[Any] = []
        self._content, self._action, self._after = content, action, after

    async def __call__(self, context: Any, params: Any) -> ElicitResult:
        self.asked.append(params)
        if self._after is not None:
            await self._after()
        content = self._content if params.mode == "form" else None
        return ElicitResult(action=self._action, content=content)  # type: ignore[arg-type]


@asynccontextmanager
async def at_client(w: World, agent: ClientActor, mode: str = MODERN, **more: Any) -> AsyncIterator[Client]:
    """The Python SDK's client with the agent's token."""
    headers = {"authorization": f"Bearer {agent.access_token}"}
    with anyio.fail_after(SOON):
        async with (
            httpx2.AsyncClient(headers=headers, timeout=30) as http,
            Client(
                streamable_http_client(w.url, http_client=http), mode="auto" if mode == MODERN else mode, **more
            ) as client,
        ):
            yield client


async def said(client: Client, name: str, **arguments: str) -> str:
    """What the messages of a prompt say."""
    got = await client.get_prompt(name, arguments or None)
    return "\n".join(message.content.text for message in got.messages)  # type: ignore[union-attr]


async def get(
    w: World, agent: ClientActor, hold: str | None, *, name: str = DECIDE_ONE, capabilities: Any = None, **params: Any
) -> dict[str, Any]:
    """The JSON-RPC answer to one raw `prompts/get` of 2026-07-28."""
    return await ask(w, agent, "prompts/get", name, prompt(name, hold, capabilities, **params))


def prompt(name: str, hold: str | None, capabilities: Any = None, **params: Any) -> dict[str, Any]:
    """The parameters of a `prompts/get`."""
    meta = modern_call("", {}, capabilities=capabilities)["params"]["_meta"]
    arguments = {} if hold is None else {"arguments": {"hold": hold}}
    return {"name": name, **arguments, "_meta": meta, **params}


async def ask(w: World, agent: ClientActor, method: str, name: str, params: Any, **headers: str) -> dict[str, Any]:
    """The JSON-RPC answer to one raw request of 2026-07-28."""
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    lines = {"mcp_protocol_version": MODERN, "mcp_method": method, **({"mcp_name": name} if name else {}), **headers}
    response = await w.post(body, agent.access_token, **lines)
    text = response.text
    if response.headers["content-type"].startswith("text/event-stream"):
        text = next(line[5:] for line in reversed(text.splitlines()) if line.startswith("data:"))
    answer: dict[str, Any] = httpx2.Response(200, text=text).json()
    return answer


def text(answer: Mapping[str, Any]) -> str:
    """What a prompt's messages, or the error in their place, say."""
    if "error" in answer:
        return str(answer["error"]["message"])
    return "\n".join(message["content"]["text"] for message in answer["result"]["messages"])


def retry(answer: Mapping[str, Any], content: Mapping[str, Any] | None, action: str = "accept") -> dict[str, Any]:
    """The members of the request by which a client brings its person's answer."""
    given = {"action": action, **({} if content is None else {"content": content})}
    return {"requestState": answer["result"]["requestState"], "inputResponses": {"approval": given}}


async def verdicts(w: World) -> list[Mapping[str, Any]]:
    """The records of what people answered."""
    return [r.event.fields for r in await w.records("approval") if "verdict" in r.event.fields]
