"""Row 19, through the endpoint: whatever bytes come, the answer is JSON-RPC, nothing breaks, and only permits run."""

from __future__ import annotations

import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import anyio.from_thread
import anyio.to_thread
import httpx2
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.attacks.attacker import LEGACY_VERSION, answer_in, handshake, spy, tool
from tests.world import MODERN, modern_call, world

VALID = modern_call("spy__look", {"n": 1})
BYTES = json.dumps(VALID).encode()
# What parsers are known to disagree about (after JSONTestSuite and "Parsing JSON is a minefield").
VALUES = [
    b"[1,]", b"{,}", b'{"a":1,}', b"[NaN]", b"[-Infinity]", b"[1e9999]", b"[0x1]", b"[01]", b"[1.]", b"[.1]", b"[+1]",
    b"[-]", b'["\\ud800"]', b'["\\u0000"]', b'["\xff"]', b'["\xed\xa0\x80"]', b'["\t"]', b"['a']", b"[True]",
    b"nul", b"/**/{}", b"{}//", b"{} {}", b'{"name":"spy__look","name":"spy__burn"}', b"[" * 100_000, b'{"a":' * 5000,
    b'["' + b"\\" * 9 + b'"]', b"[1" + b"0" * 5000 + b"]", b'"\\x"', b"\xef\xbb\xbf{}", b"[1]]",
]  # fmt: skip
MINEFIELD = [
    *(b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":' + value + b"}" for value in VALUES),
    BYTES.decode().encode("utf-16"), BYTES.decode().encode("utf-32"), b"\xef\xbb\xbf" + BYTES, BYTES + b"\0", BYTES * 2,
    BYTES[:-1], b" " * 100_000 + BYTES, b"", b"null", b"{}", b"[]", b"0", b'"', b"\0",
]  # fmt: skip

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
KEYS = ["jsonrpc", "id", "method", "params", "name", "arguments", "_meta", "requestState", "inputResponses", "result"]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A valid call with a few members replaced, left out or added, somewhere."""
    call = json.loads(BYTES)
    for _ in range(draw(st.integers(1, 3))):
        place: Any = call
        while draw(st.booleans()):
            inner = [value for value in place.values() if isinstance(value, dict)]
            if not inner:
                break
            place = draw(st.sampled_from(inner))
        name = draw(st.sampled_from([*place, *KEYS]) | st.text(max_size=10))
        if draw(st.booleans()):
            place[name] = draw(JSON)
        else:
            place.pop(name, None)
    return json.dumps(call).encode("utf-8", "surrogatepass")


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A valid call with some of its bytes changed."""
    raw = bytearray(BYTES)
    for _ in range(draw(st.integers(1, 8))):
        at = draw(st.integers(0, len(raw) - 1))
        raw[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=4))
    return bytes(raw)


BODIES = st.one_of(st.binary(max_size=200), mutated(), damaged(), st.sampled_from(MINEFIELD))
PRINTABLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=30)
HEADERS = st.dictionaries(
    st.sampled_from(
        ["mcp-protocol-version", "mcp-method", "mcp-name", "mcp-session-id", "accept", "content-type", "mcp-param-n"]
    ),
    PRINTABLE | st.sampled_from([MODERN, LEGACY_VERSION, "tools/call", "spy__look", "=?base64?c3B5X19sb29r?="]),
    max_size=2,
)

Send = Callable[[bytes, dict[str, str]], Awaitable[httpx2.Response]]


@pytest.mark.parametrize("era", ["modern", "handshake"])
def test_no_bytes_break_the_endpoint_or_get_around_the_decision(
    tmp_path: Path, era: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.WARNING)
    server = spy(tmp_path / "spy", tool("look"))
    answers = 0

    async def attack() -> None:
        nonlocal answers
        async with world(tmp_path, servers={"spy": server.config(tools={"look": {"hazard": "read"}})}) as w:
            token = await w.token(await w.ready("coder", "spy:look"))
            async with handshake(w, token) as session, httpx2.AsyncClient(timeout=20) as http:
                base = dict(session.headers)
                if era == "modern":
                    del base["mcp-session-id"]
                    base |= {"mcp-protocol-version": MODERN, "mcp-method": "tools/call", "mcp-name": "spy__look"}

                async def send(raw: bytes, headers: dict[str, str]) -> httpx2.Response:
                    return await http.post(w.url, content=raw, headers={**base, **headers})

                await anyio.to_thread.run_sync(fuzz, send)
                assert "result" in answer_in(await w.raw_call(token, "spy__look", {"n": 1}))
            permits = [fields for fields in await w.decisions() if fields["decision"] == "permit"]
            assert len(server.ran) == len(permits)

    def fuzz(send: Send) -> None:
        @settings(
            max_examples=300,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(BODIES, HEADERS)
        def one(raw: bytes, headers: dict[str, str]) -> None:
            nonlocal answers
            answered = anyio.from_thread.run(send, raw, headers)
            answers += 1
            assert answered.status_code < 500, (answered.status_code, answered.text)
            if answered.status_code == 202:
                assert answered.text == ""
                return
            message = answer_in(answered)
            assert message["jsonrpc"] == "2.0" and ("result" in message) is not ("error" in message)
            assert "Traceback" not in answered.text

        for raw in MINEFIELD:
            one.hypothesis.inner_test(raw, {})
        one()

    anyio.run(attack)
    assert answers > 300
    assert "Traceback" not in caplog.text and "Exception" not in caplog.text
    assert "Traceback" not in capfd.readouterr().err


RESULTS = [
    "null", "1", "[]", '"x"', "{}", '{"content":null}', '{"content":[NaN]}', '{"content":[1e999]}',
    '{"content":["\\ud800"]}', '{"content":[' + "1" * 4000 + "]}", '{"content":[' + "1" * 5000 + "]}",
    '{"content":' + "[" * 150 + "]" * 150 + "}", '{"_meta":[]}', '{"_meta":{"dev.mcp-authz/outcome":{}}}',
    '{"isError":"yes"}', '{"resultType":1}', '{"resultType":"input_required"}',
    '{"resultType":"input_required","inputRequests":[]}', '{"resultType":"input_required","inputRequests":{"a":1}}',
    '{"resultType":"input_required","inputRequests":{"a":{"method":"sampling/createMessage","params":{}}}}',
    '{"resultType":"input_required","requestState":5}', '{"content":[],"structuredContent":{"a":NaN}}', "{not json",
    '{"content":"\u2028\u2029\u0085"}',
]  # fmt: skip


@pytest.mark.parametrize("era", ["modern", "handshake"])
@pytest.mark.parametrize("hazard", ["read", "destructive"])
async def test_no_result_of_a_tool_server_breaks_the_gateway(
    tmp_path: Path, hazard: str, era: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    server = spy(tmp_path / "spy", tool("raw"))
    async with world(tmp_path, servers={"spy": server.config(tools={"raw": {"hazard": hazard}}, call_timeout=5)}) as w:
        token = await w.token(await w.ready("coder", "spy:raw"))
        async with handshake(w, token) as session:

            async def call(result: str) -> dict[str, Any]:
                if era == "handshake":
                    return await session.call("spy__raw", {"result": result})
                answered = await w.raw_call(token, "spy__raw", {"result": result})
                assert answered.status_code < 500, answered.text
                return answer_in(answered)

            for result in RESULTS:
                said = await call(result)
                if hazard == "destructive":
                    await w.answer(said["result"]["_meta"]["dev.mcp-authz/outcome"]["hold"], by="alice")
                    said = await call(result)
                assert ("result" in said) is not ("error" in said), result
        permits = [fields for fields in await w.decisions() if fields["decision"] == "permit"]
        assert len(permits) == len(RESULTS) == len(await w.records("outcome"))
    assert "Traceback" not in caplog.text
