"""A commit that failed although it was one: who was told that nothing was done is right, as soon as the store works."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from mcp_authz.errors import StoreError, StoreInDoubt
from mcp_authz.model import HoldId, HoldState
from mcp_authz.rules.sentence import sentence
from mcp_authz.store.calls_port import Ending
from mcp_authz.store.sqlite import SqliteStore
from mcp_authz.store.transaction import Transaction
from tests.store.test_endings import begun_calls
from tests.store.test_sqlite_faults import assert_whole, busy, opened, soon
from tests.store.world import admission, approve, event, once, open_hold, settle, state_of

Fault = Callable[[SqliteStore, pytest.MonkeyPatch], None]


def after_the_commit(store: SqliteStore, patch: pytest.MonkeyPatch) -> None:
    """The next commit is one, and is said to have failed."""
    commit = store._pen.commit

    def fails() -> None:
        patch.setattr(store._pen, "commit", commit)
        commit()
        raise OSError(errno.EIO, "the disk said no too late")

    patch.setattr(store._pen, "commit", fails)


def instead_of_the_commit(store: SqliteStore, patch: pytest.MonkeyPatch) -> None:
    """The next commit is none."""
    commit = store._pen.commit

    def fails() -> None:
        patch.setattr(store._pen, "commit", commit)
        raise OSError(errno.EIO, "the disk said no")

    patch.setattr(store._pen, "commit", fails)


async def none_begun(store: SqliteStore) -> None:
    async with asyncio.timeout(20):
        while await begun_calls(store) or store.queued:  # noqa: ASYNC110 - the writer's thread has no event for this
            await asyncio.sleep(0.01)


async def test_a_call_that_was_admitted_by_a_commit_that_failed_ends_as_one_that_never_ran(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as store:
        await settle(store)
        await open_hold(store)
        await approve(store)
        after_the_commit(store, monkeypatch)
        with pytest.raises(StoreInDoubt, match="whether it was written cannot be said"):
            await store.admit(admission(claim=HoldId("h_1")))
        await none_begun(store)
        assert await state_of(store) is HoldState.FAILED and await store.under_way() == ()
        (outcome,) = [it.event for it in await store.records(kind="outcome")]
        assert (outcome.call, outcome.fields["outcome"], outcome.fields["ended_by"]) == ("c_1", "error", "store")
        assert outcome.fields["hold"] == "h_1" and sentence(outcome).endswith("error (store)")
        assert isinstance(await store.admit(admission("c_2", once=(once("x_2"),))), int)
        head = (await store.head())[0]
    assert_whole(path, head)


async def test_a_call_of_a_commit_that_was_none_leaves_nothing_and_can_be_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "store.db"
    async with opened(path) as store:
        await settle(store)
        await open_hold(store)
        await approve(store)
        before = (await store.head())[0]
        instead_of_the_commit(store, monkeypatch)
        with pytest.raises(StoreInDoubt):
            await store.admit(admission(claim=HoldId("h_1")))
        await none_begun(store)
        assert await state_of(store) is HoldState.APPROVED and (await store.head())[0] == before
        assert isinstance(await store.admit(admission(claim=HoldId("h_1"))), int)
        await store.append(event())  # whatever was to be undone is by now
        assert await begun_calls(store) == 1
        assert await state_of(store) is HoldState.CLAIMED and await store.records(kind="outcome") == ()
    assert_whole(path, before + 2)


async def test_calls_that_were_admitted_into_a_file_that_is_away_end_when_it_is_back(tmp_path: Path) -> None:
    path, away = tmp_path / "store.db", tmp_path / "away"

    def take_away(_: Transaction) -> None:
        path.rename(away)

    async with opened(path) as store:
        await settle(store)
        async with busy(store):
            calls = [soon(store.admit(admission(f"c_{n}", once=()))) for n in range(3)]
            taking = soon(store._write(take_away))
            await asyncio.sleep(0)
        answers = await asyncio.gather(*calls, taking, return_exceptions=True)
        assert all(isinstance(answer, StoreInDoubt) and "the file is gone" in str(answer) for answer in answers)
        with pytest.raises(StoreError, match="the file is gone"):
            await store.admit(admission("c_9"))
        away.rename(path)
        async with asyncio.timeout(20):
            while store.queued:  # noqa: ASYNC110 - the writer's thread has no event for this
                await asyncio.sleep(0.01)
        assert await begun_calls(store) == 0
        ends = [it.event.call for it in await store.records(kind="outcome")]
        permits = [it.event.call for it in await store.records(kind="decision")]
        assert sorted(map(str, ends)) == sorted(map(str, permits)) and "c_9" not in permits
        assert isinstance(await store.admit(admission("c_9")), int)


@pytest.mark.parametrize(
    ("fault", "expected"), [(after_the_commit, HoldState.FAILED), (instead_of_the_commit, HoldState.APPROVED)]
)
async def test_a_claim_without_a_call_is_undone_where_it_is_there_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: Fault, expected: HoldState
) -> None:
    async with opened(tmp_path / "store.db") as store:
        await settle(store)
        await open_hold(store)
        await approve(store)
        claim = event("decision", "c_1", decision="permit", hold="h_1")
        fault(store, monkeypatch)
        with pytest.raises(StoreInDoubt):
            await store.move_hold(HoldId("h_1"), come_from=HoldState.APPROVED, to=HoldState.CLAIMED, event=claim)
        await none_begun(store)
        await store.append(event())
        assert await state_of(store) is expected
        assert len(await store.records(kind="outcome")) == (expected is HoldState.FAILED)


async def test_a_call_that_goes_on_with_an_answer_is_begun_and_undone_with_the_approval_that_it_goes_on_by(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path / "store.db") as store:
        await settle(store)
        await open_hold(store)
        await approve(store)
        hold = HoldId("h_1")
        for call, by in (("c_1", {"claim": hold}), ("c_2", {"continues": hold})):  # asked, and answered
            assert isinstance(await store.admit(admission(call, **by)), int)
            rows = await store._writer.run(lambda tx: tx.db.execute("SELECT call, hold_id FROM begun").fetchall())
            assert rows == [(call, "h_1")]
            await store.end_call(Ending(call=call, event=event("outcome", call, outcome="asked"), hold=hold, to=None))
        after_the_commit(store, monkeypatch)
        with pytest.raises(StoreInDoubt):
            await store.admit(admission("c_3", continues=hold))
        await none_begun(store)
        assert await state_of(store) is HoldState.FAILED
        (undone,) = [it.event for it in await store.records(kind="outcome") if it.event.call == "c_3"]
        assert (undone.fields["hold"], undone.fields["ended_by"]) == ("h_1", "store")
