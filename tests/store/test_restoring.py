"""A backup in the store's place: what was open in it is void, what ended since has ended, and nothing is forgotten."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mcp_authz import limits
from mcp_authz.errors import Conflict, StoreError
from mcp_authz.model import HoldId, HoldState
from mcp_authz.principals import Agent, AgentName
from mcp_authz.rules.hold import may_follow
from mcp_authz.rules.scope import Scope
from mcp_authz.signing_key import USES
from mcp_authz.store import epoch
from mcp_authz.store.copying import copy, inspect
from mcp_authz.store.evidence_port import Before
from mcp_authz.store.offline import stored_head
from mcp_authz.store.ports import Lost, Once
from mcp_authz.store.restoring import Asked, Restored, restore
from mcp_authz.store.sqlite import SqliteStore
from mcp_authz.store.switch_port import Switch
from mcp_authz.store.witness import Mark
from tests.store.conftest import SEALER
from tests.store.world import (
    ALICE,
    CODER,
    MINUTE,
    PLANNER,
    START,
    Time,
    admission,
    agent,
    approve,
    event,
    held,
    key,
    open_hold,
    person,
    settle,
    state_of,
)


class Place:
    """A directory with a store, a backup of it, and the time."""

    def __init__(self, directory: Path) -> None:
        self.path, self.backup = directory / "store.db", directory / "kept.db"
        self.clock = Time()

    @asynccontextmanager
    async def open(self, **more: Any) -> AsyncIterator[SqliteStore]:
        store = SqliteStore.open(self.path, sealer=SEALER, clock=self.clock, **more)
        try:
            yield store
        finally:
            await store.aclose()

    def copy(self) -> Mark:
        return copy(self.path, self.backup, lambda *_: None)

    def restore(self, *, seen: tuple[Mark, ...] = (), **asked: Any) -> Restored:
        what = Asked(**{"backup": self.backup, "reason": "the disk broke", "by": "user:op", **asked})
        return restore(self.path, what, sealer=SEALER, clock=self.clock, seen=seen, told=lambda *_: None)

    def put_back(self) -> None:
        """What an operator does who knows no better."""
        shutil.copy(self.backup, self.path)
        for suffix in ("-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)

    async def refusal(self, **more: Any) -> str:
        with pytest.raises(StoreError) as refused:
            async with self.open(**more):
                pass
        return str(refused.value)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


async def backed_up(place: Place) -> None:
    """A backup with one approved call and one that waits, of a store that went on: the approval was used."""
    async with place.open() as store:
        await settle(store)
        await open_hold(store)
        await approve(store)
        await open_hold(store, held("h_2", digest=b"2" * 32))
        for use in USES:
            await store.begin_signing(use, use.ljust(32).encode)
        await store.secret("state-key", lambda: b"old")
        await store.secret("evidence-key", lambda: b"for good")
        place.copy()
        assert isinstance(await store.admit(admission(claim="h_1")), int)
    place.clock.pass_(MINUTE)


async def test_what_was_open_is_void_and_what_it_was_sealed_and_signed_with_is_made_anew(place: Place) -> None:
    await backed_up(place)
    before = stored_head(place.path)
    done = place.restore()
    assert (done.number, done.revocations_known) == (1, True)
    assert done.lost is not None and (done.lost.sequence, done.lost.hash) == before
    assert done.voided == {"holds": 2, "sessions": 1, "links": 2}
    async with place.open() as store:
        assert [await state_of(store, hold) for hold in ("h_1", "h_2")] == [HoldState.CANCELLED] * 2
        assert await store.admit(admission("c_2", claim="h_1")) == Lost(reason="revoked")
        for use in USES:
            old, new = await store.signing_keys(use)
            assert (old.status, old.seed, new.status) == ("revoked", None, "active")
        assert await store.secret("state-key", lambda: b"new") == b"new"
        assert await store.secret("evidence-key", lambda: b"new") == b"for good"
        (record,) = [one for one in await store.records() if "restored" in one.event.fields]
        assert record.event.fields["lost"]["hash"] == before[1].hex()
    assert done.replaced is not None and stored_head(done.replaced) == before


def test_a_hold_ends_along_the_closed_table_of_edges() -> None:
    assert all(may_follow(state, to) for state, to in epoch.ENDS.items())
    assert epoch.ENDS.keys() == {HoldState.PENDING, HoldState.APPROVED, HoldState.CLAIMED}


def test_every_secret_of_the_store_is_either_renewed_or_kept() -> None:
    sources = "".join(path.read_text() for path in Path(epoch.__file__).parent.parent.rglob("*.py"))
    named = {part.split('"')[1] for part in sources.replace("(\n", "(").split(".secret(")[1:] if '"' in part[:30]}
    assert {*named, "sealing-key-check"} <= epoch.RENEWED | epoch.KEPT
    assert not epoch.RENEWED & epoch.KEPT


async def test_what_was_revoked_or_narrowed_since_the_backup_is_so_afterwards(place: Place) -> None:
    async with place.open() as store:
        await settle(store)
        await store.add_person(person("bob"), event())
        await store.add_agent(agent("tester"), key("agent:tester"), event())
        await store.add_key(key("agent:coder", "2"), event(), retire_others_at=None)
        place.copy()
        await store.revoke("agent", "tester", event())
        await store.revoke("key", "agent:coder/2", event())
        await store.revoke("person", "bob", event())
        await store.switch_off(Switch(server="files", tool="read", since=START, by="user:op", reason="leaks"), event())
        narrower = replace(agent(PLANNER), ceiling=frozenset({Scope("pr:read")}), roles=frozenset(), depth=1)
        await store.update_agent(narrower, event())
        await store.add_agent(agent("late"), key("agent:late"), event())
        await store.add_key(key("agent:planner", "2"), event(), retire_others_at=START + MINUTE)
    place.clock.pass_(2 * MINUTE)
    done = place.restore()
    assert done.ended["agent"] == ["tester"] and done.ended["person"] == ["bob"]
    assert done.ended["switch"] == ["files/read"] and done.ended["authority"] == ["agent:planner"]
    assert sorted(done.ended["key"]) == ["agent:coder/2", "agent:planner/1"]
    assert done.missing == {"agent": ["late"], "key": ["agent:late/1", "agent:planner/2"]}
    assert done.keyless == ("planner",)  # it has a new key that is lost, and its old one may be somebody else's
    async with place.open() as store:
        standing = {one.name: one.status for one in await store.agents()}
        assert standing == {CODER: "active", PLANNER: "active", AgentName("tester"): "revoked"}
        planner = await store.agent(PLANNER)
        assert isinstance(planner, Agent)
        assert (set(planner.ceiling), set(planner.roles), planner.depth) == ({Scope("pr:read")}, set[str](), 1)
        assert [one.tool for one in await store.switched_off()] == ["read"]


async def test_what_is_dated_before_the_epoch_does_not_count_once_again(place: Place) -> None:
    async with place.open() as store:
        place.copy()
        used = Once(kind="dpop", id="1", expires_at=START + MINUTE, issued_at=START + MINUTE)  # a clock that is fast
        assert await store.remember(used)
    place.clock.pass_(MINUTE / 2)
    place.restore()
    async with place.open() as store:
        early = replace(used, id="2", issued_at=place.clock() - MINUTE / 60)
        assert not await store.remember(early)
        assert not await store.remember(used)
        assert await store.remember(replace(early, id="3", issued_at=place.clock()))


async def test_without_a_newer_store_nobody_gets_in_but_those_who_are_named(place: Place) -> None:
    await backed_up(place)
    place.path.write_bytes(b"no database at all, not any more")
    with pytest.raises(StoreError, match="what was revoked since the backup is not known"):
        place.restore()
    done = place.restore(revocations_unknown=True, good=frozenset({"agent:coder"}))
    assert not done.revocations_known and done.ended["key"] == ["agent:planner/1"]
    assert done.ended["switch"] == ["everything"] and done.keyless == ("planner",)
    async with place.open() as store:
        late = Once(kind="dpop", id="1", expires_at=place.clock() + MINUTE, issued_at=place.clock())
        assert not await store.remember(late)  # by a clock that is fast it may have been used before
        made_at = place.clock() + limits.CLOCK_SKEW
        assert await store.remember(replace(late, id="2", issued_at=made_at))


@pytest.mark.parametrize("named", [True, False])
async def test_a_replaced_store_that_is_not_the_newest_does_not_say_what_was_revoked(place: Place, named: bool) -> None:
    await backed_up(place)
    newest = place.path.with_name("newest.db")
    copy(place.path, newest, lambda *_: None)
    place.put_back()
    assert "was put back: its log ends at record" in await place.refusal()
    for backup in (None, place.backup):  # what lies there knows no more than the backup, as its witness shows
        with pytest.raises(StoreError, match="what was revoked since the backup is not known"):
            place.restore(backup=backup)
    done = (
        place.restore(backup=None, since=(newest,)) if named else place.restore(backup=None, revocations_unknown=True)
    )
    assert done.revocations_known is named
    async with place.open() as store:
        assert await state_of(store) is HoldState.CANCELLED


@pytest.mark.parametrize("what", ["behind", "another", "no witness"])
async def test_a_store_that_was_put_back_behind_our_back_is_not_opened(place: Place, what: str) -> None:
    witness = place.path.with_name("store.db.witness")
    async with place.open() as store:
        await store.append(event())
        place.copy()
        await store.append(event())
    if what == "behind":
        place.put_back()
        assert "its log ends at record 1, and record 2 had been written, says its witness" in await place.refusal()
    elif what == "another":
        said = witness.read_bytes()
        place.put_back()
        witness.unlink()
        witness.write_bytes(b"torn")  # as good as none
        async with place.open() as store:
            await store.append(event("pin"))
        witness.write_bytes(said)
        assert "record 2 is another one than had been written" in await place.refusal()
    else:
        witness.unlink()
        assert "`store.db.witness` is not beside it" in await place.refusal()
    assert 'mcp-authz restore --in-place --reason "..."' in await place.refusal()


async def test_what_a_checkpoint_says_counts_as_a_witness(place: Place) -> None:
    async with place.open() as store:
        await store.append(event())
    mark = Mark(epoch=0, sequence=7, hash=bytes(32), by="the checkpoint in `checkpoints.txt`")
    assert "says the checkpoint in `checkpoints.txt`" in await place.refusal(seen=(mark,))


async def test_nothing_is_restored_under_a_process_that_has_the_store_open(place: Place) -> None:
    async with place.open():
        place.copy()
        with pytest.raises(Conflict, match="a process has store"):
            place.restore()
    assert place.restore(dry_run=True).number == 1
    async with place.open() as store:  # a rehearsal changes nothing
        assert not [one for one in await store.records() if "restored" in one.event.fields]
    assert sorted(path.name for path in place.path.parent.iterdir()) == [
        "kept.db", "store.db", "store.db.lock", "store.db.witness",
    ]  # fmt: skip


async def test_an_epoch_is_never_begun_twice_whichever_backup_is_restored(place: Place) -> None:
    async with place.open() as store:
        await store.append(event())
        place.copy()
    for number in (1, 2, 3):
        place.clock.pass_(MINUTE)
        assert place.restore().number == number
    place.put_back()
    assert "it is of epoch 0, and epoch 3 had begun" in await place.refusal()


async def test_a_copy_is_of_one_moment_although_others_write_meanwhile(place: Place) -> None:
    async with place.open() as store:
        await settle(store)
        for _ in range(500):
            await store.append(event(text="x" * 20_000))
        seen = list[int]()

        def write_between(done: int, of: int) -> None:
            seen.append(done)
            with closing(sqlite3.connect(place.path, timeout=5)) as other, other:
                other.execute("UPDATE people SET member_of = ? WHERE name = ?", (f'["g{done}"]', ALICE))

        mark = copy(place.path, place.backup, write_between)
    assert len(seen) > 1 and inspect(place.backup).mark == mark
    with closing(sqlite3.connect(place.backup)) as db:
        assert db.execute("SELECT member_of FROM people WHERE name = ?", (ALICE,)).fetchone() == ('["developers"]',)
    assert place.backup.stat().st_mode & 0o777 == 0o600
    assert not place.backup.with_name("kept.db-wal").exists()


async def test_what_was_shredded_since_the_backup_has_no_values_in_it_either(place: Place) -> None:
    async with place.open() as store:
        await settle(store)
        await open_hold(store)
        await approve(store)
        said = replace(event("decision", "c_2"), signed="a.b.c", input={"arguments": "x"})
        await store.append(said)
        await store.move_hold(HoldId("h_1"), come_from=HoldState.APPROVED, to=HoldState.CANCELLED, event=None)
        place.copy()
        place.clock.pass_(MINUTE)
        assert not (await store.shred(Before(at=place.clock()), event())).is_nothing
    done = place.restore()
    assert done.ended["values"] == ["h_1"]
    with closing(sqlite3.connect(place.path)) as db:
        held_ = db.execute("SELECT arguments, result, digest FROM holds").fetchall()
        assert held_ == [(b"", None, bytes(32))]
        for table in ("tasks", "evidence", "inputs", "standing_approvals"):
            assert db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table  # noqa: S608 - constants


async def test_a_backup_of_another_branch_is_not_vouched_for_by_a_store_that_never_knew_it(place: Place) -> None:
    """Also where the record by which they part was pruned: the epochs of the store tell which way it came."""
    async with place.open() as store:
        await settle(store)
        place.copy()
        early = place.backup.rename(place.path.with_name("early.db"))
        for _ in range(3):
            await store.append(event())
        place.copy()
    place.restore(backup=early)
    async with place.open() as store:
        for _ in range(9):
            await store.append(event())
    with closing(sqlite3.connect(place.path)) as db, db:
        db.execute("DROP TRIGGER log_is_never_cut")
        db.execute("DELETE FROM log WHERE sequence < 15")
    with pytest.raises(StoreError, match="what was revoked since the backup is not known"):
        place.restore()
