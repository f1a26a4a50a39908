"""`policy shadow` at the command line, and where people read that the policy on disk is not what decides."""

from __future__ import annotations

from datetime import timedelta

from mcp_authz.installation import utc_now
from mcp_authz.store.ports import Event
from tests.cli.desk import Desk

DIFFERS = {
    "key": "shadow_policy",
    "actor": "agent:coder",
    "tool": "acme__deploy",
    "action": "deploy.create",
    "decided": "hold",
    "would": "deny",
    "because": ["no-deployments"],
    "obligations": [],
    "reason": "policy",
}
COUNTED = {
    "key": "shadow_policy",
    "left_out": 2,
    "differences": [{"decided": "permit", "would": "hold", "because": ["ask"], "count": 7}],
}


async def test_what_the_second_policy_would_decide_otherwise_is_listed_and_summed_up(desk: Desk) -> None:
    async with desk.open() as here:
        now = utc_now()
        await here.store.append(Event(kind="policy", at=now - timedelta(days=2), call="c_old", fields=DIFFERS))
        await here.store.append(Event(kind="policy", at=now, call="c_new", fields=DIFFERS))
        await here.store.append(Event(kind="policy", at=now, fields=COUNTED))
        await here.store.append(Event(kind="policy", at=now, fields={"key": "policy", "summary": "loaded anew"}))
    told = desk.ok("policy", "shadow")
    assert told.count("deploy.create") == 2 and "no-deployments" in told and "7 calls" in told
    assert "2 calls: hold now, deny then" in told and "7 calls: permit now, hold then" in told
    assert "2 calls were not compared" in told and "audit list --call c_new" in told
    listed = desk.json("policy", "shadow", "--since", "1h")
    assert [it["call"] for it in listed["differences"]] == ["c_new", None] and listed["left_out"] == 2


async def test_without_a_second_policy_it_says_how_to_have_one(desk: Desk) -> None:
    async with desk.open():
        pass
    assert "set `shadow_policy`" in desk.ok("policy", "shadow")


async def test_status_shows_a_policy_that_cannot_be_loaded_and_everything_else(desk: Desk) -> None:
    async with desk.open():
        pass
    desk.path("own.cedar").write_text("permit (nonsense")
    desk.configure('data_dir = "data"\npolicy = "own.cedar"\nshadow_policy = "gone.cedar"')
    assert "the gateway does not start: own.cedar: cannot be parsed" in desk.ok("status")
    assert desk.json("status")["policy"]["digest"] is None
    assert "`gone.cedar` cannot be read" in desk.ok("policy", "shadow")
