"""What a call of 2026-07-28 makes of the bytes that a server answers, however they are cut and whatever they are."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from mcp_authz.errors import DownstreamRefusal
from tool_adapters.direct import direct_calls
from tool_adapters.sdk import Broken

TLS = httpx2.create_ssl_context(trust_env=False)
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nset-cookie: a=b\r\nconnection: close\r\n\r\n"
DONE = b'{"jsonrpc":"2.0","id":"ID","result":{"done":true}}'
PROGRESS = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progress":1}}'
HEARD = [("notifications/progress", {"progress": 1})]


@asynccontextmanager
async def answering(said: bytes, size: int = 4096) -> AsyncIterator[tuple[str, list[bytes]]]:
    """A server that answers this in pieces of a size, `ID` replaced by the request's; and the heads it was sent."""
    seen: list[bytes] = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head.lower())
        assert length is not None
        body = await reader.readexactly(int(length[1]))
        seen.append(head)
        whole = said.replace(b"ID", json.loads(body)["id"].encode())
        for start in range(0, len(whole), size):
            writer.write(whole[start : start + size])
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mcp", seen


async def called(said: bytes, size: int = 4096) -> tuple[Mapping[str, Any], list[tuple[str, Mapping[str, Any]]]]:
    """The result of one call that is answered so, and what was heard before it."""
    heard: list[tuple[str, Mapping[str, Any]]] = []
    async with answering(said, size) as (url, _), direct_calls(url, {}, TLS) as calls:
        result = await calls.send("tools/call", {"name": "x"}, {}, lambda *told: heard.append(told))
    return result, heard


def plain(body: bytes, status: str = "200 OK", kind: str = "application/json") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n"
    return head.encode() + body


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("size", [1, 7, 4096])
async def test_a_stream_is_read_alike_however_it_is_cut(end: bytes, size: int) -> None:
    lines = [b": hello", b"event: message", b"data: " + PROGRESS, b"", b"event: other", b"data: {", b"", b"id: 4"]
    lines += [b"data:" + DONE[:17], b"data:" + DONE[17:], b"", b"data: late", b"", b""]
    assert await called(STREAM + end.join(lines), size) == ({"done": True}, HEARD)


async def test_a_request_of_the_server_is_no_answer_and_is_not_heard() -> None:
    asks = b'data: {"jsonrpc":"2.0","id":1,"method":"sampling/createMessage","params":{}}\n\n'
    assert await called(STREAM + asks + b"data: " + DONE + b"\n\n") == ({"done": True}, [])


async def test_no_cookie_of_a_server_is_sent_back() -> None:
    async with answering(STREAM + b"data: " + DONE + b"\n\n") as (url, seen), direct_calls(url, {}, TLS) as calls:
        for _ in range(2):
            await calls.send("tools/call", {}, {}, lambda *_: None)
    assert len(seen) == 2 and not any(b"cookie" in head.lower() for head in seen)


@pytest.mark.parametrize(
    "body",
    [
        b'{"jsonrpc":"2.0","id":"another","result":{}}',
        b'{"jsonrpc":"2.0","id":"ID","result":[]}',
        b'{"jsonrpc":"2.0","id":"ID"}',
        b'{"jsonrpc":"1.0","id":"ID","result":{}}',
        b'{"jsonrpc":"2.0","id":"ID","error":"no"}',
        b'{"jsonrpc":"2.0","id":"ID","result":{"x":"\\ud800"}}',
        b'{"jsonrpc":"2.0","id":"ID","result":{"x":NaN}}',
        b'{"jsonrpc":"2.0","id":"ID","result":' + b'{"x":' * 500 + b"1" + b"}" * 501,
        b"[" + DONE + b"]",
        b"",
    ],
)
async def test_what_is_no_response_to_this_request_is_no_answer(body: bytes) -> None:
    with pytest.raises(Broken, match="no JSON-RPC message") as broken:
        await called(plain(body))
    assert broken.value.sent


async def test_an_error_in_a_refused_request_is_the_servers_answer() -> None:
    body = b'{"jsonrpc":"2.0","id":null,"error":{"code":-32602,"message":"no","data":{"x":1}}}'
    with pytest.raises(DownstreamRefusal) as refused:
        await called(plain(body, "400 Bad Request"))
    assert (refused.value.rpc_code, refused.value.message, refused.value.data) == (-32602, "no", {"x": 1})


@pytest.mark.parametrize(("code", "then"), [(-32020, "list again"), (-32022, "reconnect")])
async def test_a_refused_header_or_version_says_what_the_connection_has_to_do(code: int, then: str) -> None:
    body = b'{"jsonrpc":"2.0","id":"ID","error":{"code":%d,"message":"no"}}' % code
    with pytest.raises(Broken) as broken:
        await called(plain(body, "400 Bad Request"))
    assert (broken.value.then, broken.value.sent) == (then, False)
