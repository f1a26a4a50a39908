"""Rows 33, 34: what a standing approval rests on has ended: its time, giver, key or passkey, the agent, the session."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from mcp_authz.model import HoldState, StandingId
from mcp_authz.principals import PersonName
from mcp_authz.revocation import Revocation
from mcp_authz.store.ports import Admission, Event
from tests.attacks.test_27_standing_by_an_agent import Calls, dropping
from tests.standing import ANY, give
from tests.world import OPERATOR, World, world

MORE = {"destructive": {"by": ["group:ops"], "assurance": "signed-in"}}


async def given(w: World, call: Calls, n: str, by: str = "bob", **more: Any) -> StandingId:
    """A standing approval that was given with this call, which has run."""
    id_ = await give(w, (await call.envelope(n))["hold"], by=by, n=ANY, **more)
    assert await call(n) == "done"
    return id_


async def test_it_counts_until_its_time_is_up(tmp_path: Path) -> None:
    server, servers = dropping(tmp_path)
    async with world(tmp_path, servers=servers) as w:
        coder = await w.ready("coder", "spy:drop")
        await given(w, Calls(w, await w.token(coder)), "1", by="alice", minutes=3)
        w.clock.advance(timedelta(minutes=2))
        assert await Calls(w, await w.token(coder))("2") == "done"
        w.clock.advance(timedelta(minutes=1, seconds=1))
        assert await Calls(w, await w.token(coder))("3") == "held"
        assert len(server.ran) == 2


@pytest.mark.parametrize("kind", ["time", "approval", "key", pytest.param("person", marks=pytest.mark.thorough)])
async def test_a_call_that_it_approved_is_not_admitted_any_more_once_it_ended(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, servers = dropping(tmp_path)
    async with world(tmp_path, servers=servers, approval={**MORE, "session": {}}) as w:
        await w.person("bob", "ops")
        coder = await w.ready("coder", "spy:drop")
        call = Calls(w, await w.token(coder))
        id_ = await given(w, call, "1", minutes=2)
        admit, holds = w.store.admit, []
        names = {"approval": id_, "key": w.approvers["bob"].public.thumbprint, "person": "bob"}

        async def late(admission: Admission) -> Any:  # it ends between the second evaluation and the transaction
            if not holds:
                holds.append(admission.claim)
                if kind == "time":
                    w.clock.advance(timedelta(minutes=2, seconds=1))
                else:
                    revocation = Revocation(w.store, w.clock)
                    assert (await revocation.foresee(kind, names[kind])).holds == (admission.claim,)  # type: ignore[arg-type]
                    await revocation.revoke(kind, names[kind], reason="x", by=OPERATOR)  # type: ignore[arg-type]
            return await admit(admission)

        monkeypatch.setattr(w.store, "admit", late)
        assert await call("2") != "done" and len(server.ran) == 1
        over = HoldState.EXPIRED if kind == "time" else HoldState.CANCELLED
        assert (await w.store.hold(holds[0])).state is over
        assert await Calls(w, await w.token(coder))("3") == "held" and len(server.ran) == 1


@pytest.mark.parametrize(
    "kind", ["session", *(pytest.param(kind, marks=pytest.mark.thorough) for kind in ("grant", "agent", "person"))]
)
async def test_it_ends_with_what_it_is_about(tmp_path: Path, kind: str) -> None:
    server, servers = dropping(tmp_path)
    async with world(tmp_path, servers=servers, approval={**MORE, "session": {}}) as w:
        await w.person("bob", "ops")
        coder = await w.ready("coder", "spy:drop")
        await given(w, Calls(w, await w.token(coder)), "1")
        (session,) = await w.store.sessions()
        name = {"session": session.id, "grant": session.grant, "agent": "coder", "person": "alice"}[kind]
        token = await w.token(coder)
        await Revocation(w.store, w.clock).revoke(kind, name, reason="x", by=OPERATOR)  # type: ignore[arg-type]
        answer = await w.raw_call(token, "spy__drop", {"n": "2"})
        assert answer.status_code == 401 or '"denied"' in answer.text
        assert len(server.ran) == 1


async def test_a_giver_counts_by_what_they_may_do_and_what_the_rule_says_now(tmp_path: Path) -> None:
    server, servers = dropping(tmp_path)
    async with world(tmp_path, servers=servers, approval={**MORE, "session": {}}) as w:
        await w.person("bob", "ops")
        coder = await w.ready("coder", "spy:drop")
        await given(w, Calls(w, await w.token(coder)), "1")
    for n, rule, how in (("2", {"assurance": "passkey"}, "held"), ("3", {"by": ["user:bob"], "reason": False}, "done")):
        changed = {"destructive": {**MORE["destructive"], **rule}, "session": {}}
        async with world(tmp_path, servers=servers, approval=changed) as w:
            assert await Calls(w, await w.token(coder))(n) == how
    async with world(tmp_path, servers=servers, approval={**MORE, "session": {}}) as w:
        left = Event(kind="administration", at=w.clock(), fields={"summary": "bob left"})
        await w.store.set_groups(PersonName("bob"), frozenset(), left)
        assert await Calls(w, await w.token(coder))("4") == "held"
    assert [arguments["n"] for _, arguments in server.ran] == ["1", "3"]
