"""What has run out goes with the next write of any kind, each sort by itself, and nothing that has not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from mcp_authz import limits
from mcp_authz.store.rows import micros
from mcp_authz.store.tidying import Kept, tidy
from tests.store.tables import NOW, START, asked, put, tables, transaction

KEPT = Kept(inputs=timedelta(days=7), evidence=timedelta(days=30))
ONCE, DAY = limits.ONCE_KEPT, timedelta(days=1)
RUN_OUT = {
    "once": ({"expires_at"}, ONCE),
    "counted": ({"expires_at"}, timedelta()),
    "spent": ({"expires_at"}, ONCE),
    "codes": ({"expires_at"}, DAY),
    "refresh_tokens": ({"expires_at"}, DAY),
    "inputs": ({"at"}, KEPT.inputs),
    "tasks": ({"expires_at"}, timedelta()),
    "evidence": ({"at"}, KEPT.evidence),
    "standing_approvals": ({"expires_at"}, KEPT.evidence),
}
ALSO: dict[str, dict[str, Any]] = {"evidence": {"kind": "call-proof"}}


@pytest.mark.parametrize("table", RUN_OUT)
def test_each_sort_of_thing_goes_when_it_has_run_out_and_not_before(table: str) -> None:
    columns, kept = RUN_OUT[table]
    for before, left in ((timedelta(microseconds=1), 1), (timedelta(), 0)):
        with tables() as db:
            at = micros(START - kept + before)
            put(db, table, **ALSO.get(table, {}), **dict.fromkeys(columns, at))
            tidy(transaction(db), kept=KEPT)
            assert len(asked(db, f"SELECT 1 FROM {table}")) == left  # noqa: S608 - a name from above


def test_a_hold_whose_time_is_up_is_expired_on_record() -> None:
    with tables() as db:
        put(db, "holds", id="h_due", expires_at=NOW)
        put(db, "holds", id="h_waits", position=2, expires_at=NOW + 1)
        tidy(transaction(db), kept=KEPT)
        assert asked(db, "SELECT id, state FROM holds ORDER BY id") == [("h_due", "expired"), ("h_waits", "pending")]
        assert len(asked(db, "SELECT 1 FROM log")) == 1


def test_what_a_hold_had_of_arguments_is_shredded_when_it_is_over_for_long_enough() -> None:
    for before, shredded in ((timedelta(microseconds=1), 0), (timedelta(), 1)):
        with tables() as db:
            put(db, "holds", state="done", expires_at=0, ended_at=micros(START - KEPT.evidence + before))
            tidy(transaction(db), kept=KEPT)
            assert asked(db, "SELECT count(*) FROM holds WHERE shredded_at IS NOT NULL") == [(shredded,)]
