"""Attack 42: the audit is altered, cut, reordered or forked, by somebody who can write the file."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from mcp_authz.rules.log import Stored, first_break, record_bytes, record_hash
from mcp_authz.store.offline import stored_head, stored_records
from mcp_authz.store.sqlite import SqliteStore
from tests.store.conftest import SEALER
from tests.store.world import START, Time, event


async def a_log(path: Path) -> tuple[list[Stored], tuple[int, bytes]]:
    """Five records of a real store, as they lie on the disk, and their head."""
    store = SqliteStore.open(path, sealer=SEALER, clock=Time())
    try:
        for number in range(5):
            await store.append(event("decision", f"c_{number}", decision="deny", detail='"seq":2}'))
    finally:
        await store.aclose()
    return list(stored_records(path)), stored_head(path)


async def test_the_log_is_whole_before_anybody_touches_it(tmp_path: Path) -> None:
    rows, head = await a_log(tmp_path / "store.db")
    assert len(rows) == 5
    assert first_break(rows, head=head) is None


async def test_every_flipped_bit_of_every_record_is_found_at_its_place(tmp_path: Path) -> None:
    rows, head = await a_log(tmp_path / "store.db")
    for index, row in enumerate(rows):
        for position in range(len(row.body) * 8):
            altered = [*rows[:index], replace(row, body=flip(row.body, position)), *rows[index + 1 :]]
            found = first_break(altered, head=head)
            assert found is not None and found.sequence == row.sequence
        for position in range(len(row.hash) * 8):
            altered = [*rows[:index], replace(row, hash=flip(row.hash, position)), *rows[index + 1 :]]
            assert first_break(altered, head=head) is not None
        renumbered = [*rows[:index], replace(row, sequence=row.sequence + 64), *rows[index + 1 :]]
        assert first_break(renumbered, head=head) is not None


def flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


async def test_a_record_altered_with_its_hash_does_not_fit_the_next(tmp_path: Path) -> None:
    rows, head = await a_log(tmp_path / "store.db")
    for index, row in enumerate(rows):
        body = row.body.replace(b'"deny"', b'"permit"')
        altered = [*rows[:index], Stored(sequence=row.sequence, body=body, hash=record_hash(body)), *rows[index + 1 :]]
        assert first_break(altered, head=head) is not None


async def test_a_log_written_anew_from_some_record_on_does_not_end_in_its_head(tmp_path: Path) -> None:
    rows, head = await a_log(tmp_path / "store.db")
    forged, previous = rows[:2], rows[1].hash
    for sequence in range(3, 6):
        body = record_bytes(
            sequence=sequence, previous=previous, kind="decision", at=START, call=None, fields={"decision": "permit"}
        )
        forged.append(Stored(sequence=sequence, body=body, hash=record_hash(body)))
        previous = record_hash(body)
    found = first_break(forged, head=head)
    assert found is not None and "head" in found.why


@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize(
    "tamper",
    [
        pytest.param(lambda rows, n: rows[:n] + rows[n + 1 :], id="dropped"),
        pytest.param(lambda rows, n: rows[: n + 1] + rows[n:], id="duplicated"),
        pytest.param(lambda rows, n: rows[:n] + rows[n:][::-1] if n < 4 else rows[::-1], id="reordered"),
        pytest.param(lambda rows, n: rows[:n], id="cut"),
        pytest.param(lambda rows, n: rows[n + 1 :], id="beginning cut"),
    ],
)
async def test_records_dropped_duplicated_reordered_or_cut_are_found(
    tmp_path: Path, tamper: Callable[[list[Stored], int], list[Stored]], index: int
) -> None:
    rows, head = await a_log(tmp_path / "store.db")
    assert first_break(tamper(rows, index), head=head) is not None


async def test_a_gap_closed_by_renumbering_is_found(tmp_path: Path) -> None:
    rows, head = await a_log(tmp_path / "store.db")
    for index in range(5):
        left = rows[:index] + rows[index + 1 :]
        renumbered = [replace(row, sequence=number) for number, row in enumerate(left, 1)]
        assert first_break(renumbered, head=head) is not None
        assert index == 4 or first_break(renumbered, head=None) is not None


async def test_a_field_of_an_event_cannot_stand_in_for_the_place_of_its_record(tmp_path: Path) -> None:
    rows, _ = await a_log(tmp_path / "store.db")
    lie = {"prev": rows[0].hash.hex(), "z": {"prev": rows[0].hash.hex(), "seq": 2}}
    body = record_bytes(sequence=3, previous=rows[1].hash, kind="decision", at=START, call=None, fields=lie)
    moved = [rows[0], Stored(sequence=2, body=body, hash=record_hash(body))]
    found = first_break(moved, head=None)
    assert found is not None and found.sequence == 2


async def test_the_database_itself_refuses_to_alter_or_cut_its_log(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await a_log(path)
    with closing(sqlite3.connect(path)) as db:
        for statement in (
            "UPDATE log SET hash = zeroblob(32) WHERE sequence = 2",
            "DELETE FROM log WHERE sequence = 5",
        ):
            with pytest.raises(sqlite3.IntegrityError, match="never"):
                db.execute(statement)


async def test_a_record_cut_from_the_file_with_its_guards_is_missed_by_the_reader(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    _, head = await a_log(path)
    with closing(sqlite3.connect(path)) as db, db:
        db.execute("DROP TRIGGER log_is_never_cut")
        db.execute("DELETE FROM log WHERE sequence = 5")
    found = first_break(stored_records(path), head=stored_head(path))
    assert found is not None and found.sequence == 5
    assert stored_head(path) == head


async def test_a_fork_of_the_log_is_not_the_log_whose_head_was_kept_elsewhere(tmp_path: Path) -> None:
    rows, _ = await a_log(tmp_path / "store.db")
    for kind in ("", ".witness"):
        (tmp_path / f"fork.db{kind}").write_bytes((tmp_path / f"store.db{kind}").read_bytes())
    heads = []
    for name in ("store.db", "fork.db"):
        store = SqliteStore.open(tmp_path / name, sealer=SEALER, clock=Time())
        try:
            await store.append(event("decision", "c_5", written_by=name))
        finally:
            await store.aclose()
        heads.append(stored_head(tmp_path / name))
    fork = stored_records(tmp_path / "fork.db")
    assert list(fork[:5]) == rows
    assert first_break(fork, head=heads[1]) is None
    assert first_break(fork, head=heads[0]) is not None
