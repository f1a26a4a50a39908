"""Row 52: a second policy would change answers. It only records: whatever it says, does, or fails to do."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_authz import limits, wiring
from mcp_authz.policy.engine import PolicyAnswer, PolicyInput
from mcp_authz.policy.loading import make_engine
from mcp_authz.policy.shadow import Shadow
from tests.road.places import plain
from tests.world import World, world

PERMIT = '@id("all") permit (principal, action, resource) when { context has session };'
DENY = '@id("none") forbid (principal, action, resource);'
SAY: dict[str, Any] = {"result": {"content": [{"type": "text", "text": "hello"}]}}


class Hostile:
    """A second policy that changes what it is given, and permits everything at once with what nobody can do."""

    digest = "hostile"

    async def evaluate(self, document: PolicyInput) -> PolicyAnswer:
        for value in (document, document["arguments"], document["arguments"]["result"]):
            if isinstance(value, dict):
                value.clear()
        raise RuntimeError("and then it fails")


class Stuck:
    """A second policy that blocks its thread, as a library without a time limit does."""

    digest = "stuck"

    def __init__(self) -> None:
        self.go_on = threading.Event()

    async def evaluate(self, document: PolicyInput) -> PolicyAnswer:
        self.go_on.wait(30)
        return PolicyAnswer(permit=True, because=())


def files(directory: Path, policy: str, shadow: str) -> dict[str, str]:
    """The configuration of these two policies."""
    (directory / "p.cedar").write_text(policy)
    (directory / "s.cedar").write_text(shadow)
    return {"policy": str(directory / "p.cedar"), "shadow_policy": str(directory / "s.cedar")}


def instead(monkeypatch: pytest.MonkeyPatch, engine: Any) -> None:
    """The second policy is this engine."""
    real = make_engine
    monkeypatch.setattr(
        wiring, "make_engine", lambda *given, key, **more: engine if key == "shadow_policy" else real(*given, key=key)
    )


async def say(w: World, times: int = 1) -> list[Mapping[str, Any]]:
    """What the agent gets for so many calls."""
    token = await w.token(await w.ready("coder", "use"), "use")
    answers = [(await w.raw_call(token, "plain__say", SAY)).text for _ in range(times)]
    return [json.loads(text[text.index("{") :])["result"] for text in answers]  # some come as a stream of one event


async def differences(w: World, count: int = 1) -> list[Mapping[str, Any]]:
    """The fields of so many records of the second policy, once they are there."""
    with anyio.fail_after(10):
        while len(found := [r.event for r in await w.records("policy")]) < count:  # noqa: ASYNC110 - the log has no event
            await anyio.sleep(0.02)
    return [{**event.fields, "call": event.call} for event in found]


async def test_a_call_that_only_the_second_policy_denies_runs_and_the_difference_is_recorded(tmp_path: Path) -> None:
    async with world(tmp_path, servers={"plain": plain()}, **files(tmp_path, PERMIT, DENY)) as w:
        (result,) = await say(w)
        (difference,) = await differences(w)
        decision = (await w.records("decision"))[-1].event
    assert result["content"] == SAY["result"]["content"]
    assert decision.fields["because"] == ["all"] and decision.fields["policy"] == difference["policy"]
    assert (difference["decided"], difference["would"], difference["because"]) == ("permit", "deny", ["none"])
    assert difference["call"] == decision.call and difference["shadow"] != difference["policy"]
    assert difference["tool"] == decision.fields["tool"]


async def test_a_call_that_only_the_second_policy_permits_does_not_run(tmp_path: Path) -> None:
    async with world(tmp_path, servers={"plain": plain()}, **files(tmp_path, DENY, PERMIT)) as w:
        (result,) = await say(w)
        (difference,) = await differences(w)
        assert await w.records("outcome") == ()
    assert result["isError"] and (difference["decided"], difference["would"]) == ("deny", "permit")


async def test_where_both_policies_agree_nothing_is_recorded(tmp_path: Path) -> None:
    rule = PERMIT.replace('"all"', '"by-another-name"')
    async with world(tmp_path, servers={"plain": plain()}, **files(tmp_path, PERMIT, rule)) as w:
        await say(w)
        shadow = w.running.parts.shadow
        assert isinstance(shadow, Shadow)
        with anyio.fail_after(10):
            await shadow.idle()
        assert await w.records("policy") == ()


async def test_a_second_policy_can_change_neither_the_call_nor_its_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instead(monkeypatch, Hostile())
    async with world(tmp_path, servers={"plain": plain()}, **files(tmp_path, PERMIT, DENY)) as w:
        (result,) = await say(w)
        (difference,) = await differences(w)
    assert result["content"] == SAY["result"]["content"]
    assert difference["reason"] == "policy_error" and difference["detail"] == "the engine failed: RuntimeError"


async def test_no_call_waits_for_a_second_policy_and_those_it_cannot_keep_up_with_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck = Stuck()
    instead(monkeypatch, stuck)
    for name, value in {"SHADOW_WAITING": 2, "SHADOW_AT_ONCE": 1, "SHADOW_TIME": timedelta(minutes=1)}.items():
        monkeypatch.setattr(limits, name, value)
    async with world(tmp_path, servers={"plain": plain()}, **files(tmp_path, PERMIT, DENY)) as w:
        results = await say(w, 8)
        shadow = w.running.parts.shadow
        assert isinstance(shadow, Shadow)
        left_out = shadow.left_out
        stuck.go_on.set()
    assert all(result["content"] == SAY["result"]["content"] for result in results)
    assert left_out == 5  # one is asked about, and two wait


async def test_a_gateway_starts_and_serves_with_a_second_policy_that_cannot_be_loaded(tmp_path: Path) -> None:
    async with world(tmp_path, servers={"plain": plain()}, **files(tmp_path, PERMIT, "permit (nonsense")) as w:
        (result,) = await say(w)
        told = await differences(w)
    assert result["content"] == SAY["result"]["content"]
    assert told[0]["key"] == "shadow_policy" and "s.cedar: cannot be parsed" in told[0]["error"]


async def test_a_flood_of_differences_is_counted_and_not_written_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "SHADOW_RECORDED", 2)
    async with world(tmp_path, servers={"plain": plain()}, **files(tmp_path, PERMIT, DENY)) as w:
        await say(w, 6)
        shadow = w.running.parts.shadow
        assert isinstance(shadow, Shadow)
        with anyio.fail_after(10):
            await shadow.idle()
        await shadow.record_counts()
        *single, counted = await differences(w, 3)
    assert len(single) == 2
    assert counted["differences"] == [{"decided": "permit", "would": "deny", "because": ["none"], "count": 4}]
