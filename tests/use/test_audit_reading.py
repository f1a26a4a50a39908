"""Pages of the log follow each other without gap or double, and what is shredded bit by bit is on record once."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from mcp_authz.audit_reading import look_ahead, look_back
from mcp_authz.halting import Halting
from mcp_authz.model import HoldId
from mcp_authz.rules.audit_filter import Filter
from mcp_authz.running import running_calls, stands_on
from mcp_authz.shredding import shred_now
from mcp_authz.store.evidence_port import OfCalls, Shredded
from mcp_authz.store.sqlite import SqliteStore
from tests.store.conftest import SEALER
from tests.store.world import START, Time, admission, event, grant, root, session, settle

WANTED = Filter(kind="policy")


async def test_pages_of_what_is_wanted_follow_each_other_without_gap_or_double(tmp_path: Path) -> None:
    store = SqliteStore.open(tmp_path / "store.db", sealer=SEALER, clock=Time())
    try:
        for number in range(24):
            await store.append(event("policy" if number % 3 else "administration", None, n=number))
        every = [it.sequence for it in await store.records(kind="policy")]
        back, before = list[int](), None
        while (found := await look_back(store, WANTED, 3, before=before)).records:
            back[:0] = [it.sequence for it in found.records]
            before = found.reached
        assert back == every
        ahead, after = list[int](), 0
        while (more := await look_ahead(store, WANTED, 3, after=after, before=None, at_most=7)).reached > after:
            ahead += [it.sequence for it in more.records]
            after = more.reached
        assert ahead == every
    finally:
        await store.aclose()


class Piecemeal:
    """A store that shreds one held call in each transaction."""

    def __init__(self, *holds: str) -> None:
        self.left, self.events = [HoldId(hold) for hold in holds], list[Any]()

    async def would_shred(self, _: Any) -> Shredded:
        return Shredded(holds=tuple(self.left), proofs=0, inputs=0, standing=0)

    async def shred(self, _: Any, event: Any) -> Shredded:
        self.events.append(event)
        gone, self.left = tuple(self.left[:1]), self.left[1:]
        return Shredded(holds=gone, proofs=0, inputs=0, standing=0)


async def test_what_takes_several_transactions_to_shred_is_on_record_once_with_all_of_it() -> None:
    store: Any = Piecemeal("h_1", "h_2", "h_3")
    what = OfCalls(holds=frozenset(), sequences=frozenset(), proofs=frozenset())
    gone = await shred_now(store, what, whose="of h", reason="x", by="user:op", at=START)
    assert gone.holds == ("h_1", "h_2", "h_3") and not store.left
    first, *others = store.events
    assert first.fields["holds"] == 3 and len(others) == 3 and others == [None] * 3
    assert (await shred_now(store, what, whose="of h", reason="x", by="user:op", at=START)).is_nothing
    assert len(store.events) == 4


async def test_a_sweep_names_the_running_calls_of_what_it_ends_and_no_others(tmp_path: Path) -> None:
    clock = Time()
    store = SqliteStore.open(tmp_path / "store.db", sealer=SEALER, clock=clock)
    try:
        await settle(store)
        later = replace(grant("g_later"), granted_at=START + timedelta(seconds=5))
        await store.add_grant(later, event())
        newer = replace(session("s_later", "g_later"), started_at=START + timedelta(seconds=5))
        await store.open_session(newer, replace(root("l_later", of="s_later"), issued_at=newer.started_at), event())
        for call, of, link in (("c_old", "s_1", "l_root"), ("c_new", "s_later", "l_later")):
            permit = event("decision", call, decision="permit", actor="agent:planner", session=of, links=[link])
            assert isinstance(await store.admit(replace(admission(call), event=permit)), int)
        clock.pass_(timedelta(seconds=9))
        halting = Halting(store, clock, servers=frozenset())
        before = START + timedelta(seconds=5)
        foreseen = await halting.foresee_sweep("agent:planner", before)
        assert [it.call for it in foreseen.running] == ["c_old"]
        assert await halting.sweep("agent:planner", before, reason="x", by="user:op") == foreseen
    finally:
        await store.aclose()


async def test_a_running_call_is_told_by_the_record_that_let_it_through_whatever_else_is_on_record_of_it(
    tmp_path: Path,
) -> None:
    store = SqliteStore.open(tmp_path / "store.db", sealer=SEALER, clock=Time())
    try:
        await settle(store)
        await store.append(event("decision", "c_1", decision="hold", actor="agent:coder", tool="files__held"))
        told = {"session": "s_1", "links": ["l_leaf"], "tool": "files__write", "server": "files"}
        permit = event("decision", "c_1", decision="permit", actor="agent:coder", **told)
        assert isinstance(await store.admit(replace(admission("c_1"), event=permit)), int)
        await store.append(event("administration", "c_1", actor="agent:coder", tool="files__asked"))
        (running,) = await running_calls(store)
        assert (running.tool, running.server) == ("files__write", "files")
        assert stands_on(running, "link", frozenset({"l_leaf"}))
        assert stands_on(running, "tool", frozenset({"files__write"}))
    finally:
        await store.aclose()
