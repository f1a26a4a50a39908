"""Row 54: requests whose length or sender two readers would see differently, or that never end. Spoken over sockets."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from mcp_authz import limits
from tests.attacks.attacker import LEGACY_VERSION, answer_in, complete, spoken, spy, status_of, tool
from tests.world import MODERN, World, modern_call, world

BODY = json.dumps(modern_call("spy__look", {"n": 1})).encode()
SCOPE = "spy:look"


def head(w: World, token: str, *, drop: str = "", more: bytes = b"") -> bytes:
    """The head of a call that would be permitted, without `drop` and with `more`."""
    lines = {
        "host": w.config.public_url.removeprefix("http://"),
        "content-type": "application/json",
        "accept": "application/json",
        "authorization": f"Bearer {token}",
        "mcp-protocol-version": MODERN,
        "mcp-method": "tools/call",
        "mcp-name": "spy__look",
        "content-length": str(len(BODY)),
    }
    written = [f"{name}: {value}".encode() for name, value in lines.items() if name != drop]
    return b"\r\n".join([b"POST /mcp HTTP/1.1", *written]) + b"\r\n" + more + b"\r\n"


def chunked(body: bytes, size: int = 64) -> bytes:
    parts = [body[start : start + size] for start in range(0, len(body), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


HEADS = {
    "two lengths that differ": ("", b"content-length: 5\r\n"),
    "two lengths that agree": ("", b"content-length: %d\r\n" % len(BODY)),
    "a length and chunks": ("", b"transfer-encoding: chunked\r\n"),
    "a length and a strange coding": ("", b"transfer-encoding: xchunked\r\n"),
    "two codings": ("content-length", b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n"),
    "a signed length": ("content-length", b"content-length: +%d\r\n" % len(BODY)),
    "a length in hex": ("content-length", b"content-length: 0x10\r\n"),
    "two lengths in one line": ("content-length", b"content-length: %d, %d\r\n" % (len(BODY), len(BODY))),
    "two tokens": ("", b"authorization: Bearer other\r\n"),
    "two schemes": ("", b"Authorization: Basic YTpi\r\n"),
    "two hosts": ("", b"host: evil.example\r\n"),
    "two origins": ("", b"origin: http://localhost\r\norigin: http://evil.example\r\n"),
    "two types": ("", b"content-type: text/plain\r\n"),
    "two versions": ("", b"mcp-protocol-version: %s\r\n" % LEGACY_VERSION.encode()),
    "two names": ("", b"mcp-name: spy__burn\r\n"),
    "two methods": ("", b"mcp-method: tools/list\r\n"),
    "two parameters": ("", b"mcp-param-region: a\r\nmcp-param-region: b\r\n"),
    "a folded header": ("", b"x-folded: a\r\n b\r\n"),
    "a folded token": ("authorization", b"authorization: Bearer\r\n other\r\n"),
    "a space before the colon": ("", b"x-space : a\r\n"),
    "a NUL": ("", b"x-nul: a\0b\r\n"),
    "a bare carriage return": ("", b"x-cr: a\rauthorization: Bearer x\r\n"),
    "a header without a name": ("", b": a\r\n"),
    "a long header": ("", b"x-long: " + b"a" * (limits.HEADER_BYTES + 1) + b"\r\n"),
    "many headers": ("", b"".join(b"x-%d: %s\r\n" % (n, b"a" * 100) for n in range(2000))),
}


@pytest.mark.parametrize("what", HEADS)
async def test_a_head_that_can_be_read_two_ways_is_refused(tmp_path: Path, what: str) -> None:
    server = spy(tmp_path / "spy", tool("look"))
    async with world(tmp_path, servers={"spy": server.config(tools={"look": {"hazard": "read"}})}) as w:
        token = await w.token(await w.ready("coder", SCOPE))
        drop, more = HEADS[what]
        said = await spoken(w, head(w, token, drop=drop, more=more), then=BODY)
        assert said == b"" or status_of(said) in {400, 403, 413, 415, 421, 431}, said[:200]
        assert server.ran == []
        assert "result" in answer_in(await w.raw_call(token, "spy__look", {}))  # the server is alive
        assert len(server.ran) == 1


async def test_a_body_may_come_in_chunks_and_is_bounded_however_it_comes(tmp_path: Path) -> None:
    server = spy(tmp_path / "spy", tool("look"))
    async with world(tmp_path, servers={"spy": server.config(tools={"look": {"hazard": "read"}})}) as w:
        token = await w.token(await w.ready("coder", SCOPE))
        by_chunks = head(w, token, drop="content-length", more=b"transfer-encoding: chunked\r\n")
        assert status_of(await spoken(w, by_chunks, then=chunked(BODY))) == 200
        assert len(server.ran) == 1

        large = b'{"jsonrpc":"2.0","pad":"' + b"x" * limits.BODY_BYTES + b'"}'
        said = await spoken(w, by_chunks, then=chunked(large, 65536))
        assert status_of(said) == 413, ascii(said)
        declared = head(w, token, drop="content-length", more=b"content-length: %d\r\n" % len(large))
        assert status_of(await spoken(w, declared)) == 413  # before a byte of it was sent
        endless = head(w, token, drop="content-length", more=b"content-length: %s\r\n" % (b"9" * 18))
        assert status_of(await spoken(w, endless)) == 413
        assert len(server.ran) == 1


async def test_what_follows_a_body_is_a_request_of_its_own_with_its_own_identity(tmp_path: Path) -> None:
    server = spy(tmp_path / "spy", tool("look"))
    async with world(tmp_path, servers={"spy": server.config(tools={"look": {"hazard": "read"}})}) as w:
        token = await w.token(await w.ready("coder", SCOPE))
        smuggled = head(w, token, drop="authorization") + BODY
        port = int(w.config.public_url.rpartition(":")[2])
        said = b""
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            await stream.send(head(w, token) + BODY + smuggled)
            with anyio.fail_after(20):
                while said.count(b"HTTP/1.1") < 2 or not complete(said[said.rindex(b"HTTP/1.1") :]):
                    said += await stream.receive()
        assert b"401 Unauthorized" in said
        assert len(server.ran) == 1


@pytest.mark.parametrize("sent", [b"", b"POST /mcp HTTP/1.1\r\nhost: loc", b"\r\n\r\n"])
async def test_a_head_that_does_not_end_in_time_ends_the_connection(
    tmp_path: Path, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HEAD_TIME", timedelta(milliseconds=50))
    async with world(tmp_path, servers={}) as w, await anyio.connect_tcp("127.0.0.1", w.config.listen_port) as stream:
        await stream.send(sent)
        with anyio.fail_after(10):
            with pytest.raises(anyio.EndOfStream):
                while True:
                    assert b" 400 " in await stream.receive()


async def test_a_body_that_does_not_end_in_time_ends_the_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BODY_TIME", timedelta(milliseconds=50))
    server = spy(tmp_path / "spy", tool("look"))
    async with world(tmp_path, servers={"spy": server.config(tools={"look": {"hazard": "read"}})}) as w:
        token = await w.token(await w.ready("coder", SCOPE))
        said = await spoken(w, head(w, token), then=BODY[:-1])
        assert status_of(said) == 408 and b"connection: close" in said.lower()
        assert server.ran == []


async def test_headers_without_end_are_not_collected(tmp_path: Path) -> None:
    async with world(tmp_path, servers={}) as w:
        sent = 0
        async with await anyio.connect_tcp("127.0.0.1", w.config.listen_port) as stream:
            await stream.send(b"POST /mcp HTTP/1.1\r\n")
            with anyio.fail_after(20):
                with pytest.raises((anyio.BrokenResourceError, anyio.EndOfStream)):
                    while sent < 64 * limits.HEAD_BYTES:
                        await stream.send(b"x-more: " + b"a" * 8000 + b"\r\n")
                        sent += 8010
                    raise AssertionError("the gateway went on collecting")
        assert sent < 64 * limits.HEAD_BYTES
