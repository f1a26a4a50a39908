"""Threat 23: the policy decision point is down, slow, confused or somebody else's; nothing of that is a permit.

Whatever it does, the call is denied in the time that the operator gave it, with an error that names the cause.
"""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import anyio
import pytest

from mcp_authz.model import Classification, Deny, Hazard, Tool, ToolName
from mcp_authz.policy.authzen import AuthZenEngine
from mcp_authz.policy.engine import PolicyAnswer
from mcp_authz.policy.opa import OpaEngine
from mcp_authz.rules.decision import ApprovalFloor, decide
from tests.policy.decision_points import SHORT, SOON, Wire, answering, http, on_the_wire, opa, saying
from tests.policy.documents import document
from tests.ports import free_port

TRUE = http({"result": True})
CHUNKED = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"


def decided(answer: PolicyAnswer) -> Deny:
    """What the gateway makes of the answer to a call that reads, for which nothing else would be asked."""
    reads = Classification(action="pr.list", hazard=Hazard.READ, scopes=(), by="operator")
    tool = Tool(
        name=ToolName("acme__list"),
        server="acme",
        tool="list",
        environment="staging",
        definition={},
        digest=bytes(32),
        classification=reads,
    )
    decision = decide(
        call_digest=bytes(32),
        tool=tool,
        answer=answer,
        approval=None,
        floor=ApprovalFloor(rules={}, by_hazard={}),
        authentication=None,
        at=datetime.now(UTC),
    )
    assert isinstance(decision, Deny)
    return decision


async def denied(say: Wire, pdp: Any = SOON) -> str:
    """Why both engines deny a call where the decision point says this to every question."""

    async def but_no_metadata(stream: anyio.abc.ByteStream, request: bytes) -> None:
        await (saying(http({}, status="404 Not Found")) if request.startswith(b"GET ") else say)(stream, request)

    async with on_the_wire(but_no_metadata) as server:
        engines = OpaEngine(f"{server.base}/v1/data/agent/authz", pdp), AuthZenEngine(server.base, pdp)
        errors = []
        for engine in engines:
            answer = await engine.evaluate(document())
            assert decided(answer).code == "policy_error"
            errors.extend(answer.errors)
            await engine.aclose()
    assert len(errors) == 2
    return errors[0]


async def test_one_that_is_down_permits_nothing() -> None:
    engine = OpaEngine(f"http://127.0.0.1:{free_port()}/v1/data/a", SOON)
    answer = await engine.evaluate(document())
    await engine.aclose()
    assert decided(answer).code == "policy_error"
    assert "cannot be reached" in answer.errors[0]


async def silent(stream: anyio.abc.ByteStream, _: bytes) -> None:
    await anyio.sleep_forever()


async def dripping_head(stream: anyio.abc.ByteStream, _: bytes) -> None:
    for byte in TRUE:
        await stream.send(bytes([byte]))
        await anyio.sleep(0.02)


async def dripping_body(stream: anyio.abc.ByteStream, _: bytes) -> None:
    await stream.send(CHUNKED)
    while True:
        await stream.send(b"1\r\n \r\n")
        await anyio.sleep(0.02)


async def going_on(stream: anyio.abc.ByteStream, _: bytes) -> None:
    while True:
        await stream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await anyio.sleep(0.02)


@pytest.mark.parametrize("say", [silent, dripping_head, dripping_body, going_on])
async def test_one_that_is_slow_permits_nothing_and_holds_nobody_longer_than_its_time(say: Wire) -> None:
    before = time.monotonic()
    assert "did not answer whole within 0.2 seconds" in await denied(say, SHORT)
    assert time.monotonic() - before < 5


HUGE = b'{"result": true, "decision": true, "x": "' + b"x" * 10_000_000 + b'"}'


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (http(HUGE), "its answer is longer than 65536 bytes"),
        (CHUNKED + b"10000\r\n" + b" " * 65536 + b"\r\n1\r\n \r\n", "its answer is longer than 65536 bytes"),
        (http({"result": True}, status="500 Internal Server Error"), "HTTP 500"),
        (http({"result": True}, status="201 Created"), "HTTP 201"),
        (http(b"", status="204 No Content"), "HTTP 204"),
        (http({"result": True}, status="400 Bad Request"), "HTTP 400"),
        (http({"result": True}, status="302 Found", more="location: http://127.0.0.1:1/\r\n"), "leads elsewhere"),
        (http({"result": True}, status="307 Temporary Redirect", more="location: /other\r\n"), "leads elsewhere"),
        (http({"result": True}, kind="text/html"), "content type"),
        (http({"result": True}, kind="application/json, text/html"), "content type"),
        (http({"result": True}, more="content-type: text/html\r\n"), "content type"),
        (http(gzip.compress(b'{"result": true, "decision": true}'), more="content-encoding: gzip\r\n"), "compressed"),
        (http(b""), "cannot be read"),
        (http(b"true"), "expected a JSON object"),
        (http(b"[true]"), "expected a JSON object"),
        (http(b'{"result": true, "decision": true'), "not valid JSON"),
        (http(b'{"result": true, "decision": true} {}'), "something follows"),
        (http(b'{"result": false, "result": true, "decision": false, "decision": true}'), "same key twice"),
        (http(b'\xef\xbb\xbf{"result": true, "decision": true}'), "byte order mark"),
        (http(b'{"result": true, "decision": true, "x": NaN}'), "NaN"),
        (http(b'{"result": true, "decision": true, "x": "\xff"}'), "not UTF-8"),
        (http(b'{"result": true, "decision": true, "x": ' + b"[" * 50 + b"]" * 50 + b"}"), "nested deeper"),
        (http({"result": "true", "decision": "true"}), "neither a boolean nor"),
        (http({"result": 1, "decision": 1}), "neither a boolean nor"),
        (http({"result": [True], "decision": [True]}), "neither a boolean nor"),
        (http({"result": {"allow": True, "allowed": True}, "decision": None}), "members beside"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", "gave no whole answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", "gave no whole answer"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n", "gave no whole answer"),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000 + b"\r\n\r\n", "gave no whole answer"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_one_that_answers_in_another_way_permits_nothing(answer: bytes, why: str) -> None:
    assert why in await denied(saying(answer))


@pytest.mark.parametrize("end", [0, 5, 30, len(TRUE) - 1])
async def test_half_an_answer_permits_nothing(end: int) -> None:
    async def break_off(stream: anyio.abc.ByteStream, _: bytes) -> None:
        await stream.send(TRUE[:end])
        await stream.aclose()

    assert "gave no whole answer" in await denied(break_off)


async def test_a_permit_with_an_obligation_that_nobody_knows_is_a_denial() -> None:
    allowed = {"allow": True, "because": ["ok"], "obligations": [{"kind": "pray", "argument": "twice"}]}
    async with answering({"result": allowed}) as server, opa(server.base) as engine:
        assert decided(await engine.evaluate(document())).code == "obligation"
    context: Mapping[str, Any]
    for context in (
        {"obligations": allowed["obligations"]},
        {"obligations": [{"id": "log-it", "attributes": {}}]},
        {"obligation": [{"kind": "approval", "argument": "destructive"}]},
        {"advice": ["log it"]},
        {"acr_values": "urn:loa:3"},
    ):
        async with answering({"decision": True, "context": context}) as server:
            engine2 = AuthZenEngine(server.base, SOON)
            assert decided(await engine2.evaluate(document())).code in ("obligation", "policy_error"), context
            await engine2.aclose()


@pytest.mark.parametrize("when", ["at once", "later", "in parts"])
async def test_what_follows_an_answer_is_not_the_answer_to_the_next_question(when: str) -> None:
    """A proxy that has lost count, or a fault of the server: it says more than it was asked."""
    false, said = http({"result": False}), anyio.Event()

    async def say(stream: anyio.abc.ByteStream, request: bytes) -> None:
        if b'"good.one"' not in request:
            await stream.send(false)
            return
        more = TRUE[:40] if when == "in parts" else TRUE
        await stream.send(TRUE + more if when != "later" else TRUE)
        if when != "at once":
            await anyio.sleep(0.05)
            with suppress(anyio.BrokenResourceError):  # the connection was closed, as it should be
                await stream.send(TRUE[40:] if when == "in parts" else TRUE)
        said.set()

    async with on_the_wire(say) as server, opa(server.base) as engine:
        assert (await engine.evaluate(document(action="good.one"))).permit
        await said.wait()
        await anyio.sleep(0.05)  # what was said has come
        for _ in range(3):
            assert not (await engine.evaluate(document(action="bad.one"))).permit


async def test_an_answer_that_nobody_waited_for_is_not_the_answer_to_the_next_question() -> None:
    async def say(stream: anyio.abc.ByteStream, request: bytes) -> None:
        if b'"good.one"' in request:
            await anyio.sleep(0.1)
        with suppress(anyio.BrokenResourceError):
            await stream.send(TRUE if b'"good.one"' in request else http({"result": False}))

    async with on_the_wire(say) as server, opa(server.base) as engine:
        assert not (await engine.evaluate(document(action="bad.one"))).permit  # the connection is there
        with anyio.move_on_after(0.05) as given_up:
            await engine.evaluate(document(action="good.one"))
        assert given_up.cancelled_caught
        assert not (await engine.evaluate(document(action="bad.one"))).permit


async def test_what_is_left_of_an_answer_that_was_refused_is_not_the_answer_to_the_next_question() -> None:
    left = http(b"x" * 100_000 + TRUE, kind="text/html")

    async def say(stream: anyio.abc.ByteStream, request: bytes) -> None:
        with suppress(anyio.BrokenResourceError):
            await stream.send(left if b'"html.one"' in request else http({"result": False}))

    async with on_the_wire(say) as server, opa(server.base) as engine:
        for action in ("html.one", "bad.one", "html.one", "bad.one"):
            assert not (await engine.evaluate(document(action=action))).permit


async def test_an_answer_that_names_another_request_permits_nothing() -> None:
    async with answering({"decision": True}, x_request_id="q_of-somebody-else") as server:
        engine = AuthZenEngine(server.base, SOON)
        answer = await engine.evaluate(document())
        await engine.aclose()
    assert decided(answer).detail.endswith("its answer is to another request")


async def test_an_answer_is_never_taken_from_an_earlier_one() -> None:
    answers = [TRUE, http(b"", status="503 Service Unavailable"), http({"result": False})]

    async def say(stream: anyio.abc.ByteStream, _: bytes) -> None:
        await stream.send(answers.pop(0))

    async with on_the_wire(say) as server, opa(server.base) as engine:
        asked = [await engine.evaluate(document()) for _ in range(3)]
    assert [answer.permit for answer in asked] == [True, False, False]
    assert json.dumps([list(answer.errors) for answer in asked]).count("HTTP 503") == 1
