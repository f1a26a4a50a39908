"""Row 28: an approver's client that accepts by itself is recorded as such, and is not heard where more is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcp_authz.audit import sentence
from mcp_authz.model import Assurance, HoldState
from tests.approving import DECIDE_ONE, DEPLOY, DEPLOYS, SCOPE, Approver, at_client, said, verdicts, waits
from tests.road.places import BOTH
from tests.world import world

EVERYTHING = {"answer": "approve", "approve": True, "reason": "sure", "assurance": "passkey", "person": "bob"}


@BOTH
async def test_what_it_accepts_is_recorded_as_answered_in_another_client(tmp_path: Path, mode: str) -> None:
    async with world(tmp_path) as w:
        coder, hold = await waits(w)
        desk = await w.client_agent("desk", "alice", scope=SCOPE)
        async with at_client(w, desk, mode, elicitation_callback=Approver(EVERYTHING)) as client:
            await said(client, DECIDE_ONE, hold=hold)
        (verdict,) = (await w.store.hold(hold)).verdicts
        assert not (await w.call(coder, DEPLOYS, **DEPLOY)).is_error
        (record,) = [r.event for r in await w.records("approval") if "verdict" in r.event.fields]
        permit = (await w.decisions())[-1]
    assert (verdict.person, verdict.assurance) == ("alice", Assurance.CLIENT_OTHER)
    assert permit["approval"]["assurance"] == "client-other" and "client-other" in sentence(record)


@pytest.mark.parametrize("assurance", ["signed-in", pytest.param("passkey", marks=pytest.mark.thorough)])
@BOTH
async def test_it_approves_nothing_where_a_rule_asks_for_more(tmp_path: Path, assurance: str, mode: str) -> None:
    async with world(tmp_path, approval={"destructive": {"assurance": assurance}}) as w:
        coder, hold = await waits(w)
        desk = await w.client_agent("desk", "alice", scope=SCOPE)
        accepting = Approver(EVERYTHING)
        async with at_client(w, desk, mode, elicitation_callback=accepting) as client:
            told = await said(client, DECIDE_ONE, hold=hold)
        assert [one.mode for one in accepting.asked] == ["url"] and "waits for your answer there" in told
        assert (await w.store.hold(hold)).state is HoldState.PENDING and await verdicts(w) == []
        assert (await w.call(coder, DEPLOYS, **DEPLOY)).is_held
