"""What a refusal at the gateway says (RFC 6750 section 3, RFC 9449 section 7.1), and saying more where we know more."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Final

import httpx2

from mcp_authz.client.trouble import UNAUTHENTICATED

_PARAMETER: Final = re.compile(r'([A-Za-z_]+)=(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))')


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """The error code of a refused request, None when it names none, and what it would have needed."""

    status: int
    error: str | None
    scope: frozenset[str]
    metadata: str | None = None  # the URL of the resource's metadata (RFC 9728 section 5.1)
    max_age: int | None = None  # seconds since the person last showed who they are (RFC 9470 section 3)


def read_challenge(response: httpx2.Response) -> Challenge:
    """Return what the response says of credentials; of one that is no refusal, nothing."""
    said: dict[str, str] = {}
    for value in response.headers.get_list("www-authenticate"):
        for name, quoted, plain in _PARAMETER.findall(value):
            said.setdefault(name.lower(), quoted or plain)
    age = said.get("max_age", "")
    return Challenge(
        status=response.status_code,
        error=said.get("error"),
        scope=frozenset(said.get("scope", "").split()),
        metadata=said.get("resource_metadata"),
        max_age=int(age) if re.fullmatch("[0-9]{1,9}", age) else None,
    )


def explained(response: httpx2.Response, why: str, asked: bytes) -> None:
    """The refusal of what was asked says `why`, as the JSON-RPC error that MCP clients show; it is a refusal still."""
    error = {"code": UNAUTHENTICATED, "message": f"{why[:1].upper()}{why[1:]}. Nothing was run."}
    body = json.dumps({"jsonrpc": "2.0", "id": _id(asked), "error": error}).encode()
    for name in ("content-encoding", "transfer-encoding"):
        response.headers.pop(name, None)
    response.headers["content-type"] = "application/json"
    response.headers["content-length"] = str(len(body))
    response.stream = _Instead(response.stream, body)


class _Instead(httpx2.AsyncByteStream, httpx2.SyncByteStream):
    """Another body for a response whose own nobody has read; closing it closes that one."""

    def __init__(self, own: httpx2.AsyncByteStream | httpx2.SyncByteStream, body: bytes) -> None:
        self._own = own
        self._body = body

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._body

    def __iter__(self) -> Iterator[bytes]:
        yield self._body

    async def aclose(self) -> None:
        if isinstance(self._own, httpx2.AsyncByteStream):
            await self._own.aclose()

    def close(self) -> None:
        if isinstance(self._own, httpx2.SyncByteStream):
            self._own.close()


def _id(asked: bytes) -> str | int | None:
    """The id of a JSON-RPC request; None of anything else."""
    try:
        body = json.loads(asked)
    except ValueError:
        return None
    id_ = body.get("id") if isinstance(body, dict) else None
    return id_ if isinstance(id_, str | int) else None
