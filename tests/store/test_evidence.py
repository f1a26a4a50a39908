"""What was signed is kept once, sealed; and what has argument values can be shredded so that no byte of it is left."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from mcp_authz.model import HoldId, HoldState
from mcp_authz.rules.evidence_name import name_of
from mcp_authz.store.evidence_port import Before, OfCalls
from mcp_authz.store.ports import Event, Store
from mcp_authz.store.sqlite import SqliteStore
from tests.store.conftest import SEALER
from tests.store.world import Time, approve, event, held, open_hold, settle

H1 = HoldId("h_1")
PROOF = "eyJhbGciOiJFZERTQSJ9." + "canary" * 400 + ".c2lnbmF0dXJl"  # long enough for pages of its own
KEPT = {"document": {"arguments": {"note": "canary" * 2000}}}


def open_(directory: Path, *, clock: Time, **more: timedelta) -> SqliteStore:
    return SqliteStore.open(directory / "store.db", sealer=SEALER, clock=clock, **more)


def call(at: Time, name: str = "c_1", *, signed: str | None = PROOF) -> Event:
    fields = {} if signed is None else {"proof_digest": name_of(signed)}
    return Event(kind="decision", at=at(), call=name, fields=fields, input=KEPT, signed=signed)


def sealed(path: Path) -> list[bytes]:
    """Every sealed value that could have an argument, as its ciphertext stands in the file."""
    with closing(sqlite3.connect(path)) as db:
        found: list[bytes] = []
        for column in ("body FROM evidence", "sealed FROM inputs", "arguments FROM holds", "result FROM holds"):
            found += [value for (value,) in db.execute(f"SELECT {column}") if value]
    return found


def left(path: Path, values: Iterable[bytes]) -> int:
    """How many pieces of these are somewhere in the store's file or its write-ahead log."""
    files = [path, path.with_name(f"{path.name}-wal")]
    held = b"".join(file.read_bytes() for file in files if file.exists())
    pieces = [value[at : at + 24] for value in values for at in range(0, len(value) - 24, 1024)]
    return sum(piece in held for piece in pieces)


async def test_what_was_signed_is_kept_once_and_sealed(tmp_path: Path) -> None:
    at = Time()
    store = open_(tmp_path, clock=at)
    try:
        for name in ("c_1", "c_2"):  # a call that is decided again has the same proof
            await store.append(call(at, name))
        assert await store.signed([name_of(PROOF), name_of("another"), "none"]) == (PROOF, None, None)
    finally:
        await store.aclose()
    path = tmp_path / "store.db"
    assert len(sealed(path)) == 3 and b"canary" not in path.read_bytes()


async def over(store: Store, **changes: Any) -> None:
    """A held call that somebody approved, and that has run."""
    await open_hold(store, held(**changes))
    await approve(store)
    for come_from, to in ((HoldState.APPROVED, HoldState.CLAIMED), (HoldState.CLAIMED, HoldState.DONE)):
        result = {"content": "x" * 5000} if to is HoldState.DONE else None
        await store.move_hold(H1, come_from=come_from, to=to, event=None, result=result)


async def test_no_byte_of_what_was_shredded_is_in_the_file_or_its_write_ahead_log(tmp_path: Path) -> None:
    at, path = Time(), tmp_path / "store.db"
    store = open_(tmp_path, clock=at)
    try:
        await settle(store)
        await over(store)
        await store.append(call(at))
        values = sealed(path)
        assert len(values) == 5 and left(path, values) > 12
        what = OfCalls(
            holds=frozenset({H1}),
            sequences=frozenset({(await store.head())[0]}),
            proofs=frozenset({name_of(PROOF)}),
        )
        foreseen = await store.would_shred(what)
        assert left(path, values) > 12  # nothing was changed
        gone = await store.shred(what, event("administration"))
        assert gone == foreseen and (gone.holds, gone.proofs, gone.inputs) == ((H1,), 1, 1)
        assert left(path, values) == 0
        held = await store.hold(H1)
        assert held is not None and held.shredded_at is not None
        assert (held.arguments, held.result, held.digest, held.verdicts[0].statement) == ({}, None, bytes(32), "")
        assert (await store.shred(what, event("administration"))).is_nothing
        assert [record.event.kind for record in await store.records()].count("administration") == 1
    finally:
        await store.aclose()


async def test_no_byte_stays_where_a_row_was_before_it_grew(tmp_path: Path) -> None:
    at, path = Time(), tmp_path / "store.db"
    store = open_(tmp_path, clock=at)
    try:
        await settle(store)
        await over(store, arguments={"note": "canary" * 4000})  # its result is put beside this later
        values = sealed(path)
        assert left(path, values) > 20
        await store.shred(OfCalls(holds=frozenset({H1}), sequences=frozenset(), proofs=frozenset()), None)
        assert left(path, values) == 0
    finally:
        await store.aclose()


async def test_a_call_that_is_not_over_keeps_what_it_is_decided_upon(tmp_path: Path) -> None:
    at = Time()
    store = open_(tmp_path, clock=at)
    try:
        await settle(store)
        held = await open_hold(store)
        await store.append(call(at))
        what = OfCalls(holds=frozenset({H1}), sequences=frozenset({1, 2, 3, 4, 5}), proofs=frozenset({name_of(PROOF)}))
        gone = await store.shred(what, None)
        assert gone.is_nothing and gone.open == (H1,)
        kept = await store.hold(H1)
        assert kept is not None and kept.arguments == held.arguments
        assert await store.signed([name_of(PROOF)]) == (PROOF,)
        assert (await store.shred(Before(at=at()), None)).holds == ()
    finally:
        await store.aclose()


async def test_what_is_over_for_long_enough_goes_by_itself(tmp_path: Path) -> None:
    at, path = Time(), tmp_path / "store.db"
    store = open_(tmp_path, clock=at, evidence_kept=timedelta(days=1))
    try:
        await settle(store)
        await over(store)
        await store.append(call(at))
        values = sealed(path)
        assert not await store.shred_due()
        at.pass_(timedelta(days=1, seconds=1))
        await store.append(replace(call(at, "c_2", signed=None), input=None))  # any write takes some of it along
        held = await store.hold(H1)
        assert held is not None and held.arguments == {} and await store.signed([name_of(PROOF)]) == (None,)
        assert not await store.shred_due() and left(path, values) == 0
    finally:
        await store.aclose()


async def test_a_statement_that_stands_in_its_row_as_in_stores_of_before_is_read_there_and_shredded_too(
    tmp_path: Path,
) -> None:
    at, path, statement = Time(), tmp_path / "store.db", "eyJhbGciOiJFZERTQSJ9." + "before" * 300 + ".c2ln"
    store = open_(tmp_path, clock=at)
    try:
        await settle(store)
        await over(store)
        older = "UPDATE verdicts SET statement = ?"
        await store._writer.run(lambda tx: tx.db.execute(older, (statement,)))
        held = await store.hold(H1)
        assert held is not None and held.verdicts[0].statement == statement and left(path, [statement.encode()])
        await store.shred(OfCalls(holds=frozenset({H1}), sequences=frozenset(), proofs=frozenset()), None)
        held = await store.hold(H1)
        assert held is not None and held.verdicts[0].statement == "" and not left(path, [statement.encode()])
    finally:
        await store.aclose()
