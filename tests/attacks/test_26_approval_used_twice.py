"""Row 26: one approval, many runs: replayed, raced, and carried over into another approval's time."""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_authz import limits
from mcp_authz.model import HoldState
from tests.attacks.attacker import answer_in, complete, handshake, spy, tool
from tests.world import ENVELOPE, MODERN, Actor, World, modern_call, world

DEPLOY = {"owner": "acme", "repo": "api", "environment": "staging", "version": "1"}
AT_ONCE = 50


def outcome(message: dict[str, Any]) -> str:
    """How one answer reads."""
    if "error" in message:
        return f"error {message['error']['code']}"
    envelope = (message["result"].get("_meta") or {}).get(ENVELOPE, {})
    return str(envelope.get("outcome", "done")) + (" running" if "Running" in str(message["result"]) else "")


async def approved_deploy(w: World) -> tuple[Actor, str, str]:
    """An agent, its token, and the id of its approved hold."""
    coder = await w.ready("coder", "deploy:staging")
    token = await w.token(coder)
    held = answer_in(await w.raw_call(token, "acme__deploy", DEPLOY))["result"]["_meta"][ENVELOPE]
    await w.answer(held["hold"], by="alice")
    return coder, token, held["hold"]


async def at_once(w: World, requests: list[bytes]) -> list[bytes]:
    """The answers to these requests, all of which become complete in the same moment."""
    said = [b""] * len(requests)
    streams = [await anyio.connect_tcp("127.0.0.1", w.config.listen_port) for _ in requests]
    for stream, request in zip(streams, requests, strict=True):
        await stream.send(request[:-1])

    async def finish(number: int) -> None:
        while not complete(said[number]):
            said[number] += await streams[number].receive()

    async with anyio.create_task_group() as group:
        for number, request in enumerate(requests):
            await streams[number].send(request[-1:])
            group.start_soon(finish, number)
    for stream in streams:
        await stream.aclose()
    return said


def http(w: World, token: str, lines: dict[str, str], body: Any) -> bytes:
    raw = json.dumps(body).encode()
    base = {
        "host": w.config.public_url.removeprefix("http://"),
        "authorization": f"Bearer {token}",
        "content-type": "application/json",
        "content-length": str(len(raw)),
    }
    written = "".join(f"{name}: {value}\r\n" for name, value in {**base, **lines}.items())
    return f"POST /mcp HTTP/1.1\r\n{written}\r\n".encode() + raw


async def test_fifty_collections_at_once_run_it_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        _, token, hold = await approved_deploy(w)
        modern = {"accept": "application/json", "mcp-protocol-version": MODERN}
        modern |= {"mcp-method": "tools/call", "mcp-name": "acme__deploy"}
        call = {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": "acme__deploy", "arguments": DEPLOY}}
        async with handshake(w, token) as session:
            older = {"accept": "application/json, text/event-stream", "mcp-session-id": session.session}
            requests = [
                http(w, token, modern, modern_call("acme__deploy", DEPLOY))
                if number % 5
                else http(w, token, older, {**call, "id": number})
                for number in range(AT_ONCE)
            ]
            answers = [json.loads(re.findall(rb'\{"jsonrpc.*\}', said)[-1]) for said in await at_once(w, requests)]
        got = Counter(outcome(answer) for answer in answers)
        assert len(w.deployments()) == 1
        assert got["done"] == 1 and got.total() == AT_ONCE, got
        assert set(got) <= {"done", "held running", "replayed", "denied"}, got
        assert (await w.store.hold(hold)).state is HoldState.DONE
        permits = [fields for fields in await w.decisions() if fields["decision"] == "permit"]
        assert len(permits) == 1


async def test_within_two_minutes_the_result_is_given_again_and_later_a_new_approval_is_asked_for(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as w:
        coder, token, hold = await approved_deploy(w)
        first = answer_in(await w.raw_call(token, "acme__deploy", DEPLOY))["result"]
        again = answer_in(await w.raw_call(token, "acme__deploy", DEPLOY))["result"]
        assert again["_meta"][ENVELOPE] == {**again["_meta"][ENVELOPE], "outcome": "replayed", "hold": hold}
        assert again["content"] == first["content"]

        w.clock.advance(limits.REPLAY_WINDOW + timedelta(seconds=1))
        later = answer_in(await w.raw_call(await w.token(coder), "acme__deploy", DEPLOY))["result"]["_meta"][ENVELOPE]
        assert later["outcome"] == "held" and later["hold"] != hold
        assert len(w.deployments()) == 1


async def test_an_approval_cannot_be_given_twice(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        _, token, hold = await approved_deploy(w)
        await w.raw_call(token, "acme__deploy", DEPLOY)
        with pytest.raises(Exception, match="done"):
            await w.answer(hold, by="alice")
        assert len(w.deployments()) == 1


FORM = {"capabilities": {"elicitation": {"form": {}}}}
YES = {"approval": {"action": "accept", "content": {"approve": True}}}


async def test_a_prompt_answered_fifty_times_at_once_runs_it_once(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy:staging", interactive=True)
        token = await w.token(coder)
        asked = answer_in(await w.raw_call(token, "acme__deploy", DEPLOY, **FORM))["result"]
        retry = {**FORM, "requestState": asked["requestState"], "inputResponses": YES}
        got: Counter[str] = Counter()

        async def collect() -> None:
            got[outcome(answer_in(await w.raw_call(token, "acme__deploy", DEPLOY, **retry)))] += 1

        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(collect)
        assert len(w.deployments()) == 1
        assert got["done"] == 1, got


async def question_of_a_server(w: World, hold_by: str | None, token: str) -> str:
    """The state under which a tool server asked something while the approved call ran."""
    question = '{"resultType":"input_required","requestState":"theirs"}'
    answer = answer_in(await w.raw_call(token, "spy__raw", {"result": question}))["result"]
    if hold_by is not None:
        await w.answer(answer["_meta"][ENVELOPE]["hold"], by=hold_by)
        answer = answer_in(await w.raw_call(token, "spy__raw", {"result": question}))["result"]
    return str(answer["requestState"])


async def test_a_retry_of_one_approved_run_does_not_ride_on_a_later_approval(tmp_path: Path) -> None:
    server = spy(tmp_path / "spy", tool("raw"))
    async with world(tmp_path, servers={"spy": server.config()}) as w:
        coder = await w.ready("coder", "spy:raw")
        token = await w.token(coder)
        arguments = {"result": '{"resultType":"input_required","requestState":"theirs"}'}
        state = await question_of_a_server(w, "alice", token)
        (first,) = await w.store.holds(states=[HoldState.CLAIMED])
        # The first run ends without its caller: as when the gateway was restarted while the question was open.
        await w.store.move_hold(first.id, come_from=HoldState.CLAIMED, to=HoldState.UNKNOWN, event=None)
        w.clock.advance(limits.REPLAY_WINDOW + timedelta(seconds=1))
        token = await w.token(coder)
        held = answer_in(await w.raw_call(token, "spy__raw", arguments))["result"]["_meta"][ENVELOPE]
        await w.answer(held["hold"], by="alice")

        await w.raw_call(token, "spy__raw", arguments, requestState=state, inputResponses={})
        await w.raw_call(token, "spy__raw", arguments)
        permits = [
            f for f in await w.decisions() if f["decision"] == "permit" and f["approval"]["hold"] == held["hold"]
        ]
        assert len(permits) == 1


async def test_a_question_of_a_server_is_answered_once(tmp_path: Path) -> None:
    server = spy(tmp_path / "spy", tool("raw"))
    async with world(tmp_path, servers={"spy": server.config()}) as w:
        coder = await w.ready("coder", "spy:raw")
        token = await w.token(coder)
        arguments = {"result": '{"resultType":"input_required","requestState":"theirs"}'}
        state = await question_of_a_server(w, "alice", token)
        before = server.heard.count(b'"theirs"')
        got: Counter[str] = Counter()

        async def answer() -> None:
            retry = {"requestState": state, "inputResponses": {}}
            message = answer_in(await w.raw_call(token, "spy__raw", arguments, **retry))
            got[message["result"].get("resultType", "") + outcome(message)] += 1

        async with anyio.create_task_group() as group:
            for _ in range(10):
                group.start_soon(answer)
        assert got["input_requireddone"] == 1, got
        assert server.heard.count(b'"requestState":"theirs"') - before <= 1
