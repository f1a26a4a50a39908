"""How a decision point is asked: shared connections, a time that counts, and a pause for one that is away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_authz import limits
from mcp_authz.policy.opa import OpaEngine
from mcp_authz.policy.remote import Pdp
from tests.policy.decision_points import SOON, answering, certificate, http, on_the_wire, opa, saying
from tests.policy.documents import document
from tests.ports import free_port

TRUE = http({"result": True})


class Ticks:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def ask(engine: OpaEngine) -> tuple[bool, str]:
    answer = await engine.evaluate(document())
    return answer.permit, "; ".join(answer.errors)


async def test_calls_share_connections_one_after_the_other_and_at_once() -> None:
    async with on_the_wire(saying(TRUE)) as server, opa(server.base) as engine:
        for _ in range(5):
            assert await ask(engine) == (True, "")
        assert server.connections == 1
        async with anyio.create_task_group() as group:
            for _ in range(40):
                group.start_soon(ask, engine)
        assert server.requests == 45
        assert server.connections <= 40


async def test_a_connection_that_was_closed_meanwhile_costs_no_call_its_permit() -> None:
    async def once(stream: Any, _: bytes) -> None:
        await stream.send(TRUE)
        await stream.aclose()

    async with on_the_wire(once) as server, opa(server.base) as engine:
        assert [await ask(engine) for _ in range(10)] == [(True, "")] * 10
        assert server.connections == 10


async def test_others_are_answered_while_one_question_waits() -> None:
    free = anyio.Event()

    async def slow_for_one(stream: Any, request: bytes) -> None:
        if b'"slow.one"' in request:
            await free.wait()
        await stream.send(TRUE)

    async with on_the_wire(slow_for_one) as server, opa(server.base) as engine, anyio.create_task_group() as group:
        group.start_soon(engine.evaluate, document(action="slow.one"))
        await server.heard(1)
        assert [await ask(engine) for _ in range(3)] == [(True, "")] * 3
        free.set()


async def test_one_that_is_away_is_not_asked_for_a_while_and_then_once() -> None:
    ticks = Ticks()
    engine = OpaEngine(f"http://127.0.0.1:{free_port()}/v1/data/a", SOON, ticks=ticks)
    for _ in range(limits.PDP_FAILURES):
        permit, error = await ask(engine)
        assert not permit
        assert "cannot be reached" in error
    permit, error = await ask(engine)
    assert not permit
    assert "was not asked, for it cannot be reached" in error
    assert error.endswith("; it is asked again in 1.0 s")
    assert (engine.status.asked, engine.status.refused, engine.status.away) == (limits.PDP_FAILURES, 1, True)

    ticks.now += 1.0
    assert "was not asked" not in (await ask(engine))[1]
    assert "asked again in 2.0 s" in (await ask(engine))[1]
    await engine.aclose()


async def test_one_that_is_back_is_asked_by_everybody_again(caplog: pytest.LogCaptureFixture) -> None:
    ticks, answers = Ticks(), [http(b"", status="503 Service Unavailable")] * limits.PDP_FAILURES + [TRUE] * 3

    async def say(stream: Any, _: bytes) -> None:
        await stream.send(answers.pop(0))

    async with on_the_wire(say) as server:
        engine = OpaEngine(f"{server.base}/v1/data/a", SOON, ticks=ticks)
        for _ in range(limits.PDP_FAILURES):
            assert "answered with HTTP 503" in (await ask(engine))[1]
        assert "was not asked" in (await ask(engine))[1]
        ticks.now += 1.0
        assert [await ask(engine) for _ in range(3)] == [(True, "")] * 3
        assert not engine.status.away
        await engine.aclose()
    assert [one.levelname for one in caplog.records if one.name.startswith("mcp_authz")] == ["ERROR", "WARNING"]


async def test_while_one_question_finds_out_the_others_are_denied_at_once() -> None:
    ticks, free = Ticks(), anyio.Event()

    async def say(stream: Any, _: bytes) -> None:
        if ticks.now:
            await free.wait()
            await stream.send(TRUE)
        else:
            await stream.send(http(b"", status="503 Service Unavailable"))

    async with on_the_wire(say) as server:
        engine = OpaEngine(f"{server.base}/v1/data/a", SOON, ticks=ticks)
        for _ in range(limits.PDP_FAILURES):
            await ask(engine)
        ticks.now, asked = 1.0, server.requests
        async with anyio.create_task_group() as group:
            group.start_soon(engine.evaluate, document())
            await server.heard(asked + 1)
            assert "another call is finding out" in (await ask(engine))[1]
            free.set()
        assert await ask(engine) == (True, "")
        await engine.aclose()


async def test_a_call_that_is_given_up_while_it_finds_out_does_not_shut_the_way_for_ever() -> None:
    ticks = Ticks()

    async def say(stream: Any, _: bytes) -> None:
        if ticks.now == 1.0:
            await anyio.sleep_forever()
        await stream.send(TRUE if ticks.now else http(b"", status="503 Service Unavailable"))

    async with on_the_wire(say) as server:
        engine = OpaEngine(f"{server.base}/v1/data/a", SOON, ticks=ticks)
        for _ in range(limits.PDP_FAILURES):
            await ask(engine)
        ticks.now = 1.0
        with anyio.move_on_after(0.05) as given_up:
            await engine.evaluate(document())
        assert given_up.cancelled_caught
        ticks.now = 2.0
        assert await ask(engine) == (True, "")
        await engine.aclose()


async def test_a_late_answer_from_before_it_was_away_does_not_say_that_it_is_back() -> None:
    free = anyio.Event()

    async def say(stream: Any, request: bytes) -> None:
        if b'"slow.one"' in request:
            await free.wait()
            await stream.send(TRUE)
        else:
            await stream.send(http(b"", status="503 Service Unavailable"))

    async with on_the_wire(say) as server:
        engine = OpaEngine(f"{server.base}/v1/data/a", SOON, ticks=Ticks())
        async with anyio.create_task_group() as group:
            group.start_soon(engine.evaluate, document(action="slow.one"))
            await server.heard(1)
            for _ in range(limits.PDP_FAILURES):
                await ask(engine)
            free.set()
        assert "was not asked, for it answered with HTTP 503" in (await ask(engine))[1]
        assert engine.status.away
        await engine.aclose()


@pytest.mark.parametrize(
    "answer",
    [
        http({"code": "internal_error"}, status="500 Internal Server Error"),
        http({}, status="400 Bad Request"),
        http({"result": 3}),
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 50\r\n\r\n{",
    ],
    ids=["500", "400", "wrong shape", "broken off"],
)
async def test_what_one_call_can_cause_by_its_arguments_denies_that_call_alone(answer: bytes) -> None:
    async def say(stream: Any, request: bytes) -> None:
        await stream.send(TRUE if b'"good.one"' in request else answer)
        if b'"good.one"' not in request:
            await stream.aclose()

    async with on_the_wire(say) as server, opa(server.base) as engine:
        for _ in range(2 * limits.PDP_FAILURES):
            assert not (await ask(engine))[0]
        assert (await engine.evaluate(document(action="good.one"))).permit


async def test_so_many_questions_may_wait_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PDP_ASKING", 3)
    free = anyio.Event()

    async def say(stream: Any, _: bytes) -> None:
        await free.wait()
        await stream.send(TRUE)

    async with on_the_wire(say) as server, opa(server.base) as engine, anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(engine.evaluate, document())
        await server.heard(3)
        assert "3 questions wait for it already" in (await ask(engine))[1]
        free.set()
    assert engine.status.refused == 1


async def test_the_place_of_a_question_is_free_however_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "PDP_ASKING", 1)
    answers = [TRUE, http(b""), http(b"", status="503 Service Unavailable"), TRUE]

    async def say(stream: Any, _: bytes) -> None:
        await stream.send(answers.pop(0))

    async with on_the_wire(say) as server, opa(server.base) as engine:
        assert [(await ask(engine))[0] for _ in range(4)] == [True, False, False, True]


async def test_an_error_names_no_argument_and_nothing_that_was_answered() -> None:
    canary = "canary-7f3a"
    told = {"result": {canary: canary}, "errors": [{"message": canary}]}
    for body, status in ((told, 200), (told, 500), ({"result": {"allow": True, "because": [f"{canary} !"]}}, 200)):
        async with answering(body, status=status) as server, opa(server.base) as engine:
            answer = await engine.evaluate(document(arguments={canary: canary}))
            assert answer.errors
            assert canary not in repr(answer)


async def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    async with on_the_wire(saying(TRUE)) as server, opa(server.base) as engine:
        assert await ask(engine) == (True, "")


async def test_a_certificate_that_the_system_does_not_trust_is_no_decision_point(tmp_path: Path) -> None:
    serving, trust = certificate(tmp_path)
    async with on_the_wire(saying(TRUE), serving) as server:
        async with opa(server.base) as engine:
            permit, error = await ask(engine)
            assert not permit
            assert "cannot be reached (ClientConnectorCertificateError)" in error
        async with opa(server.base, Pdp(timeout=SOON.timeout, trust=trust)) as engine:
            assert [await ask(engine) for _ in range(2)] == [(True, "")] * 2
