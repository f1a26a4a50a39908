"""Held calls: nothing runs before a person says so, then exactly that call runs, once."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from mcp_authz.errors import Conflict
from mcp_authz.model import HoldState
from tests.road.places import BOTH
from tests.road.wire import wire
from tests.world import LEGACY, MODERN, Actor, Called, World, incident_server, world

DEPLOY = {"owner": "acme", "repo": "api", "environment": "staging", "version": "1.4.0"}
TWO_MINUTES = timedelta(minutes=2, seconds=1)


async def deploy(w: World, actor: Actor, mode: str, **other: Any) -> Called:
    """One call of the destructive tool by a stock client."""
    return await w.call(actor, "acme__deploy", mode, **{**DEPLOY, **other})


async def later(w: World, actor: Actor, mode: str) -> Called:
    """The same, at a time that a stock client would not sign in at, because its own clock tells another one."""
    async with wire(w, actor, mode, "deploy") as client:
        return Called(await (await client.call("acme__deploy", DEPLOY)).result())


def asking_more(directory: Path) -> dict[str, Any]:
    """The incident's server, where the operator wants a second rule met for deployments."""
    server = incident_server(directory)
    server["tools"]["deploy"]["approval"] = "release"
    return {"acme": server}


@BOTH
async def test_a_destructive_call_is_held_and_says_that_it_did_not_run(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy")
        held = await deploy(w, coder, mode)
        waiting = await w.store.hold(held.hold)
        assert w.deployments() == []
        assert [(f["decision"], f.get("hold")) for f in await w.decisions()][-1] == ("hold", held.hold)
    assert held.is_error and held.is_held
    assert held.text.startswith("Held, not executed") and held.hold in held.text
    assert waiting.state is HoldState.PENDING and waiting.arguments == DEPLOY


@BOTH
async def test_an_identical_call_joins_the_hold_and_another_one_does_not(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy")
        first, same = await deploy(w, coder, mode), await deploy(w, coder, mode)
        other = await deploy(w, coder, mode, version="6.6.6")
        waiting = await w.store.holds(states=(HoldState.PENDING,))
    assert same.hold == first.hold != other.hold
    assert [held.id for held in waiting] == [first.hold, other.hold]


@BOTH
async def test_an_approved_call_runs_once_and_is_then_told_again_but_not_run(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy")
        held = await deploy(w, coder, mode)
        await w.answer(held.hold, by="alice")
        ran, again = await deploy(w, coder, mode), await deploy(w, coder, mode)
        assert [made["version"] for made in w.deployments()] == ["1.4.0"]

        w.clock.advance(TWO_MINUTES)
        later = await deploy(w, coder, mode)
        assert len(w.deployments()) == 1
    assert not ran.is_error and not ran.envelope
    assert again.envelope["outcome"] == "replayed" and again.envelope["hold"] == held.hold
    assert again.result["structuredContent"] == ran.result["structuredContent"]
    assert later.is_held and later.hold != held.hold


async def test_an_approval_given_in_one_era_serves_the_same_call_in_the_other(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy")
        held = await deploy(w, coder, LEGACY)
        await w.answer(held.hold, by="alice")
        assert not (await deploy(w, coder, MODERN)).is_error
        assert len(w.deployments()) == 1


@BOTH
async def test_calls_that_come_at_once_after_an_approval_run_once_together(tmp_path: Path, mode: str) -> None:
    got: list[Called] = []

    async def call() -> None:
        got.append(await deploy(w, coder, mode))

    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy")
        await w.answer((await deploy(w, coder, mode)).hold, by="alice")
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(call)
        assert len(w.deployments()) == 1
    assert sum(not called.is_error and not called.envelope for called in got) == 1


@BOTH
async def test_a_call_that_a_person_denied_is_denied_and_not_asked_again(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy")
        held = await deploy(w, coder, mode)
        await w.answer(held.hold, by="alice", approve=False)
        denied = await deploy(w, coder, mode)
        assert w.deployments() == []
        assert await w.store.holds(states=(HoldState.PENDING,)) == ()
    assert denied.envelope["reason"] == "approval_denied" and "said no" in denied.text


@BOTH
async def test_time_that_runs_out_is_never_a_permit_and_the_next_call_is_held_anew(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy")
        held = await deploy(w, coder, mode)
        w.clock.advance(timedelta(minutes=16))
        with pytest.raises(Conflict):
            await w.answer(held.hold, by="alice")
        again = await later(w, coder, mode)
        assert w.deployments() == []
    assert again.is_held and again.hold != held.hold


@BOTH
async def test_an_approval_that_was_not_used_in_time_is_none(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy")
        held = await deploy(w, coder, mode)
        await w.answer(held.hold, by="alice")
        w.clock.advance(timedelta(minutes=16))
        again = await later(w, coder, mode)
        assert w.deployments() == []
    assert again.is_held and again.hold != held.hold


@BOTH
async def test_where_two_rules_apply_both_must_be_met(tmp_path: Path, mode: str) -> None:
    approval = {"destructive": {}, "release": {"by": ["user:bob"], "assurance": "signed-in"}}
    async with world(tmp_path, servers=asking_more(tmp_path), approval=approval) as w:
        await w.person("bob")
        coder = await w.ready("coder", "deploy")
        held = await deploy(w, coder, mode)
        await w.answer(held.hold, by="alice")
        still = await deploy(w, coder, mode)
        assert still.is_held and still.hold == held.hold
        assert w.deployments() == []

        await w.answer(held.hold, by="bob")
        assert not (await deploy(w, coder, mode)).is_error
        assert len(w.deployments()) == 1


@BOTH
async def test_an_approval_with_too_little_assurance_is_refused(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path, approval={"destructive": {"assurance": "passkey"}}) as w:
        coder = await w.ready("coder", "deploy")
        held = await deploy(w, coder, mode)
        with pytest.raises(Conflict, match="stronger proof"):
            await w.answer(held.hold, by="alice")
        assert (await deploy(w, coder, mode)).is_held
        assert w.deployments() == []


@BOTH
async def test_rules_that_ask_for_more_than_was_given_open_a_new_hold(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy")
        held = await deploy(w, coder, mode)
        await w.answer(held.hold, by="alice")
        people = w.approvers
    approval = {"release": {"by": ["user:bob"], "assurance": "signed-in"}}
    async with world(tmp_path, servers=asking_more(tmp_path), approval=approval) as w:
        w.approvers = people
        await w.person("bob")
        again = await deploy(w, coder, mode)
        assert again.is_held and again.hold != held.hold
        assert (await w.store.hold(held.hold)).state is HoldState.CANCELLED
        assert w.deployments() == []

        await w.answer(again.hold, by="alice")
        await w.answer(again.hold, by="bob")
        assert not (await deploy(w, coder, mode)).is_error
        assert len(w.deployments()) == 1


@BOTH
async def test_a_call_that_nobody_could_be_shown_whole_is_refused(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path) as w:
        coder = await w.ready("coder", "deploy")
        refused = await deploy(w, coder, mode, version="1" * 9_000)
        assert await w.store.holds() == ()
    assert refused.envelope["reason"] == "cannot_be_shown"
