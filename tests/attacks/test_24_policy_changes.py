"""Row 24: policy changes while a call is held or decided. What counts is the policy of when it would run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from mcp_authz import wiring
from mcp_authz.model import HoldState
from mcp_authz.policy.engine import PolicyAnswer, PolicyEngine, PolicyInput
from mcp_authz.policy.loading import make_engine
from mcp_authz.protocol.answers import ENVELOPE
from tests.road.places import plain
from tests.world import MODERN, World, modern_call, world

PERMIT = '@id("all") permit (principal, action, resource) when { context has session };'
DENY = PERMIT + '@id("none") forbid (principal, action, resource);'
MORE = PERMIT + '@id("more") @approval("second") permit (principal, action, resource) when { context has session };'
SECOND = {"second": {"by": ["user:bob"], "assurance": "signed-in"}, "destructive": {"assurance": "signed-in"}}
SAY: dict[str, Any] = {"result": {"content": [{"type": "text", "text": "hello"}]}}
DEPLOY = {"owner": "acme", "repo": "api", "environment": "staging", "version": "1"}


async def decides(w: World, policy: str) -> str:
    """The policy that is on disk now decides; its digest."""
    (w.directory / "p.cedar").write_text(policy)
    assert await w.running.policy.reload(w.store, w.clock, w.running.may_decide)
    return w.running.policy.digest


async def approved_call(w: World) -> Callable[[], Awaitable[Any]]:
    """A call that was held and is approved; call it to make it again, as its agent does."""
    coder = await w.ready("coder", "deploy")
    await w.person("bob")
    held = await w.call(coder, "acme__deploy", **DEPLOY)
    await w.answer(held.hold, by="alice")
    return lambda: w.call(coder, "acme__deploy", **DEPLOY)


@pytest.fixture
def policy(tmp_path: Path) -> str:
    """A policy that permits what a session covers; destructive calls are held all the same."""
    (tmp_path / "p.cedar").write_text(PERMIT)
    return str(tmp_path / "p.cedar")


async def test_a_held_call_that_policy_denies_by_now_does_not_run_although_it_was_approved(
    tmp_path: Path, policy: str
) -> None:
    async with world(tmp_path, policy=policy, approval=SECOND) as w:
        again = await approved_call(w)
        new = await decides(w, DENY)
        denied, last = await again(), (await w.decisions())[-1]
        assert w.deployments() == []
    assert denied.envelope["reason"] == "policy"
    assert (last["decision"], last["because"], last["policy"]) == ("deny", ["none"], new)


async def test_a_held_call_of_which_policy_asks_more_by_now_is_held_again(tmp_path: Path, policy: str) -> None:
    async with world(tmp_path, policy=policy, approval=SECOND) as w:
        again = await approved_call(w)
        (first,) = await w.store.holds()
        await decides(w, MORE)
        held = await again()
        assert held.is_held and held.hold != first.id and w.deployments() == []
        assert (await w.store.hold(first.id)).state is HoldState.CANCELLED
        assert [rule.name for rule in (await w.store.hold(held.hold)).rules] == ["destructive", "second"]


async def test_an_approval_stays_evidence_for_a_policy_that_asks_no_more(tmp_path: Path, policy: str) -> None:
    async with world(tmp_path, policy=policy, approval=SECOND) as w:
        again = await approved_call(w)
        new = await decides(w, PERMIT.replace('"all"', '"everything"'))
        assert not (await again()).is_error and len(w.deployments()) == 1
        assert (await w.decisions())[-1]["policy"] == new


class Slow:
    """An engine that takes its time to answer, as one elsewhere does; `meanwhile` happens before its answer arrives."""

    def __init__(self, engine: PolicyEngine, meanwhile: Callable[[], Awaitable[None]]) -> None:
        self._engine = engine
        self._meanwhile = meanwhile
        self.digest = engine.digest

    async def evaluate(self, document: PolicyInput) -> PolicyAnswer:
        answer = await self._engine.evaluate(document)
        await self._meanwhile()
        return answer


def slowly(monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[[], Awaitable[None]]) -> None:
    """Whatever policy the gateway loads takes its time."""
    real = make_engine
    monkeypatch.setattr(wiring, "make_engine", lambda *given, **more: Slow(real(*given, **more), meanwhile))


async def test_a_call_that_was_permitted_by_the_policy_before_is_decided_anew_before_it_runs(
    tmp_path: Path, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    todo: list[Callable[[], Awaitable[Any]]] = []

    async def meanwhile() -> None:
        if todo:
            await todo.pop()()

    slowly(monkeypatch, meanwhile)
    async with world(tmp_path, servers={"plain": plain()}, policy=policy) as w:
        token = await w.token(await w.ready("coder", "use"), "use")
        todo.append(lambda: decides(w, DENY))
        answer = (await w.raw_call(token, "plain__say", SAY)).json()
        (decision,) = await w.decisions()
        assert await w.records("outcome") == ()
    assert answer["result"]["_meta"][ENVELOPE]["reason"] == "policy"
    assert decision["because"] == ["none"] and decision["policy"] == w.running.policy.digest


async def test_a_policy_that_does_not_stop_changing_lets_nothing_run(
    tmp_path: Path, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions, changes = iter(range(100)), False

    async def meanwhile() -> None:
        nonlocal changes
        if changes:
            changes = False  # the canary of the new policy must not change it again
            await decides(w, f"{PERMIT} // {next(versions)}")
            changes = True

    slowly(monkeypatch, meanwhile)
    async with world(tmp_path, servers={"plain": plain()}, policy=policy) as w:
        token = await w.token(await w.ready("coder", "use"), "use")
        changes = True
        answer = (await w.raw_call(token, "plain__say", SAY)).json()
        changes = False
        assert await w.records("outcome") == ()
    assert answer["result"]["_meta"][ENVELOPE]["reason"] == "changed"


async def test_under_many_calls_each_decision_follows_from_the_policy_that_its_record_names(
    tmp_path: Path, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def meanwhile() -> None:
        await anyio.sleep(0.002)  # so that policies change between an answer and what follows from it

    slowly(monkeypatch, meanwhile)
    answers: list[int] = []
    async with world(tmp_path, servers={"plain": plain()}, policy=policy) as w:
        token = await w.token(await w.ready("coder", "use"), "use")
        meanings, over = {w.running.policy.digest: "permit"}, False
        announced = [w.running.policy.digest]

        headers = {"accept": "application/json, text/event-stream", "authorization": f"Bearer {token}"}
        headers |= {"mcp-protocol-version": MODERN, "mcp-method": "tools/call", "mcp-name": "plain__say"}
        body = modern_call("plain__say", SAY)

        async def keep_calling() -> None:
            while not over:
                answers.append((await http.post(w.url, json=body, headers=headers)).status_code)

        async with httpx2.AsyncClient(timeout=30) as http, anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(keep_calling)
            with anyio.fail_after(60):
                for number in range(20):
                    while len(answers) < 3 * number:  # noqa: ASYNC110 - for calls to be under way, between any two
                        await anyio.sleep(0.002)
                    announced.append(await decides(w, f"{PERMIT if number % 2 else DENY} // {number}"))
                    meanings[announced[-1]] = "permit" if number % 2 else "deny"
            over = True
        log = await w.records()
    assert set(answers) == {200}

    current, seen, permits = announced[0], [], 0
    for record in log:
        fields = record.event.fields
        if record.event.kind == "policy":
            assert fields["before"] == current
            current = fields["policy"]
            seen.append(current)
        if record.event.kind == "decision" and fields.get("reason") != "changed":
            assert fields["decision"] == meanings[fields["policy"]]
            assert fields["decision"] == "deny" or fields["policy"] == current  # nothing else is forwarded
            permits += fields["decision"] == "permit"
    assert seen == announced[1:]
    assert permits == sum(record.event.kind == "outcome" for record in log) > 10 and len(answers) > 60
