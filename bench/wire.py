"""The one request that everybody is sent, and what a right answer to it is."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

MODERN: Final = "2026-07-28"
TOOL: Final = "look_up"
ARGUMENTS: Final = {"book": "recipes", "line": 12, "words": "how long do beans cook"}
TEXT: Final = "recipes:12: two hours, after a night in water"

DEFINITION: Final = {
    "name": TOOL,
    "description": "Return one line of a book.",
    "inputSchema": {
        "type": "object",
        "properties": {
            "book": {"type": "string"},
            "line": {"type": "integer", "minimum": 1},
            "words": {"type": "string", "maxLength": 200},
        },
        "required": ["book", "line"],
        "additionalProperties": False,
    },
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What one request shows beside its token, good for that one."""

    request: str  # the DPoP proof
    call: str  # the signed call proof


def request(port: int, *, tool: str = TOOL, token: str | None = None, proof: Proof | None = None) -> bytes:
    """One 2026-07-28 `tools/call` as bytes, with the headers that a stock client sends."""
    meta = {
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
        **({} if proof is None else {"dev.mcp-authz/invocation": proof.call}),
    }
    params = {"name": tool, "arguments": ARGUMENTS, "_meta": meta}
    body = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}).encode()
    lines = [
        "POST /mcp HTTP/1.1",
        f"host: localhost:{port}",
        "content-type: application/json",
        "accept: application/json, text/event-stream",
        f"content-length: {len(body)}",
        f"mcp-protocol-version: {MODERN}",
        "mcp-method: tools/call",
        f"mcp-name: {tool}",
        *([] if token is None else [f"authorization: {'Bearer' if proof is None else 'DPoP'} {token}"]),
        *([] if proof is None else [f"dpop: {proof.request}"]),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def is_right(status: int, body: bytes) -> bool:
    """Whether this is the tool's result to our request, as JSON or as the last event of a stream."""
    if status != 200:
        return False
    events = [line.removeprefix(b"data: ") for line in body.splitlines() if line.startswith(b"data: ")]
    try:
        message: Any = json.loads(events[-1] if events else body)
        result = message["result"]
        return bool(message["id"] == 7 and result["content"][0]["text"] == TEXT and not result.get("isError"))
    except (ValueError, LookupError, TypeError):
        return False
