"""What an operator stops for everybody, and all of a subject's at once, at the command line."""

from __future__ import annotations

from datetime import timedelta

from mcp_authz.model import HoldState
from mcp_authz.principals import AgentName
from mcp_authz.sessions import Sessions
from mcp_authz.store.ports import Event
from tests.cli.desk import OPERATOR, Desk, held_call, hold, settle
from tests.cli.test_tools import seen_tools


async def test_a_tool_is_switched_off_until_its_definition_is_accepted(desk: Desk) -> None:
    await seen_tools(desk)
    would = desk.ok("revoke", "tool", "files__write", "--reason", "leaks", "--dry-run")
    assert "would be switched off" in would and not desk.json("tools", "list")[1]["off"]
    did = desk.ok("revoke", "tool", "files__write", "--reason", "leaks")
    assert "is switched off" in did and "tools accept files__write --expect" in did
    assert "switched off already" in desk.ok("revoke", "tool", "files__write", "--reason", "leaks")
    assert desk.json("tools", "list")[1]["off"] and "switched off" in desk.ok("tools", "list")
    digest = desk.json("tools", "diff", "files__write")["pinned"]["digest"]
    assert "is another one" in desk.refused("tools", "accept", "files__write", "--expect", "00" * 32)
    desk.ok("revoke", "server", "files", "--reason", "leaks")
    assert "as a whole" in desk.refused("tools", "accept", "files__write", "--expect", digest)
    desk.ok("tools", "accept", "--server", "files")
    assert not desk.json("tools", "list")[1]["off"]
    assert "not switched off" in desk.refused("tools", "accept", "--server", "files")
    assert "there is no server" in desk.refused("revoke", "server", "nowhere", "--reason", "x")
    kinds = [record["fields"]["of"] for record in desk.json("audit", "list", "--kind", "revocation")]
    assert sorted(kinds) == ["server", "tool"]


async def test_stop_all_is_said_first_until_start_all(desk: Desk) -> None:
    assert "would be stopped" in desk.ok("stop-all", "--reason", "leak", "--dry-run")
    assert desk.json("status")["stopped"] is None
    assert "are stopped" in desk.ok("stop-all", "--reason", "leak")
    assert "stopped before" in desk.ok("stop-all", "--reason", "again")
    assert desk.ok("status").startswith("ALL CALLS ARE STOPPED") and desk.json("status")["stopped"]["reason"] == "leak"
    assert "forwarded again" in desk.ok("start-all") and "were not stopped" in desk.ok("start-all")
    assert desk.json("status")["stopped"] is None


async def test_nobody_has_to_say_why_nothing_is_changed(desk: Desk) -> None:
    async with desk.open() as here:
        await settle(here)
    assert "would be stopped" in (said := desk.ok("stop-all", "--dry-run")) and "--reason WHY" in said
    assert "would be revoked" in (said := desk.ok("revoke", "agent", "coder", "--dry-run")) and "--reason WHY" in said
    for words in (("stop-all",), ("revoke", "agent", "coder"), ("stop-all", "--reason", "")):
        done = desk.run(*words)
        assert done.code == 2 and "say why with --reason" in done.err, done


async def test_everything_of_a_subject_before_a_time_ends_and_nothing_later(desk: Desk) -> None:
    async with desk.open() as here:
        cast = await settle(here)
        held = await hold(here, held_call(cast))
        sessions = Sessions(here.store, lambda: here.clock() + timedelta(minutes=5))
        later = await sessions.start(
            await sessions.grant("alice", "planner", scope=cast.root.scope, by=OPERATOR), purpose="later", by=OPERATOR
        )
        before = (await here.store.head())[0]
    asked = ("revoke", "everything", "--of", "agent:planner", "--before", "now", "--reason", "lost")
    would = desk.json(*asked, "--dry-run")
    assert would["ids"]["grant"] == [cast.session.grant] and would["ids"]["session"] == [cast.session.id]
    assert would["ids"]["link"] == [cast.root.id] and would["ids"]["key"] == [cast.planner.public.thumbprint]
    assert would["holds"] == [held.id]
    async with desk.open() as here:
        assert (await here.store.head())[0] == before
    assert {**desk.json(*asked), "dry_run": True} == would
    assert "nothing was changed" in desk.ok(*asked)
    async with desk.open() as here:
        assert (await here.store.head())[0] == before + 1
        assert (await here.store.hold(held.id)).state is HoldState.CANCELLED  # type: ignore[union-attr]
        grants = {grant.id: grant.status for grant in await here.store.grants()}
        assert grants == {cast.session.grant: "revoked", later[0].grant: "active"}
        assert (await here.store.link(later[1].id)).status == "active"  # type: ignore[union-attr]
        assert (await here.store.agent(AgentName("planner"))).status == "active"  # type: ignore[union-attr]
        event = Event(kind="revocation", at=here.clock(), fields={})
        of_alice = await here.store.sweep("user:alice", here.clock() + timedelta(hours=1), event)
        assert of_alice.ids["grant"] == (later[0].grant,) and of_alice.ids["key"] == ()
    assert "not come yet" in desk.refused(*asked[:5], "2999-01-01", *asked[6:])
    assert "neither user:NAME" in desk.refused("revoke", "everything", "--of", "x", "--before", "now", "--reason", "x")
