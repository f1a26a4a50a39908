"""Where a run of records does not hang together: each way in which it can be altered is found, and where."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from mcp_authz.rules.log import GENESIS, Stored, first_break, place_of, record_bytes, record_hash

AT = datetime(2026, 1, 1, tzinfo=UTC)


def a_log(records: int) -> list[Stored]:
    log, previous = list[Stored](), GENESIS
    for sequence in range(1, records + 1):
        fields = {"n": sequence}
        body = record_bytes(sequence=sequence, previous=previous, kind="pin", at=AT, call=None, fields=fields)
        previous = record_hash(body)
        log.append(Stored(sequence=sequence, body=body, hash=previous))
    return log


LOG = a_log(5)
HEAD = (5, LOG[-1].hash)


def test_a_whole_log_and_a_part_of_it_hang_together() -> None:
    assert first_break(LOG, head=HEAD) is None
    assert first_break(LOG[2:], head=HEAD, start=(2, LOG[1].hash)) is None
    assert first_break([], head=(0, GENESIS)) is None


def test_the_last_record_may_be_altered_as_little_as_any_other() -> None:
    for number, row in enumerate(LOG):
        other = replace(row, body=row.body.replace(b'"pin"', b'"pen"'))
        broken = first_break([*LOG[:number], other, *LOG[number + 1 :]], head=HEAD)
        assert broken is not None and broken.sequence == number + 1 and "was altered" in broken.why
        anew = replace(other, hash=record_hash(other.body))
        broken = first_break([*LOG[:number], anew, *LOG[number + 1 :]], head=HEAD)
        assert broken is not None and broken.sequence == min(number + 2, 6)


@pytest.mark.parametrize("head", [(6, LOG[-1].hash), (4, LOG[-1].hash), (5, LOG[-2].hash), (0, GENESIS)], ids=str)
def test_a_log_ends_at_the_number_and_the_hash_that_its_head_says(head: tuple[int, bytes]) -> None:
    broken = first_break(LOG, head=head)
    assert broken is not None and (broken.sequence, "its head says" in broken.why) == (6, True)


def test_a_cut_a_gap_a_repetition_and_an_exchange_are_found_where_they_are() -> None:
    assert first_break(LOG[:3], head=HEAD) is not None
    for rows, where in (
        ([*LOG[:2], *LOG[3:]], 3),
        ([*LOG[:2], LOG[1], *LOG[2:]], 3),
        ([LOG[1], LOG[0], *LOG[2:]], 1),
        (LOG[1:], 1),
    ):
        broken = first_break(rows, head=HEAD)
        assert broken is not None and broken.sequence == where


def test_a_record_says_its_own_place_at_its_end_and_its_fields_cannot() -> None:
    spoofed = f'"prev":"{"0" * 64}","seq":9}}'
    body = record_bytes(sequence=1, previous=b"p" * 32, kind="pin", at=AT, call=None, fields={"a": spoofed})
    assert place_of(body) == (1, b"p" * 32)
    assert place_of(body + b"\n") is None and place_of(b"{}") is None
