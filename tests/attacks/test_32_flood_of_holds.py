"""Row 32: an agent floods people with calls that are held: it is refused at its caps, and hinders nobody else."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import httpx2
import pytest

from mcp_authz import limits
from mcp_authz.model import HeldCall, HoldState
from mcp_authz.protocol.answers import ENVELOPE
from tests.attacks.attacker import answer_in
from tests.road.tasks import TASKS, ask, listening
from tests.road.waiting import nobody_waits
from tests.world import World, modern_call, world

SCOPE = "deploy:staging"
SOON = 15  # seconds, of the minute that a call may wait
MODERN = {"mcp-protocol-version": "2026-07-28", "mcp-method": "tools/call", "mcp-name": "acme__deploy"}


def deploy(version: str) -> dict[str, str]:
    return {"owner": "acme", "repo": "api", "environment": "staging", "version": version}


async def flood(w: World, token: str, versions: list[str], got: Counter[str]) -> None:
    """All of these calls at once, and what each was told."""
    lines = {"authorization": f"Bearer {token}", "accept": "application/json", **MODERN}
    bound = httpx2.Limits(max_connections=None)

    async def one(version: str) -> None:
        answer = await http.post(w.url, json=modern_call("acme__deploy", deploy(version)), headers=lines)
        envelope: dict[str, Any] = (answer_in(answer)["result"].get("_meta") or {}).get(ENVELOPE, {})
        got[str(envelope.get("reason") or envelope.get("outcome") or "done")] += 1

    async with httpx2.AsyncClient(timeout=90, limits=bound) as http, anyio.create_task_group() as group:
        for version in versions:
            group.start_soon(one, version)


async def pending(w: World) -> tuple[HeldCall, ...]:
    found: tuple[HeldCall, ...] = await w.store.holds(states=[HoldState.PENDING])
    return found


async def test_a_session_and_an_agent_have_so_many_held_calls_and_no_more(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        told: list[HeldCall] = []
        w.running.parts.holding._on_held = told.append
        await w.person("alice")
        coder = await w.agent("coder", ceiling=SCOPE)
        sessions = [await w.start(await w.grant("alice", "coder", SCOPE)) for _ in range(3)]
        got: Counter[str] = Counter()
        for number, (session, _) in enumerate(sessions):
            token = await w.token(coder, client_assertion=w.assertion(coder, session=session.id))
            await flood(w, token, [f"{number}.{n}" for n in range(limits.HOLDS_PER_SESSION + 10)], got)
            first = min(limits.HOLDS_PER_SESSION * (number + 1), limits.HOLDS_PER_AGENT)
            assert len(await pending(w)) == got["held"] == first
        assert got["too_many_holds"] == 3 * (limits.HOLDS_PER_SESSION + 10) - limits.HOLDS_PER_AGENT
        # The same again joins what waits already; nobody is told of it a second time.
        await flood(w, token, ["2.0"] * 20, got)
        assert len(await pending(w)) == len(told) == limits.HOLDS_PER_AGENT
        # Another agent has its own room, of the same person too; and each verdict makes room again.
        other = await w.ready("other", SCOPE)
        got.clear()
        await flood(w, await w.token(other), ["other"], got)
        assert got == {"held": 1}
        await w.answer((await pending(w))[0].id, by="alice", approve=False)
        await flood(w, token, ["one more"], got)
        assert got == {"held": 2}
        assert w.deployments() == []


async def test_who_waits_in_a_flood_of_others_hears_their_own_verdict_at_once(tmp_path: Path) -> None:
    async with world(tmp_path, waiting={"seconds": 60}) as w, anyio.create_task_group() as group:
        coder, other = await w.ready("coder", SCOPE), await w.ready("other", SCOPE)
        got: Counter[str] = Counter()
        many = [str(n) for n in range(limits.HOLDS_PER_SESSION)] * (limits.WAITING_PER_HOLD + 2)
        group.start_soon(flood, w, await w.token(coder), many, got)
        waiting = limits.HOLDS_PER_SESSION * limits.WAITING_PER_HOLD
        with anyio.fail_after(SOON):
            while got.total() < len(many) - waiting:  # noqa: ASYNC110 - clients have no event for this
                await anyio.sleep(0.02)
        assert got == {"held": len(many) - waiting}, "for those there was no place to wait"
        mine: Counter[str] = Counter()
        group.start_soon(flood, w, await w.token(other), ["mine"], mine)
        with anyio.fail_after(SOON):
            while not (held := [one for one in await pending(w) if one.actor == "other"]):  # noqa: ASYNC110
                await anyio.sleep(0.01)
        with anyio.fail_after(2):
            await w.answer(held[0].id, by="alice")
            while not mine:  # noqa: ASYNC110
                await anyio.sleep(0.01)
        assert mine == {"done": 1} and [one["version"] for one in w.deployments()] == ["mine"]
        group.cancel_scope.cancel()


async def test_who_calls_off_and_asks_again_is_not_heard_of_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "HOLDS_PER_SESSION", 4)
    async with world(tmp_path) as w:
        told: list[HeldCall] = []
        w.running.parts.holding._on_held = told.append
        token, got = await w.token(await w.ready("coder", SCOPE)), Counter[str]()
        for n in range(6):
            result = answer_in(await w.raw_call(token, "acme__deploy", deploy(str(n)), capabilities=TASKS))["result"]
            got[result["resultType"]] += 1
            if "taskId" in result:
                await ask(w, token, "tasks/cancel", result["taskId"])
        assert got == {"task": 4, "complete": 2}
        assert len(told) == 4 and not await pending(w)


async def test_one_agent_cannot_take_every_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LISTENERS_PER_AGENT", 3)
    async with world(tmp_path) as w, AsyncExitStack() as streams:
        coder, other = [await w.token(await w.ready(name, SCOPE)) for name in ("coder", "other")]
        kept: list[Any] = []

        async def first_word(token: str) -> dict[str, Any]:
            kept.append(await streams.enter_async_context(listening(w, token, toolsListChanged=True)))
            return dict(await anext(kept[-1]))

        for _ in range(3):
            assert "method" in await first_word(coder)
        assert "too many streams" in (await first_word(coder))["error"]["message"]
        assert "method" in await first_word(other)


async def test_who_does_not_read_keeps_no_place_among_those_who_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "WAIT_PROGRESS", timedelta(milliseconds=20))
    async with world(tmp_path, waiting={"seconds": 1}) as w:
        token, at = await w.token(await w.ready("coder", SCOPE)), urlsplit(w.url)
        # Each word of progress repeats the token: a few of them are more than a connection holds that nobody reads.
        body = json.dumps(modern_call("acme__deploy", deploy("1"), meta={"progressToken": "x" * 1_000_000})).encode()
        lines = {
            "host": at.netloc,
            "authorization": f"Bearer {token}",
            "accept": "application/json, text/event-stream",
            "content-type": "application/json",
            "content-length": str(len(body)),
            **MODERN,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        async with await anyio.connect_tcp("127.0.0.1", at.port or 0) as silent:
            await silent.send(f"POST {at.path} HTTP/1.1\r\n{head}\r\n".encode() + body)
            with anyio.fail_after(SOON):
                while not w.running.parts.waits.count:  # noqa: ASYNC110 - the gateway has no event for this
                    await anyio.sleep(0.01)
            with anyio.fail_after(5):
                await nobody_waits(w)
