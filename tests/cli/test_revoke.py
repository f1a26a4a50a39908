"""Revoking at the command line: one verb, which says what it stops."""

from __future__ import annotations

import pytest

from mcp_authz.principals import AgentName
from mcp_authz.revocation import Revocation
from mcp_authz.store.ports import RevocableKind
from tests.cli.desk import OPERATOR, Cast, Desk, held_call, hold, settle


@pytest.mark.parametrize("kind", ["link", "session", "grant", "agent", "person", "hold", "key"])
async def test_a_dry_run_says_what_would_happen_and_then_it_does(desk: Desk, kind: RevocableKind) -> None:
    async with desk.open() as here:
        cast = await settle(here)
        held = await hold(here, held_call(cast))
        of_planner = held_call(cast, actor=AgentName("planner"), chain=(AgentName("planner"),))
        await hold(here, of_planner)
        names = {
            "link": cast.leaf.id,
            "session": cast.session.id,
            "grant": cast.session.grant,
            "agent": "coder",
            "person": "alice",
            "hold": held.id,
            "key": cast.coder.public.thumbprint,
        }
        revocation = Revocation(here.store, here.clock)
        before = await here.store.head()
        foreseen = await revocation.foresee(kind, names[kind])
        assert await here.store.head() == before
        assert await revocation.revoke(kind, names[kind], reason="test", by=OPERATOR) == foreseen
        assert (await revocation.foresee(kind, names[kind])).already
        stopped = (len(foreseen.links), len(foreseen.holds))
    expected = {"link": (1, 1), "agent": (1, 1), "hold": (0, 1), "key": (0, 1)}
    assert stopped == expected.get(kind, (2, 2))


@pytest.fixture
async def cast(desk: Desk) -> Cast:
    async with desk.open() as here:
        return await settle(here)


async def test_revoking_a_link_stops_it_and_nobody_else(desk: Desk, cast: Cast) -> None:
    async with desk.open() as here:
        held = await hold(here, held_call(cast))
    would = desk.ok("revoke", "link", cast.leaf.id[:12], "--reason", "leaked", "--dry-run")
    assert "would stop: agent coder for alice" in would and f"would stop: held call {held.id}" in would
    assert desk.json("holds", "list")[0]["state"] == "pending"
    did = desk.ok("revoke", "link", cast.leaf.id[:12], "--reason", "leaked")
    assert did.startswith(f"link {cast.leaf.id} is revoked") and f"stopped: held call {held.id}" in did
    states = {link["holder"]: link["state"] for link in desk.json("session", "show", cast.session.id)["links"]}
    assert states == {"planner": "open", "coder": "revoked"}
    assert desk.json("holds", "list") == []
    record = desk.json("audit", "list", "--kind", "revocation")[0]
    assert record["fields"]["reason"] == "leaked" and record["fields"]["by"].startswith("user:")


async def test_revoking_twice_changes_nothing_and_says_so(desk: Desk, cast: Cast) -> None:
    desk.ok("revoke", "agent", "coder", "--reason", "leaked")
    assert "revoked already; nothing was changed" in desk.ok("revoke", "agent", "coder", "--reason", "again")
    assert len(desk.json("audit", "list", "--kind", "revocation")) == 1


async def test_revoking_a_person_names_the_agents_that_go_on(desk: Desk, cast: Cast) -> None:
    assert "still active, owned by alice: coder planner" in desk.ok("revoke", "person", "alice", "--reason", "left")


async def test_a_name_is_written_whole_and_an_id_is_not_empty(desk: Desk, cast: Cast) -> None:
    assert "there is no agent `code`" in desk.refused("revoke", "agent", "code", "--reason", "x")
    assert "there is no session ``" in desk.refused("revoke", "session", "", "--reason", "x")
    assert "there is no grant `g_`" in desk.refused("revoke", "grant", "g_", "--reason", "x")
    assert desk.run("revoke", "everything", "x", "--reason", "x").code == 2
